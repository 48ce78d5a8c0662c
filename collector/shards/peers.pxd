"""Who has which address; see peers.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.abi cimport event_peer
from collector.shards.state cimport conn_t, ctx_t, owner_t

cdef struct peer_t:
    uint8_t address[16]
    uint64_t since_ns       # when it was told
    uint64_t used           # the age of its last telling, in tellings; 0: free
    owner_t* owner

cdef int told_peer(ctx_t* ctx, event_peer* e) noexcept nogil
cdef const owner_t* peer_of(ctx_t* ctx, const conn_t* conn) noexcept nogil
cdef void forget_peers(ctx_t* ctx) noexcept nogil
