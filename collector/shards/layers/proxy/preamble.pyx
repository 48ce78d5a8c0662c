"""The preamble of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2).

A proxy that forwards a connection without reading it says first on whose behalf it connects: in one line of text
(version 1) or one binary block (version 2). What follows is the client's own stream, whatever protocol that is.

A receiver knows from its configuration whether a preamble comes and drops the connection when it is wrong. We only
overhear, and do neither. Three outcomes stand for that:

* The bytes are a preamble: its length is returned, and the claim, if it makes one.
* They are one that a receiver has to refuse, yet its length is known, so that what follows can still be read: the length
  is returned, `invalid` is set, and there is no claim. Only version 2 has these: a CRC32C that is wrong, is not 4 bytes
  long or is there twice; an address block that is shorter than its family's; a TLV that is longer than the preamble.
* They are none, or a malformed one that does not say where it ends: every malformed line of version 1, and a version,
  command, family or transport that version 2 does not define.

Where the specification leaves a choice:

* LOCAL: "discard the protocol block including the family". Nothing behind the length is looked at, for without a family
  nobody knows where the TLVs begin. The same for UNSPEC as family or transport.
* UNKNOWN: everything up to the CRLF is ignored, also what directly follows the word; so do nginx and the specification.
  (HAProxy accepts only the bare word.)
* IPv6 addresses may end in dotted IPv4, as inet_ntop writes mapped ones; so senders send them.
* Datagram transports make a claim like streams do.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset

cdef extern from "arpa/inet.h" nogil:
    enum:
        AF_INET
        AF_INET6
    int inet_pton(int family, const char* text, void* address)

cdef enum:
    LINE_MAX = 107              # version 1, with CRLF (section 2.1)
    ADDRESS_TEXT = 45           # the longest text that inet_pton takes
    BLOCK = 16                  # version 2: signature, version and command, family and transport, length
    TLV = 3                     # type and length
    TYPE_CRC32C = 3

cdef const uint8_t* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
cdef enum:
    SIGNATURE_BYTES = 12

cdef uint32_t[256] CRC32C       # Castagnoli's polynomial, reflected (RFC 4960 appendix B)
cdef uint32_t _sum
for _i in range(256):
    _sum = _i
    for _j in range(8):
        _sum = _sum >> 1 ^ (0x82F63B78 if _sum & 1 else 0)
    CRC32C[_i] = _sum


cdef uint32_t add_crc32c(uint32_t crc, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        crc = crc >> 8 ^ CRC32C[(crc ^ p[i]) & 0xFF]
    return crc


cdef inline uint16_t read_u16(const uint8_t* p) noexcept nogil:
    return <uint16_t>(p[0] << 8 | p[1])


cdef inline bint begins(const uint8_t* p, size_t n, const char* word, size_t length) noexcept nogil:
    """Are the `n` bytes at `p` the beginning of `word`, or do they begin with it?"""
    return memcmp(p, word, min(n, length)) == 0


cdef inline void map4(uint8_t* out, const uint8_t* v4) noexcept nogil:
    memset(out, 0, 10)
    out[10] = out[11] = 0xFF
    memcpy(out + 12, v4, 4)


# ---- version 1 ----

cdef bint line_address(const uint8_t** at, const uint8_t* end, uint8_t family, uint8_t* out) noexcept nogil:
    """An address and the blank behind it; moves `at`."""
    cdef const uint8_t* blank = <const uint8_t*>memchr(at[0], c' ', <size_t>(end - at[0]))
    cdef size_t n
    cdef char text[46]
    cdef uint8_t v4[4]
    if blank == NULL:
        return False
    n = <size_t>(blank - at[0])
    if n == 0 or n > ADDRESS_TEXT or memchr(at[0], 0, n) != NULL:
        return False
    memcpy(text, at[0], n)
    text[n] = 0
    at[0] = blank + 1
    if family == 6:
        return inet_pton(AF_INET6, text, out) == 1
    if inet_pton(AF_INET, text, v4) != 1:   # glibc's takes no leading zeros, no hexadecimal and no fewer than 4 numbers
        return False
    map4(out, v4)
    return True


cdef bint line_port(const uint8_t** at, const uint8_t* end, uint16_t* out) noexcept nogil:
    """A decimal port that takes up all bytes up to `end`; moves `at` behind the byte at `end`."""
    cdef const uint8_t* p = at[0]
    cdef uint32_t value = 0
    if end - p < 1 or end - p > 5 or (p[0] == c'0' and end - p > 1):
        return False
    while p < end:
        if p[0] < c'0' or p[0] > c'9':
            return False
        value = value * 10 + (p[0] - c'0')
        p += 1
    if value > 65535:
        return False
    out[0] = <uint16_t>value
    at[0] = end + 1
    return True


cdef int64_t parse_line(const uint8_t* p, size_t n, preamble_t* out) noexcept nogil:
    cdef size_t limit = min(n, <size_t>LINE_MAX), end = 6
    cdef const uint8_t* at
    cdef const uint8_t* stop
    cdef const uint8_t* blank
    cdef bint unknown
    if not begins(p, n, b"PROXY ", 6):
        return -1
    if n <= 6:
        return 0
    unknown = begins(p + 6, limit - 6, b"UNKNOWN", 7)
    if not unknown and not begins(p + 6, limit - 6, b"TCP4 ", 5) and not begins(p + 6, limit - 6, b"TCP6 ", 5):
        return -1
    while end + 1 < limit and not (p[end] == c'\r' and p[end + 1] == c'\n'):
        if not unknown and (p[end] == c'\r' or p[end] == c'\n'):
            return -1       # "must not tolerate a single CR or LF character to end the line"
        end += 1
    if end + 1 >= limit:    # addresses are read when the line is whole, or the end of one could be missed
        return 0 if limit < LINE_MAX and (unknown or p[end] != c'\n') else -1
    out.version = 1
    if unknown:
        return <int64_t>end + 2
    out.family = 4 if p[9] == c'4' else 6
    at, stop = p + 11, p + end
    if line_address(&at, stop, out.family, out.src) and line_address(&at, stop, out.family, out.dst):
        blank = <const uint8_t*>memchr(at, c' ', <size_t>(stop - at))
        if blank != NULL and line_port(&at, blank, &out.src_port) and line_port(&at, stop, &out.dst_port):
            return <int64_t>end + 2
    memset(out, 0, sizeof(preamble_t))
    return -1


# ---- version 2 ----

cdef bint tlvs_are_good(const uint8_t* p, size_t at, size_t end) noexcept nogil:
    """The TLVs from `at` to `end` of the preamble `p` fill their place, and the checksum is right if there is one."""
    cdef const uint8_t* nothing = b"\0\0\0\0"
    cdef size_t length, place = 0
    cdef uint32_t crc
    while at < end:
        if end - at < TLV:
            return False
        length = read_u16(p + at + 1)
        if length > end - at - TLV:
            return False
        if p[at] == TYPE_CRC32C:
            # a second one could not be right as well; computing every one of 9,000 would take a second
            if length != 4 or place:
                return False
            place = at + TLV
        at += TLV + length
    if not place:
        return True
    crc = add_crc32c(0xFFFFFFFF, p, place)
    crc = add_crc32c(crc, nothing, 4)
    crc = ~add_crc32c(crc, p + place + 4, end - place - 4)
    return crc == (<uint32_t>read_u16(p + place) << 16 | read_u16(p + place + 2))


cdef int64_t parse_block(const uint8_t* p, size_t n, preamble_t* out) noexcept nogil:
    cdef size_t end, addresses
    cdef uint8_t family, transport
    if not begins(p, n, <const char*>SIGNATURE, SIGNATURE_BYTES):
        return -1
    if n > 12 and p[12] != 0x20 and p[12] != 0x21:  # version 2; LOCAL or PROXY
        return -1
    if n > 13 and p[12] == 0x21 and (p[13] >> 4 > 3 or p[13] & 15 > 2):
        return -1
    if n < BLOCK:
        return 0
    end = BLOCK + <size_t>read_u16(p + 14)
    if n < end:
        return 0
    out.version = 2
    family, transport = p[13] >> 4, p[13] & 15
    if p[12] == 0x20 or not family or not transport:
        return <int64_t>end
    addresses = 12 if family == 1 else 36 if family == 2 else 216
    if end - BLOCK < addresses or not tlvs_are_good(p, BLOCK + addresses, end):
        out.invalid = 1
    elif family == 1:
        out.family = 4
        map4(out.src, p + 16)
        map4(out.dst, p + 20)
        out.src_port = read_u16(p + 24)
        out.dst_port = read_u16(p + 26)
    elif family == 2:
        out.family = 6
        memcpy(out.src, p + 16, 16)
        memcpy(out.dst, p + 32, 16)
        out.src_port = read_u16(p + 48)
        out.dst_port = read_u16(p + 50)
    return <int64_t>end


cdef int64_t parse_preamble(const uint8_t* p, size_t n, preamble_t* out) noexcept nogil:
    """What the first `n` bytes of a connection, from the side that opened it, begin with.

    Returns the length of the preamble, and fills `out`; 0 when all bytes are the beginning of one and more are needed;
    -1 when no preamble begins here, or a malformed one: then the bytes are what they are. In the last two cases `out` is
    all zero. An answer other than 0 does not change with further bytes. An unfinished preamble costs the same however
    long it has grown, so asking again with each piece is cheap.
    """
    memset(out, 0, sizeof(preamble_t))
    if n == 0:
        return 0
    return parse_block(p, n, out) if p[0] == c'\r' else parse_line(p, n, out)


def preamble(const uint8_t[::1] data not None):
    """parse_preamble for tests: what `out` holds, as a dict with `length` added; or 0 or -1."""
    cdef preamble_t out
    cdef size_t n = <size_t>data.shape[0]
    cdef const uint8_t* p = &data[0] if n else NULL
    cdef int64_t length
    with nogil:
        length = parse_preamble(p, n, &out)
    if length <= 0:
        return length
    return {"length": length, "version": out.version, "family": out.family, "invalid": out.invalid,
            "src": bytes(out.src[:16]), "dst": bytes(out.dst[:16]), "src_port": out.src_port, "dst_port": out.dst_port}
