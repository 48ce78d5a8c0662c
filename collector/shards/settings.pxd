"""What a pipeline goes by; see settings.pyx."""

from collector.shards.state cimport ctx_t

cdef int use_settings(ctx_t* ctx, settings, filters) except -1
