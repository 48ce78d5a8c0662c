"""Bytes, holes and ends of a flow, to the layer that reads it now; from one layer to the next.

A flow begins without a layer. The first bytes of its client choose one: the first in the table (table.pyx) that takes
them for its beginning. A layer can hand the rest of the flow on (FEED_SWITCH), or find that it was opened in vain
(FEED_NOT_MINE): then the next one in the table is asked, and gets all bytes from the beginning.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset, strcmp

from collector.abi cimport DIR_IN, DIR_OUT, ROLE_SERVER
from collector.shards.http.exchanges cimport exchange_free
from collector.shards.http.message cimport exchange_t
from collector.shards.layers.table cimport LAYER_COUNT, LAYERS
from collector.shards.memory cimport buf_free, buf_t
from collector.shards.state cimport *


cdef bint open_layer(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n) noexcept:
    """Choose a layer for a flow that has none. False when memory is out: its bytes are counted, nothing more."""
    cdef conn_t* conn = flow.conn
    cdef const layer_t* layer
    cdef uint32_t i = flow.passed
    if conn.dir_request == DIR_UNKNOWN and conn.role:
        conn.dir_request = DIR_IN if conn.role == ROLE_SERVER else DIR_OUT
    while i < LAYER_COUNT - 1:
        layer = LAYERS[i]
        if conn.flags & CONN_JOINED:
            if layer.joins and n and layer.detect(flow, p, n):
                break
        elif n:
            if (d == conn.dir_request or conn.dir_request == DIR_UNKNOWN) and layer.detect(flow, p, n):
                break
            if d != conn.dir_request and layer.answers != NULL and layer.answers(p, n):
                break
        i += 1
    if i >= LAYER_COUNT:
        i = LAYER_COUNT - 1     # there is none behind the last
    flow.passed = <uint8_t>i
    if LAYERS[i].open(ctx, flow) < 0:
        ctx.counters[C_SKIPPED_BYTES] += n
        return False
    flow.layer = LAYERS[i]
    return True


cdef void hand_on(ctx_t* ctx, flow_t* flow, feed_t said, uint32_t d, size_t n) noexcept:
    """The layer is done with the flow, of which `n` bytes of direction `d` are still to be read: close it, and give what
    it kept to the next one."""
    cdef buf_t kept = ctx.handoff.kept
    cdef const char* wanted = ctx.handoff.protocol
    cdef uint32_t kept_dir = ctx.handoff.kept_dir
    cdef uint64_t kept_ns = ctx.handoff.kept_ns
    cdef stream_t* stream = &flow.conn.stream[kept_dir]
    cdef uint64_t end = stream.end
    cdef exchange_t* exchange = ctx.handoff.exchange
    cdef const layer_t* asked = flow.layer
    cdef uint32_t i
    memset(&ctx.handoff, 0, sizeof(handoff_t))
    flow.layer.close(ctx, flow, 0)
    flow.layer = NULL
    flow.passed += 1
    if said == FEED_SWITCH and wanted != NULL:
        i = 0
        while i < LAYER_COUNT - 1 and strcmp(LAYERS[i].name, wanted) != 0:
            i += 1
        flow.passed = <uint8_t>i
        ctx.handoff.exchange = exchange
        ctx.handoff.asked = asked
        if LAYERS[i].open(ctx, flow) == 0:
            flow.layer = LAYERS[i]
        if ctx.handoff.exchange != NULL:
            exchange_free(ctx, exchange)
            ctx.handoff.exchange = NULL
    if kept.len:
        if kept_dir == d:
            stream.end = end - n
        flow_data(ctx, flow, kept_dir, <const uint8_t*>kept.data, kept.len, kept_ns)
        stream.end = end
    buf_free(&ctx.pool, &kept)


cdef void flow_read(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    """As flow_data, of a flow that has no layer (any more)."""
    cdef feed_t said
    cdef size_t used
    while n:
        if flow.layer == NULL and not open_layer(ctx, flow, d, p, n):
            return
        used = n
        said = flow.layer.data(ctx, flow, d, p, n, ts, &used)
        if said == FEED_ALL:
            return
        p += used
        n -= used
        hand_on(ctx, flow, said, d, n)


cdef void flow_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    """`n` bytes of direction `d` are missing: `lost` on the way, or never copied (size-only)."""
    cdef feed_t said = FEED_NOT_MINE
    while said == FEED_NOT_MINE:
        if flow.layer == NULL and not open_layer(ctx, flow, d, NULL, 0):
            return
        said = flow.layer.hole(ctx, flow, d, n, lost, ts)
        if said != FEED_ALL:
            hand_on(ctx, flow, said, d, 0)


cdef void flow_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    """No more bytes in direction `d`."""
    if flow.layer != NULL:
        flow.layer.end(ctx, flow, d)


cdef void flow_rejoin(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    """It holds too much, or bytes went by that nobody saw: record what waits as it stands, with `marks`, and begin anew in
    the middle."""
    if flow.layer != NULL and flow.layer.rejoin != NULL:
        flow.layer.rejoin(ctx, flow, marks)
        return
    flow_close(ctx, flow, marks)
    flow.passed = 0
    flow.conn.flags |= CONN_JOINED


cdef void flow_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    """Record what waits as it stands, with `marks`. The flow is without a layer then."""
    if flow.layer != NULL:
        flow.layer.close(ctx, flow, marks)
        flow.layer = NULL
