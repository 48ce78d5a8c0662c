"""Which socket a connection is; see ends.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from collector.abi cimport event_bind, event_open
from collector.shards.connections.table cimport table_t
from collector.shards.state cimport conn_t, ctx_t

cdef void told_ends(ctx_t* ctx, conn_t* conn, event_open* o) noexcept
cdef void told_socket(ctx_t* ctx, table_t* table, conn_t* conn, event_bind* b) noexcept
cdef void change_source(ctx_t* ctx, conn_t* conn, uint8_t source) noexcept
cdef void choose(ctx_t* ctx, conn_t* conn) noexcept
cdef void found_owner(ctx_t* ctx, table_t* t, uint32_t tgid) noexcept
