"""Who has which address, as EVENT_PEER tells: the pods of this node. A table of fixed size, in which the one told longest
ago of those that share a place gives way.

An address may be another pod's by and by. So it is believed only for connections of which something was heard since it was
told: what is left of older ones keeps what they had.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from collector.abi cimport event_peer
from collector.shards.names cimport release_owner, shared_owner
from collector.shards.state cimport conn_t, ctx_t, owner_t

cdef enum:
    PEERS = 2048            # a power of two; a node has a few hundred pods, with two addresses each
    PROBES = 16


cdef inline uint32_t place_of(const uint8_t* address) noexcept nogil:
    cdef const uint64_t* words = <const uint64_t*>address
    cdef uint64_t mixed
    cdef uint64_t pair[2]
    memcpy(pair, words, 16)
    mixed = pair[0] ^ pair[1]
    mixed ^= mixed >> 32        # neighbours differ in the last bytes, which are the uppermost bits here
    return <uint32_t>((mixed * <uint64_t>0x9E3779B97F4A7C15) >> 40)


cdef int told_peer(ctx_t* ctx, event_peer* e) noexcept nogil:
    """Keep who has an address; nobody, if there are no fields. 0, or -1 when memory is out."""
    cdef uint32_t at = place_of(e.address)
    cdef int i
    cdef const char* fields = <const char*>e + sizeof(event_peer)
    cdef peer_t* peers
    cdef peer_t* entry
    cdef peer_t* place = NULL
    cdef peer_t* nobody = NULL      # a place that is free, or of an address that nobody has any more
    cdef peer_t* oldest = NULL
    cdef owner_t* owner = NULL
    if ctx.peers == NULL:
        ctx.peers = calloc(PEERS, sizeof(peer_t))
        if ctx.peers == NULL:
            return -1
    peers = <peer_t*>ctx.peers
    for i in range(PROBES):
        entry = &peers[(at + <uint32_t>i) & (PEERS - 1)]
        if entry.used == 0:
            if nobody == NULL:
                nobody = entry
            break
        if memcmp(entry.address, e.address, 16) == 0:
            place = entry
            break
        if entry.owner == NULL and nobody == NULL:
            nobody = entry
        if oldest == NULL or entry.used < oldest.used:
            oldest = entry
    if place == NULL:
        place = nobody if nobody != NULL else oldest
    if (place.owner != NULL and place.owner.len == e.h.len_cap and memcmp(place.address, e.address, 16) == 0
            and memcmp(place.owner.fields, fields, e.h.len_cap) == 0):
        return 0
    if e.h.len_cap:
        owner = shared_owner(ctx, fields, e.h.len_cap)
        if owner == NULL:
            return -1
    release_owner(place.owner)
    place.owner = owner
    memcpy(place.address, e.address, 16)
    place.since_ns = e.h.ts_ns
    ctx.peers_told += 1
    place.used = ctx.peers_told
    ctx.names_version += 1
    return 0


cdef const owner_t* peer_of(ctx_t* ctx, const conn_t* conn) noexcept nogil:
    """Who has the other end of the connection; NULL when that is not known."""
    cdef uint32_t at
    cdef int i
    cdef peer_t* entry
    if ctx.peers == NULL:
        return NULL
    at = place_of(conn.remote)
    for i in range(PROBES):
        entry = &(<peer_t*>ctx.peers)[(at + <uint32_t>i) & (PEERS - 1)]
        if entry.used == 0:
            return NULL
        if memcmp(entry.address, conn.remote, 16) == 0:
            return entry.owner if entry.since_ns <= conn.seen_ns else NULL
    return NULL


cdef void forget_peers(ctx_t* ctx) noexcept nogil:
    """At the end."""
    cdef int i
    if ctx.peers == NULL:
        return
    for i in range(PEERS):
        release_owner((<peer_t*>ctx.peers)[i].owner)
    free(ctx.peers)
    ctx.peers = NULL
