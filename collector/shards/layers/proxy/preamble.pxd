"""The preamble of the PROXY protocol: who a proxy says that its client is."""

from libc.stdint cimport int64_t, uint8_t, uint16_t


cdef enum:
    PREAMBLE_MAX = 16 + 65535   # bytes: the longest of version 2

cdef struct preamble_t:
    uint8_t version     # 1 or 2
    uint8_t family      # of the claimed addresses: 4 or 6; 0: no claim (LOCAL, UNKNOWN, UNSPEC, AF_UNIX, invalid)
    uint8_t invalid     # its length is known, but a receiver has to refuse it: bad checksum, address block or TLV
    uint8_t src[16]     # the client; IPv4 as ::ffff:a.b.c.d
    uint8_t dst[16]     # what the client connected to
    uint16_t src_port   # host order
    uint16_t dst_port

cdef int64_t parse_preamble(const uint8_t* p, size_t n, preamble_t* out) noexcept nogil
