"""The names of processes that a shard was told: a hash of fixed size. Of those that share a place, the one that was told or
asked for longest ago gives way.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy

from collector.abi cimport event_process
from collector.shards.state cimport NAME_PROBES, NAMES, ctx_t, name_t


cdef inline void tell_process(ctx_t* ctx, event_process* p) noexcept nogil:
    """Keep the name of a process."""
    cdef uint32_t at = (p.h.tgid * <uint32_t>2654435761) >> 17
    cdef int i
    cdef name_t* entry
    cdef name_t* place = NULL
    for i in range(NAME_PROBES):
        entry = &ctx.names[(at + <uint32_t>i) & (NAMES - 1)]
        if entry.tgid == p.h.tgid or entry.tgid == 0:
            place = entry
            break
        if place == NULL or entry.used < place.used:
            place = entry
    if place.tgid == p.h.tgid and memcmp(place.comm, p.comm, 16) != 0:
        ctx.names_version += 1
    ctx.names_told += 1
    place.tgid = p.h.tgid
    place.used = ctx.names_told
    memcpy(place.comm, p.comm, 16)


cdef inline const char* process_name(ctx_t* ctx, uint32_t tgid) noexcept nogil:
    """16 bytes, NUL padded; empty when the process was never told. Who is asked for stays."""
    cdef uint32_t at = (tgid * <uint32_t>2654435761) >> 17
    cdef int i
    cdef name_t* entry
    for i in range(NAME_PROBES):
        entry = &ctx.names[(at + <uint32_t>i) & (NAMES - 1)]
        if entry.tgid == tgid:
            ctx.names_told += 1
            entry.used = ctx.names_told
            return entry.comm
    return b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
