"""Records -> batches: the last stage of a shard, behind the encoder.

The encoder appends records to `batch_t.records`, which lies in a slot of the memory shared with the sink while one is free
(collector/router/slots.py), else on the heap; a record is never copied on its way out. Batches are JSON lines with an index
(collector/router/batches.py). Another format would be packed here, out of a complete batch.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from collector.shards.memory cimport buf_free, buf_reserve, buf_t

from collector.router.batches import ENTRY_BYTES

cdef enum:
    MOST_BATCHES = 8        # one batch may become as long as so many, and then go on without bodies
    KEEP_BYTES = 8 << 20    # capacity on the heap that is kept

assert sizeof(batch_entry_t) == ENTRY_BYTES


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
        self.batch.complete = batch_bytes
        self.batch.most = batch_bytes * MOST_BATCHES

    def __dealloc__(self):
        if self.batch.slot < 0:
            buf_free(&self.batch.pool, &self.batch.records)
        buf_free(&self.batch.pool, &self.batch.index)
        buf_free(&self.batch.pool, &self.batch.details)

    def pending(self):
        """Bytes of records that are ready."""
        return self.batch.records.len

    def take(self):
        """(records, index, details) and begin a new batch; None when there is nothing.

        records: newline-terminated JSON, or (slot, bytes) when they lie in a slot. index: an entry of router/batches.py per
        record. details: `host|method|path` of each record, back to back.
        """
        cdef batch_t* batch = &self.batch
        if batch.records.len == 0:
            return None
        out = ((batch.slot, batch.records.len) if batch.slot >= 0 else
               PyBytes_FromStringAndSize(batch.records.data, batch.records.len),
               PyBytes_FromStringAndSize(batch.index.data, batch.index.len),
               PyBytes_FromStringAndSize(batch.details.data, batch.details.len))
        batch.records.len = 0
        batch.index.len = 0
        batch.details.len = 0
        if batch.slot >= 0:
            batch.slots_out |= <uint64_t>1 << batch.slot
            batch.slot = -1
            memset(&batch.records, 0, sizeof(buf_t))
        elif batch.records.cap > KEEP_BYTES:
            buf_free(&batch.pool, &batch.records)
        self.next_slot()
        return out

    def use_slots(self, unsigned char[::1] memory not None, uint32_t count, uint32_t batch_bytes):
        """Write batches into ``memory``, ``count`` slots of equal size (at most 64), while any is free; a batch is
        complete with ``batch_bytes``. Before the first event. Raises ValueError."""
        cdef uint32_t i
        if not 0 < count <= MAX_SLOTS or memory.shape[0] < <Py_ssize_t>count * 4096 or self.batch.records.len:
            raise ValueError("slots: too many, too small or too late")
        self.memory = memory
        self.batch.complete = batch_bytes
        self.batch.most = <size_t>batch_bytes * MOST_BATCHES
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
        if batch.slot >= 0 or batch.free_slots == 0:
            return
        buf_free(&batch.pool, &batch.records)
        batch.free_slots -= 1
        batch.slot = batch.slot_stack[batch.free_slots]
        batch.records.data = batch.slots + <size_t>batch.slot * batch.slot_bytes
        batch.records.cap = batch.slot_bytes
        batch.records.len = 0
