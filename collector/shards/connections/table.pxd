"""All connections of one shard; see table.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.state cimport conn_t, ctx_t, layer_t

cdef enum:
    GROUPS = 1024
    SLOTS = 512                # of the wheel
    SOCKETS = 16384

cdef struct table_t:
    conn_t** buckets
    uint64_t mask
    uint32_t count
    uint32_t max_connections
    size_t max_bytes
    conn_t* lru_first
    conn_t* lru_last
    uint64_t wheel_at          # every deadline before this slot was looked at
    conn_t* wheel[512]         # by due_ns >> SLOT_SHIFT, modulo SLOTS
    conn_t* groups[1024]       # by process id, for EXIT
    conn_t** sockets           # by conn_t.socket, those that have one; NULL before the first
    uint32_t bound             # so many have one

cdef int table_init(table_t* t, uint32_t max_connections, size_t max_bytes) noexcept
cdef conn_t* table_find(table_t* t, uint64_t conn_id) noexcept nogil
cdef conn_t* table_add(ctx_t* ctx, table_t* t, uint64_t conn_id, uint32_t tgid, uint16_t ring) noexcept
cdef void table_bind(table_t* t, conn_t* conn, uint64_t socket) noexcept
cdef bint table_recall(ctx_t* ctx, table_t* t, conn_t* conn) noexcept
cdef void table_released(ctx_t* ctx, uint64_t conn_id) noexcept nogil
cdef void table_forget_ghosts(ctx_t* ctx) noexcept nogil
cdef const layer_t* when_back(const layer_t* layer) noexcept nogil
cdef void table_release(ctx_t* ctx, conn_t* conn, uint8_t hold) noexcept
cdef void table_wait_no_more(ctx_t* ctx, conn_t* conn) noexcept
cdef void table_peer_is_late(ctx_t* ctx, conn_t* conn) noexcept
cdef void ignore(ctx_t* ctx, conn_t* conn) noexcept
cdef void table_touch(table_t* t, conn_t* conn, uint64_t now) noexcept nogil
cdef void table_arm(ctx_t* ctx, table_t* t, conn_t* conn, uint64_t now) noexcept
cdef void table_catch_up(ctx_t* ctx, table_t* t, conn_t* conn, uint64_t now) noexcept
cdef void table_tick(ctx_t* ctx, table_t* t, uint64_t now) noexcept
cdef uint64_t table_granularity_ns() noexcept nogil
cdef void table_limit(ctx_t* ctx, table_t* t) noexcept
cdef void table_exit(ctx_t* ctx, table_t* t, uint32_t tgid, uint32_t ring) noexcept
cdef void table_close(ctx_t* ctx, table_t* t, conn_t* conn, uint32_t marks) noexcept
cdef void table_clear(ctx_t* ctx, table_t* t, uint32_t marks) noexcept


cdef inline bint socket_known(const conn_t* conn) noexcept nogil:
    """Are its ends known?"""
    return conn.local_port != 0 or conn.remote_port != 0
cdef conn_t* table_group(table_t* t, uint32_t tgid) noexcept nogil
