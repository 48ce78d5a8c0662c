"""Another protocol behind CONNECT or an upgrade that no layer reads: nothing is looked at, and the kernel need not copy
it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.state cimport *


cdef bint tunnel_detect(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil:
    return False


cdef int tunnel_open(ctx_t* ctx, flow_t* flow) noexcept:
    return 0


cdef feed_t tunnel_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts,
                        size_t* used) noexcept:
    return FEED_ALL


cdef feed_t tunnel_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    return FEED_ALL


cdef void tunnel_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    pass


cdef void tunnel_rejoin(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    pass


cdef uint64_t tunnel_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    return 0


cdef uint64_t tunnel_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    return 0xFFFFFFFFFFFFFFFF


cdef void tunnel_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    pass


cdef uint64_t tunnel_rest(const flow_t* flow) noexcept nogil:
    return 0


cdef int tunnel_resume(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept:
    return 0


cdef void tunnel_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    pass


cdef layer_t LAYER
LAYER.name = b"tunnel"
LAYER.reasons = NULL
LAYER.joins = 0
LAYER.detect = tunnel_detect
LAYER.answers = NULL
LAYER.open = tunnel_open
LAYER.data = tunnel_data
LAYER.hole = tunnel_hole
LAYER.end = tunnel_end
LAYER.rejoin = tunnel_rejoin
LAYER.idle = tunnel_idle
LAYER.unwanted = tunnel_unwanted
LAYER.told = tunnel_told
LAYER.rest = tunnel_rest
LAYER.resume = tunnel_resume
LAYER.close = tunnel_close


cdef const layer_t* tunnel_layer() noexcept nogil:
    return &LAYER
