"""The table of connections, without events and without a protocol: its layer only has a deadline."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from collector.shards.connections.table cimport *
from collector.shards.packing cimport Packer
from collector.shards.state cimport *

cdef struct timer_t:
    uint64_t due
    uint64_t looks

FIRED = []
CLOSED = []


cdef uint64_t timer_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    cdef timer_t* timer = <timer_t*>flow.state
    timer.looks += 1
    if timer.due and timer.due <= now:
        FIRED.append((flow.conn.id, timer.due, now))
        timer.due = 0
    return timer.due


cdef void timer_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    CLOSED.append((flow.conn.id, marks))
    free(flow.state)


cdef layer_t LAYER
memset(&LAYER, 0, sizeof(layer_t))
LAYER.name = b"timer"
LAYER.idle = timer_idle
LAYER.close = timer_close


cdef class Table:
    cdef ctx_t ctx
    cdef table_t table
    cdef Packer packer
    cdef uint64_t[128] counters

    def __cinit__(self, uint32_t max_connections=1 << 30, size_t max_bytes=1 << 40):
        memset(&self.ctx, 0, sizeof(ctx_t))
        memset(self.counters, 0, sizeof(self.counters))
        self.packer = Packer(1 << 20)
        self.ctx.batch = &self.packer.batch
        self.ctx.counters = self.counters
        self.ctx.ghosts = <ghost_t*>calloc(GHOSTS, sizeof(ghost_t))
        table_init(&self.table, max_connections, max_bytes)
        FIRED.clear()
        CLOSED.clear()

    def __dealloc__(self):
        table_clear(&self.ctx, &self.table, 0)
        free(self.ctx.ghosts)

    def add(self, uint64_t conn_id, uint32_t tgid=1, int ring=0, uint64_t now=0):
        self.ctx.now_ns = max(self.ctx.now_ns, now)
        cdef conn_t* conn = table_add(&self.ctx, &self.table, conn_id, tgid, ring)
        conn.flow.layer = &LAYER
        conn.flow.state = malloc(sizeof(timer_t))
        memset(conn.flow.state, 0, sizeof(timer_t))
        table_touch(&self.table, conn, now)

    def find(self, uint64_t conn_id):
        cdef conn_t* conn = table_find(&self.table, conn_id)
        return None if conn == NULL else conn.id

    def bind(self, uint64_t conn_id, uint64_t socket):
        table_bind(&self.table, table_find(&self.table, conn_id), socket)

    def touch(self, uint64_t conn_id, uint64_t now):
        self.ctx.now_ns = max(self.ctx.now_ns, now)
        table_touch(&self.table, table_find(&self.table, conn_id), now)

    def arm(self, uint64_t conn_id, uint64_t due, uint64_t now):
        """Its layer wants to be asked at `due`."""
        cdef conn_t* conn = table_find(&self.table, conn_id)
        (<timer_t*>conn.flow.state).due = due
        table_arm(&self.ctx, &self.table, conn, now)

    def looks(self, uint64_t conn_id):
        return (<timer_t*>table_find(&self.table, conn_id).flow.state).looks

    def tick(self, uint64_t now):
        self.ctx.now_ns = max(self.ctx.now_ns, now)
        table_tick(&self.ctx, &self.table, now)
        fired = list(FIRED)
        FIRED.clear()
        return fired

    def limit(self):
        table_limit(&self.ctx, &self.table)
        return self.taken()

    def taken(self):
        closed = list(CLOSED)
        CLOSED.clear()
        return closed

    def close(self, uint64_t conn_id, uint32_t marks=0):
        table_close(&self.ctx, &self.table, table_find(&self.table, conn_id), marks)
        return self.taken()

    def exit(self, uint32_t tgid, uint32_t ring):
        table_exit(&self.ctx, &self.table, tgid, ring)
        return self.taken()

    def count(self):
        return self.table.count

    def bytes(self):
        return self.ctx.pool.bytes

    def granularity(self):
        return table_granularity_ns()
