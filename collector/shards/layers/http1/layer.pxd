"""HTTP/1.x as a layer; see layer.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from collector.shards.layers.http1.state cimport http1_t
from collector.shards.state cimport ctx_t, layer_t

cdef const layer_t* http1_layer() noexcept nogil
cdef bint http1_guess(ctx_t* ctx, http1_t* c, uint32_t d, const uint8_t* p, size_t n) noexcept
