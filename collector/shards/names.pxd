"""The names of processes; see names.pyx."""

from libc.stdint cimport uint32_t

from collector.abi cimport event_process
from collector.shards.state cimport ctx_t

cdef void told_process(ctx_t* ctx, event_process* p) noexcept nogil
cdef const char* process_name(ctx_t* ctx, uint32_t tgid) noexcept nogil
