"""The client that a request header claims, for connections that come from a trusted proxy."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef enum claim_kind:   # how the value of the configured header is to be read
    CLAIM_ADDRESS = 0   # X-Real-IP and every name that is none of the others: one address
    CLAIM_HOPS = 1      # X-Forwarded-For: a list of addresses, the nearest last
    CLAIM_FORWARDED = 2 # Forwarded (RFC 7239)

cdef struct cidr_t:
    uint8_t address[16] # IPv4 as ::ffff:a.b.c.d
    uint8_t bits        # 0 to 128; of an IPv4 network 96 more than in its text

cdef struct claim_t:    # all zero before the first field of a head
    uint8_t found       # there is a claim
    uint8_t fields      # fields read so far, up to 2: a second X-Real-IP makes both worthless
    uint8_t address[16] # IPv4 as ::ffff:a.b.c.d
    uint16_t port       # host order; 0: none was given

cdef cidr_t cidr_of(network) except *
cdef bint trusted(const cidr_t* cidrs, uint32_t count, const uint8_t* address) noexcept nogil
cdef claim_kind kind_of_header(const uint8_t* name, uint32_t length) noexcept nogil
cdef void read_claim(claim_t* claim, claim_kind kind, const uint8_t* value, uint32_t length,
                     const cidr_t* cidrs, uint32_t count) noexcept nogil
