"""The outgoing batch; see packing.pyx."""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.memory cimport buf_append, buf_reserve, buf_t, pool_t


cdef enum:
    MAX_SLOTS = 64


cdef struct batch_entry_t:        # one per record: collector/router/batches.py
    uint32_t length               # bytes of the record, its newline included
    uint32_t details_len
    uint64_t end_ns
    uint64_t conn_id
    uint64_t pos                  # of the request's first byte


cdef struct batch_t:
    pool_t pool                   # what the batch holds on the heap
    buf_t records                 # newline-terminated: on the heap, or in a slot
    buf_t index                   # a batch_entry_t for each
    buf_t details
    int32_t slot                  # -1: on the heap
    char* slots                   # memory shared with the sink, or NULL
    uint32_t slot_bytes
    uint32_t free_slots           # on the stack below
    uint8_t slot_stack[64]
    uint64_t slots_out            # announced and not given back
    size_t complete               # a batch is complete with so many bytes
    size_t most                   # beyond it records go without their bodies
    uint32_t count                # of records

cdef int batch_grow(batch_t* batch, size_t more) noexcept


cdef inline int batch_reserve(batch_t* batch, size_t more) noexcept:
    """Room for `more` further bytes of records. 0, or -1 when memory is out."""
    if batch.records.len + more <= batch.records.cap:
        return 0
    return batch_grow(batch, more)


cdef inline int batch_add(batch_t* batch, uint32_t start, uint64_t end_ns, uint64_t conn_id, uint64_t pos,
                          const buf_t* details) noexcept:
    """What was appended from `start` on is a record: end its line, and enter it in the index. 0, or -1 when memory is out;
    then nothing of it is left."""
    cdef batch_entry_t* entry
    if (batch_reserve(batch, 1) < 0
            or buf_reserve(&batch.pool, &batch.index, sizeof(batch_entry_t)) < 0
            or (details.len and buf_append(&batch.pool, &batch.details, details.data, details.len) < 0)):
        batch.records.len = start
        return -1
    batch.records.data[batch.records.len] = c'\n'
    batch.records.len += 1
    entry = <batch_entry_t*>(batch.index.data + batch.index.len)
    batch.index.len += sizeof(batch_entry_t)
    entry.length = batch.records.len - start
    entry.details_len = details.len
    entry.end_ns = end_ns
    entry.conn_id = conn_id
    entry.pos = pos
    batch.count += 1
    return 0


@cython.final
cdef class Packer:
    cdef batch_t batch
    cdef unsigned char[::1] memory
    cdef bint record_batches      # or JSON lines
    cdef uint16_t codec           # number of Kafka's
    cdef object compress          # bytes-like -> bytes-like
    cdef size_t batch_most        # bytes of a RecordBatch before compression
    cdef size_t batch_largest     # and as it is sent
    cdef size_t allowed           # before compression now, by how well what came lately compresses
    cdef bint keys
    cdef size_t largest           # the same, when the destination has said it; 0: it has not
    cdef size_t complete_bytes    # batch.complete, when that is so
    cdef buf_t framed
    cdef object tap               # eyes.tap.Tap: sees what is taken, while somebody looks; or None
    cdef void next_slot(self) noexcept
    cdef void set_largest(self, size_t batch_bytes) noexcept
    cdef take_record_batch(self, int64_t wall_ms)
