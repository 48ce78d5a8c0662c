"""The names of processes and who owns them, as EVENT_PROCESS and EVENT_OWNER tell them: a table of fixed size, in which the
one told or asked for longest ago gives way. And the names of libraries, as EVENT_LIBRARY tells them: a table by their
numbers.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from collector.abi cimport event_header, event_library, event_process, OWNER_F_PENDING, OWNER_F_UNSELECTED
from collector.shards.state cimport ctx_t, library_t, name_t, owner_t, LIBRARIES, NAMES, NAME_PROBES, OWNER_TEXTS

cdef extern from "string.h" nogil:
    size_t strnlen(const char* s, size_t most)


cdef name_t* place_of(ctx_t* ctx, uint32_t tgid) noexcept nogil:
    """The entry of a process, made if there is none: the one told longest ago of those that share a place gives way."""
    cdef uint32_t at = (tgid * <uint32_t>2654435761) >> 17
    cdef int i
    cdef name_t* entry
    cdef name_t* place = NULL
    for i in range(NAME_PROBES):
        entry = &ctx.names[(at + <uint32_t>i) & (NAMES - 1)]
        if entry.tgid == tgid or entry.tgid == 0:
            place = entry
            break
        if place == NULL or entry.used < place.used:
            place = entry
    ctx.names_told += 1
    place.used = ctx.names_told
    if place.tgid != tgid:
        forget_owner(ctx, place)
        memset(place, 0, sizeof(name_t))
        place.tgid = tgid
        place.used = ctx.names_told
    return place


cdef void forget_owner(ctx_t* ctx, name_t* entry) noexcept nogil:
    release_owner(entry.owner)
    entry.owner = NULL
    entry.unselected = 0
    if entry.pending_ns:
        entry.pending_ns = 0
        ctx.pending_owners -= 1


cdef void forget_owners(ctx_t* ctx) noexcept nogil:
    """At the end."""
    cdef uint32_t i
    for i in range(NAMES if ctx.names != NULL else 0):
        forget_owner(ctx, &ctx.names[i])
    for i in range(OWNER_TEXTS if ctx.owner_texts != NULL else 0):
        release_owner(ctx.owner_texts[i])
    free(ctx.owner_texts)
    ctx.owner_texts = NULL


cdef owner_t* shared_owner(ctx_t* ctx, const char* fields, uint32_t length) noexcept nogil:
    """The text of an owner, once for all processes of a container: `release_owner` gives it back. NULL when memory is out.
    Two texts with the same place in the table take it from one another, and are kept as often as they are told then.
    """
    cdef uint32_t hashed = 2166136261       # FNV-1a
    cdef uint32_t i
    cdef owner_t** place
    cdef owner_t* owner
    for i in range(length):
        hashed = (hashed ^ <uint8_t>fields[i]) * <uint32_t>16777619
    if ctx.owner_texts == NULL:
        ctx.owner_texts = <owner_t**>calloc(OWNER_TEXTS, sizeof(owner_t*))
        if ctx.owner_texts == NULL:
            return NULL
    place = &ctx.owner_texts[hashed & (OWNER_TEXTS - 1)]
    owner = place[0]
    if owner == NULL or owner.len != length or memcmp(owner.fields, fields, length) != 0:
        owner = <owner_t*>malloc(sizeof(owner_t) + length)
        if owner == NULL:
            return NULL
        owner.len = length
        owner.references = 1
        memcpy(owner.fields, fields, length)
        release_owner(place[0])
        place[0] = owner
    owner.references += 1
    return owner


cdef void release_owner(owner_t* owner) noexcept nogil:
    """Whoever had it needs it no more; NULL is nobody's."""
    if owner != NULL:
        owner.references -= 1
        if owner.references == 0:
            free(owner)


cdef void told_process(ctx_t* ctx, event_process* p) noexcept nogil:
    """Keep the name of a process."""
    cdef name_t* place = place_of(ctx, p.h.tgid)
    if place.comm[0] and memcmp(place.comm, p.comm, 16) != 0:
        ctx.names_version += 1
    memcpy(place.comm, p.comm, 16)
    if p.start_ns:
        if place.start_ns and place.start_ns != p.start_ns:     # the number is another process's by now
            forget_owner(ctx, place)
            ctx.names_version += 1
        place.start_ns = p.start_ns


cdef bint told_owner(ctx_t* ctx, event_header* h) noexcept nogil:
    """Keep who owns a process. Is that news for its connections?"""
    cdef name_t* place = place_of(ctx, h.tgid)
    cdef const char* fields = <const char*>h + sizeof(event_header)
    cdef owner_t* owner
    cdef bint was_unselected, was_pending
    ctx.owners = 1
    if h.pos:
        if place.start_ns and place.start_ns != h.pos:      # the number is another process's by now
            forget_owner(ctx, place)
            ctx.names_version += 1
        place.start_ns = h.pos
    owner = place.owner
    was_unselected = place.unselected
    was_pending = place.pending_ns != 0
    if h.flags & OWNER_F_PENDING and not h.flags & OWNER_F_UNSELECTED:
        if not was_pending:
            place.pending_ns = h.ts_ns if h.ts_ns else 1
            ctx.pending_owners += 1
    elif was_pending:
        place.pending_ns = 0
        ctx.pending_owners -= 1
    place.unselected = h.flags & OWNER_F_UNSELECTED != 0
    ctx.any_unselected |= place.unselected
    if not (owner == NULL and h.len_cap == 0
            or owner != NULL and owner.len == h.len_cap and memcmp(owner.fields, fields, h.len_cap) == 0):
        if owner != NULL or place.comm[0]:
            ctx.names_version += 1      # it may stand in what was made for connections already
        place.owner = shared_owner(ctx, fields, h.len_cap) if h.len_cap else NULL
        release_owner(owner)
    return (was_pending and place.pending_ns == 0) or was_unselected != place.unselected


cdef name_t* process_entry(ctx_t* ctx, uint32_t tgid) noexcept nogil:
    """What is known of a process; NULL when it was never told."""
    cdef uint32_t at = (tgid * <uint32_t>2654435761) >> 17
    cdef int i
    cdef name_t* entry
    for i in range(NAME_PROBES):
        entry = &ctx.names[(at + <uint32_t>i) & (NAMES - 1)]
        if entry.tgid == tgid:
            return entry
    return NULL


cdef bint process_unselected(ctx_t* ctx, uint32_t tgid) noexcept nogil:
    """Is nothing of that process wanted?"""
    cdef name_t* entry
    if not ctx.any_unselected:
        return False
    entry = process_entry(ctx, tgid)
    return entry != NULL and entry.unselected


cdef const char* process_name(ctx_t* ctx, uint32_t tgid) noexcept nogil:
    """16 bytes, NUL padded; empty when the process was never told. Who is asked for stays."""
    cdef name_t* entry = process_entry(ctx, tgid)
    if entry == NULL:
        return b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    ctx.names_told += 1
    entry.used = ctx.names_told
    return entry.comm


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
