"""Records -> batches: the last stage of a shard, behind the encoder.

The encoder appends records to `batch_t.records` as JSON lines, with an index (collector/router/batches.py). As JSON lines
they leave, too: then `records` lies in a slot of the memory shared with the sink while one is free
(collector/router/slots.py), else on the heap, and a record is never copied on its way out. Or they leave as Kafka's
RecordBatch: then `records` is on the heap, and its records are framed and compressed into a slot when the batch is taken.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from collector.shards.eyes.tap cimport Tap
from collector.shards.memory cimport buf_free, buf_reserve, buf_t
from collector.shards.kafka cimport CRC_FROM, HEADER_BYTES, frame, framed_most, put_crc, put_header

from crc32c import crc32c

from collector.router.batches import ENTRY_BYTES

cdef enum:
    MOST_BATCHES = 8        # one batch may become as long as so many, and then go on without bodies
    RATIO = 2               # so much smaller than before is a batch when it is sent, at least as a rule
    KEEP_BYTES = 8 << 20    # capacity on the heap that is kept

assert sizeof(batch_entry_t) == ENTRY_BYTES


cdef inline void drop_front(buf_t* b, size_t n) noexcept:
    """Without its first `n` bytes."""
    if n < b.len:
        memmove(b.data, b.data + n, b.len - n)
    b.len -= <uint32_t>n


cdef int batch_grow(batch_t* batch, size_t more) noexcept:
    """As batch_reserve, where there is no room yet."""
    cdef buf_t heap
    if batch.slot < 0:
        return buf_reserve(&batch.pool, &batch.records, more)
    # the batch does not fit its slot: it goes on on the heap
    memset(&heap, 0, sizeof(buf_t))
    if buf_reserve(&batch.pool, &heap, batch.records.len + more) < 0:
        return -1
    memcpy(heap.data, batch.records.data, batch.records.len)
    heap.len = batch.records.len
    batch.slot_stack[batch.free_slots] = <uint8_t>batch.slot
    batch.free_slots += 1
    batch.slot = -1
    batch.records = heap
    return 0


@cython.final
cdef class Packer:
    """Owns the batch and the slots. Not thread-safe. ``batch_bytes``: a batch is complete with so many, without slots."""

    def __cinit__(self, size_t batch_bytes):
        memset(&self.batch, 0, sizeof(batch_t))
        self.batch.slot = -1
        self.batch.complete = self.complete_bytes = batch_bytes
        self.batch.most = batch_bytes * MOST_BATCHES

    def __dealloc__(self):
        if self.batch.slot < 0:
            buf_free(&self.batch.pool, &self.batch.records)
        buf_free(&self.batch.pool, &self.batch.index)
        buf_free(&self.batch.pool, &self.batch.details)
        buf_free(&self.batch.pool, &self.framed)

    def use_record_batches(self, uint16_t codec, compress not None, size_t most, size_t largest, bint keys=False):
        """Make Kafka's RecordBatches instead of JSON lines, compressed by ``compress`` (bytes-like -> bytes-like), which
        Kafka knows as ``codec``. None has more than ``most`` bytes before compression, or ``largest`` as it is sent, unless
        a single record has.
        ``keys``: a record's key is its connection, in hexadecimal; else it has none.
        Before the slots, and the first event. Raises ValueError."""
        if self.batch.records.len or self.batch.slots != NULL:
            raise ValueError("record batches: too late")
        self.record_batches = True
        self.codec = codec
        self.compress = compress
        self.batch_most = self.allowed = most
        self.batch_largest = largest
        self.keys = keys

    cdef void set_largest(self, size_t batch_bytes) noexcept:
        """No batch may have more than ``batch_bytes`` as it is sent, however it was set up; 0: as it was."""
        self.largest = batch_bytes
        self.batch.complete = self.complete_bytes
        if batch_bytes and self.complete_bytes > batch_bytes * RATIO:
            self.batch.complete = batch_bytes * RATIO

    def pending(self):
        """Bytes of records that are ready."""
        return self.batch.records.len

    def pending_records(self):
        """How many records are ready."""
        return self.batch.count

    def use_tap(self, Tap tap):
        """Let ``tap`` see the records of each batch that is taken from now on; None: nobody looks."""
        self.tap = tap

    def take(self, int64_t wall_ms=0):
        """(records, index, details) and begin a new batch; None when there is nothing.

        records: newline-terminated JSON, or a RecordBatch whose time is ``wall_ms`` (Unix time), or (slot, bytes) when they
        lie in a slot. index: an entry of router/batches.py per record. details: `host|method|path` of each record of JSON,
        back to back; those of a RecordBatch are in it. A RecordBatch may leave records for the next one.
        """
        cdef batch_t* batch = &self.batch
        if batch.records.len == 0:
            return None
        if self.record_batches:
            return self.take_record_batch(wall_ms)
        if self.tap is not None:
            (<Tap>self.tap).see(<const uint8_t*>batch.records.data, batch.records.len)
        out = ((batch.slot, batch.records.len) if batch.slot >= 0 else
               PyBytes_FromStringAndSize(batch.records.data, batch.records.len),
               PyBytes_FromStringAndSize(batch.index.data, batch.index.len),
               PyBytes_FromStringAndSize(batch.details.data, batch.details.len))
        batch.records.len = 0
        batch.index.len = 0
        batch.details.len = 0
        batch.count = 0
        if batch.slot >= 0:
            batch.slots_out |= <uint64_t>1 << batch.slot
            batch.slot = -1
            memset(&batch.records, 0, sizeof(buf_t))
        elif batch.records.cap > KEEP_BYTES:
            buf_free(&batch.pool, &batch.records)
        self.next_slot()
        return out

    cdef take_record_batch(self, int64_t wall_ms):
        """As many of the records as a RecordBatch may have; the others stay."""
        cdef batch_t* batch = &self.batch
        cdef const batch_entry_t* entries = <const batch_entry_t*>batch.index.data
        cdef const uint8_t[::1] records
        cdef uint32_t count = 0
        cdef size_t most = 0, used = 0, details = 0, size
        cdef size_t largest = self.largest or self.batch_largest
        cdef uint8_t* out
        cdef bytes heap, index
        cdef object where
        while True:
            count = 0
            most = used = details = 0
            while count < batch.count and (count == 0 or most + framed_most(&entries[count]) <= self.allowed):
                most += framed_most(&entries[count])
                used += entries[count].length
                details += entries[count].details_len
                count += 1
            self.framed.len = 0
            if buf_reserve(&batch.pool, &self.framed, most) < 0:
                raise MemoryError
            size = frame(<uint8_t*>self.framed.data, entries, count, batch.records.data, batch.details.data,
                         self.keys)
            records = self.compress(PyMemoryView_FromMemory(self.framed.data, <Py_ssize_t>size, PyBUF_READ))
            size = HEADER_BYTES + <size_t>records.shape[0]
            if size <= largest or count == 1:
                break
            self.allowed = most // 8 * 7 * largest // size      # they compress badly, and the next ones may, too
        if size < largest // 2:
            self.allowed = min(self.batch_most, self.allowed // 4 * 5)
        index = PyBytes_FromStringAndSize(batch.index.data, <Py_ssize_t>(count * sizeof(batch_entry_t)))
        if batch.free_slots and size <= batch.slot_bytes:
            batch.free_slots -= 1
            slot = batch.slot_stack[batch.free_slots]
            batch.slots_out |= <uint64_t>1 << slot
            out = <uint8_t*>batch.slots + <size_t>slot * batch.slot_bytes
            where = (slot, size)
        else:
            heap = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            out = <uint8_t*>PyBytes_AS_STRING(heap)
            where = heap
        memcpy(out + HEADER_BYTES, &records[0], <size_t>records.shape[0])
        put_header(out, <uint32_t>records.shape[0], self.codec, count, wall_ms)
        put_crc(out, crc32c(PyMemoryView_FromMemory(<char*>out + CRC_FROM, <Py_ssize_t>(size - CRC_FROM), PyBUF_READ)))
        if self.tap is not None:
            (<Tap>self.tap).see(<const uint8_t*>batch.records.data, used)
        drop_front(&batch.records, used)
        drop_front(&batch.index, count * sizeof(batch_entry_t))
        drop_front(&batch.details, details)
        batch.count -= count
        if batch.records.len == 0 and batch.records.cap > KEEP_BYTES:
            buf_free(&batch.pool, &batch.records)
        if self.framed.cap > KEEP_BYTES:
            buf_free(&batch.pool, &self.framed)
        return where, index, b""

    def use_slots(self, unsigned char[::1] memory not None, uint32_t count, uint32_t batch_bytes):
        """Write batches into ``memory``, ``count`` slots of equal size (at most 64), while any is free; a batch is
        complete with ``batch_bytes``. Before the first event. Raises ValueError."""
        cdef uint32_t i
        if not 0 < count <= MAX_SLOTS or memory.shape[0] < <Py_ssize_t>count * 4096 or self.batch.records.len:
            raise ValueError("slots: too many, too small or too late")
        self.memory = memory
        self.batch.complete = self.complete_bytes = batch_bytes
        self.batch.most = <size_t>batch_bytes * (2 if self.record_batches else MOST_BATCHES)
        self.batch.slots = <char*>&memory[0]
        self.batch.slot_bytes = <uint32_t>(memory.shape[0] // count)
        self.batch.free_slots = count
        for i in range(count):
            self.batch.slot_stack[i] = <uint8_t>(count - 1 - i)
        self.next_slot()

    def release(self, uint32_t slot):
        """The batch in this slot is done with. Raises ValueError for a slot that is not out: it must never hold two
        batches."""
        if slot >= MAX_SLOTS or not self.batch.slots_out >> slot & 1:
            raise ValueError(f"slot {slot} is not out")
        self.batch.slots_out &= ~(<uint64_t>1 << slot)
        self.batch.slot_stack[self.batch.free_slots] = <uint8_t>slot
        self.batch.free_slots += 1
        if self.batch.records.len == 0 and self.batch.slot < 0:
            self.next_slot()

    def free_slots(self):
        """The slots that are free, the one that was used longest ago first."""
        return [self.batch.slot_stack[i] for i in range(self.batch.free_slots)]

    cdef void next_slot(self) noexcept:
        """Let an empty batch begin in a slot, if one is free: the one used last, whose memory is warm."""
        cdef batch_t* batch = &self.batch
        if batch.slot >= 0 or batch.free_slots == 0 or self.record_batches:
            return
        buf_free(&batch.pool, &batch.records)
        batch.free_slots -= 1
        batch.slot = batch.slot_stack[batch.free_slots]
        batch.records.data = batch.slots + <size_t>batch.slot * batch.slot_bytes
        batch.records.cap = batch.slot_bytes
        batch.records.len = 0
