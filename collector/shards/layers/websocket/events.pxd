"""Messages as JSON, and their records; see events.pyx."""

from libc.stdint cimport uint8_t, uint64_t

from collector.shards.http.exchanges cimport side_t
from collector.shards.layers.websocket.state cimport half_t, websocket_t
from collector.shards.state cimport ctx_t, flow_t

cdef void event_data(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, bint fin, uint64_t ts) noexcept
cdef void event_control(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, uint64_t ts) noexcept
cdef void shake(ctx_t* ctx, flow_t* flow, websocket_t* w) noexcept
cdef void record_events(ctx_t* ctx, flow_t* flow, websocket_t* w, uint64_t end, bint at_once) noexcept
cdef void record_end(ctx_t* ctx, flow_t* flow, websocket_t* w, uint64_t end) noexcept
cdef uint64_t events_due(const websocket_t* w) noexcept nogil
cdef void overdue(ctx_t* ctx, flow_t* flow, websocket_t* w, uint64_t now) noexcept
