"""The names of processes and libraries; see names.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from collector.abi cimport event_header, event_library, event_process
from collector.shards.state cimport ctx_t, name_t, owner_t

cdef void told_process(ctx_t* ctx, event_process* p) noexcept nogil
cdef const char* process_name(ctx_t* ctx, uint32_t tgid) noexcept nogil
cdef bint told_owner(ctx_t* ctx, event_header* h) noexcept nogil
cdef name_t* process_entry(ctx_t* ctx, uint32_t tgid) noexcept nogil
cdef bint process_unselected(ctx_t* ctx, uint32_t tgid) noexcept nogil
cdef owner_t* shared_owner(ctx_t* ctx, const char* fields, uint32_t length) noexcept nogil
cdef void release_owner(owner_t* owner) noexcept nogil
cdef void forget_owners(ctx_t* ctx) noexcept nogil
cdef void told_library(ctx_t* ctx, event_library* e) noexcept nogil
cdef const char* library_name(ctx_t* ctx, uint32_t number) noexcept nogil


cdef inline bint printable(const char* text, size_t n) noexcept nogil:
    """Is all of it printable ASCII?"""
    cdef size_t i
    for i in range(n):
        if <uint8_t>text[i] < 32 or <uint8_t>text[i] > 126:
            return False
    return True
