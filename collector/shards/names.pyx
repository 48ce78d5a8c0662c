"""The names of processes, as EVENT_PROCESS tells them: a table of fixed size, in which the one told or asked for longest ago
gives way. And those of libraries, as EVENT_LIBRARY tells them: a table by their numbers.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy

from collector.abi cimport event_library, event_process
from collector.shards.state cimport ctx_t, library_t, name_t, LIBRARIES, NAMES, NAME_PROBES

cdef extern from "string.h" nogil:
    size_t strnlen(const char* s, size_t most)


cdef void told_process(ctx_t* ctx, event_process* p) noexcept nogil:
    """Keep the name of a process; the one told longest ago of those that share a place gives way."""
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


cdef const char* process_name(ctx_t* ctx, uint32_t tgid) noexcept nogil:
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


cdef void told_library(ctx_t* ctx, event_library* e) noexcept nogil:
    """Keep the name of a library. A number that is used again has the new name, and a number beyond the table none."""
    cdef library_t* entry
    if e.number == 0 or e.number >= LIBRARIES or not printable(e.name, strnlen(e.name, 47)):
        return
    entry = &ctx.libraries[e.number]
    if memcmp(entry.name, e.name, 47) != 0:
        memcpy(entry.name, e.name, 47)      # the last byte stays 0
        ctx.names_version += 1


cdef const char* library_name(ctx_t* ctx, uint32_t number) noexcept nogil:
    """Empty when the library was never told."""
    return ctx.libraries[number if number < LIBRARIES else 0].name
