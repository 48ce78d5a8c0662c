"""What is used of zlib, and what it costs: units of WORK (codings.pyx)."""

cdef extern from "zlib.h" nogil:
    ctypedef struct z_stream:
        unsigned char* next_in
        unsigned avail_in
        unsigned char* next_out
        unsigned avail_out
        int data_type
    int inflateInit2(z_stream* stream, int window_bits)
    int inflateReset(z_stream* stream)
    int inflateReset2(z_stream* stream, int window_bits)
    int inflateResetKeep(z_stream* stream)      # with its window
    int inflate(z_stream* stream, int flush)
    int inflateEnd(z_stream* stream)
    enum:
        Z_OK
        Z_STREAM_END
        Z_BUF_ERROR
        Z_BLOCK

cdef enum:
    WORK_BLOCK = 2500           # the codes of a deflate block; of a short one, which cannot describe much, less:
    WORK_BLOCK_BYTE = 100
    WORK_IN = 6                 # a coded byte
