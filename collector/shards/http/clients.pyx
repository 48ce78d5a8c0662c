"""The client that a request header claims: X-Real-IP, X-Forwarded-For, Forwarded (RFC 7239).

Anybody can send such a header, so it counts only when the socket's peer is a trusted proxy; the caller asks that
(`trusted`). Each proxy adds at the end of a list from whom it got the request. So a list is read from its end, and goes
back as long as the hops are trusted themselves: the first one that is not is the client, and what stands before it is
that client's own word.

`read_claim` is told the fields of the configured name in their order. Several fields of a name are one list. Where a hop
cannot be read - no address, `unknown`, an identifier, a field that breaks the grammar - nobody knows who stands behind
it, so the claim ends there: then there is none. A list of which all hops are trusted has none either.
"""

import ipaddress

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from collector.shards.http.fields cimport same_name

cdef extern from "arpa/inet.h" nogil:
    enum:
        AF_INET
        AF_INET6
    int inet_pton(int family, const char* text, void* address)

cdef enum:
    ADDRESS_TEXT = 45   # the longest text that inet_pton takes
    NODE_TEXT = 64      # of a `for` without its quotes; the longest that is an address has 53 bytes

cdef const uint8_t* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"
cdef enum:
    MAPPED_BYTES = 12


# ---- trusted networks ----

cdef cidr_t cidr_of(network) except *:
    """An ipaddress network, or its text; raises ValueError."""
    cdef cidr_t out
    net = ipaddress.ip_network(network)
    cdef bytes packed = net.network_address.packed
    memset(&out, 0, sizeof(out))
    if net.version == 4:
        memcpy(out.address, MAPPED, MAPPED_BYTES)
        memcpy(out.address + 12, <const char*>packed, 4)
        out.bits = 96 + net.prefixlen
    else:
        memcpy(out.address, <const char*>packed, 16)
        out.bits = net.prefixlen
    return out


cdef bint trusted(const cidr_t* cidrs, uint32_t count, const uint8_t* address) noexcept nogil:
    """Is the address (16 bytes, IPv4 as ::ffff:a.b.c.d) in one of the networks? An IPv6 network that is larger than all
    of IPv4, ::/0 above all, holds no IPv4 address."""
    cdef uint32_t i, whole, rest
    cdef bint v4 = memcmp(address, MAPPED, MAPPED_BYTES) == 0
    for i in range(count):
        whole, rest = cidrs[i].bits >> 3, cidrs[i].bits & 7
        if v4 and cidrs[i].bits < 96:
            continue
        if memcmp(address, cidrs[i].address, whole) == 0 and (
                not rest or (address[whole] ^ cidrs[i].address[whole]) >> (8 - rest) == 0):
            return True
    return False


# ---- addresses ----

cdef bint read_address(const uint8_t* p, size_t n, uint8_t* out) noexcept nogil:
    """`n` bytes that are an IPv4 or IPv6 address and nothing else."""
    cdef char text[46]
    cdef uint8_t v4[4]
    if n == 0 or n > ADDRESS_TEXT or memchr(p, 0, n) != NULL:
        return False
    memcpy(text, p, n)
    text[n] = 0
    if memchr(p, c':', n) != NULL:
        return inet_pton(AF_INET6, text, out) == 1
    if inet_pton(AF_INET, text, v4) != 1:
        return False
    memcpy(out, MAPPED, MAPPED_BYTES)
    memcpy(out + MAPPED_BYTES, v4, 4)
    return True


cdef bint read_port(const uint8_t* p, size_t n, uint16_t* out) noexcept nogil:
    """One to five digits."""
    cdef uint32_t value = 0
    cdef size_t i
    if n == 0 or n > 5:
        return False
    for i in range(n):
        if p[i] < c'0' or p[i] > c'9':
            return False
        value = value * 10 + (p[i] - c'0')
    out[0] = <uint16_t>value
    return value <= 65535


cdef bint read_end(const uint8_t* p, size_t n, bint bare, uint8_t* address, uint16_t* port) noexcept nogil:
    """An address with or without a port: a.b.c.d, a.b.c.d:port, [v6], [v6]:port; and v6 without brackets where `bare`.
    Where not, the port may be an identifier (RFC 7239 section 6.2), which is none."""
    cdef const uint8_t* end = p + n
    cdef const uint8_t* colon
    port[0] = 0
    if n and p[0] == c'[':
        colon = <const uint8_t*>memchr(p, c']', n)
        if colon == NULL or memchr(p, c':', <size_t>(colon - p)) == NULL:
            return False
        if not read_address(p + 1, <size_t>(colon - p - 1), address):
            return False
        colon += 1
        if colon == end:
            return True
        if colon[0] != c':':
            return False
    else:
        colon = <const uint8_t*>memchr(p, c':', n)
        if colon == NULL:
            return read_address(p, n, address)
        if memchr(colon + 1, c':', <size_t>(end - colon - 1)) != NULL:
            return bare and read_address(p, n, address)
        if not read_address(p, <size_t>(colon - p), address):
            return False
    colon += 1
    if not bare and is_identifier(colon, <size_t>(end - colon)):
        return True
    return read_port(colon, <size_t>(end - colon), port)


cdef bint is_identifier(const uint8_t* p, size_t n) noexcept nogil:
    """obfnode and obfport of RFC 7239 section 6: "_" 1*( ALPHA / DIGIT / "." / "_" / "-" )."""
    cdef size_t i
    cdef uint8_t c
    if n < 2 or p[0] != c'_':
        return False
    for i in range(1, n):
        c = p[i]
        if not (c'0' <= c <= c'9' or c'a' <= c | 0x20 <= c'z' or c == c'.' or c == c'_' or c == c'-'):
            return False
    return True


# ---- lists ----

cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline bint is_tchar(uint8_t c) noexcept nogil:
    """tchar of RFC 9110 section 5.6.2, two words of 64 bits."""
    cdef uint64_t word = <uint64_t>0x57ffffffc7fffffe if c & 0x40 else <uint64_t>0x03ff6cfa00000000
    return c < 0x80 and word >> (c & 63) & 1


cdef void trim(const uint8_t** p, const uint8_t** end) noexcept nogil:
    while p[0] < end[0] and is_blank(p[0][0]):
        p[0] += 1
    while end[0] > p[0] and is_blank((end[0] - 1)[0]):
        end[0] -= 1


cdef inline void hop(claim_t* claim, bint readable, const uint8_t* address, uint16_t port,
                     const cidr_t* cidrs, uint32_t count) noexcept nogil:
    """The next hop of a list, from left to right: one that is not trusted takes the place of what stood before it."""
    if readable and trusted(cidrs, count, address):
        return
    claim.found = readable
    if readable:
        memcpy(claim.address, address, 16)
        claim.port = port


cdef void read_hops(claim_t* claim, const uint8_t* p, const uint8_t* end, const cidr_t* cidrs,
                    uint32_t count) noexcept nogil:
    """X-Forwarded-For, from its end to the first hop that is not trusted. Empty elements are none (RFC 9110 5.6.1)."""
    cdef const uint8_t* start
    cdef const uint8_t* first
    cdef const uint8_t* last
    cdef uint8_t address[16]
    cdef uint16_t port
    cdef bint readable
    while True:
        start = end
        while start > p and (start - 1)[0] != c',':
            start -= 1
        first, last = start, end
        trim(&first, &last)
        if first < last:
            readable = read_end(first, <size_t>(last - first), True, address, &port)
            if not readable or not trusted(cidrs, count, address):
                hop(claim, readable, address, port, cidrs, count)
                return
        if start == p:
            return
        end = start - 1


cdef const uint8_t* read_pair(const uint8_t* p, const uint8_t* end, uint8_t* node, size_t* node_length,
                              bint* is_for) noexcept nogil:
    """forwarded-pair = token "=" value; value = token / quoted-string (RFC 7239 section 4). Gives what is behind it, or
    NULL. The value is put into `node` (NODE_TEXT bytes) without quotes, when the token is `for`; a longer one has the
    length NODE_TEXT + 1."""
    cdef const uint8_t* name = p
    cdef size_t n = 0
    cdef uint8_t c
    while p < end and is_tchar(p[0]):
        p += 1
    if p == name or p == end or p[0] != c'=':
        return NULL
    is_for[0] = p - name == 3 and name[0] | 0x20 == c'f' and name[1] | 0x20 == c'o' and name[2] | 0x20 == c'r'
    p += 1
    if p < end and p[0] == c'"':
        p += 1
        while True:
            if p == end:
                return NULL
            c = p[0]
            p += 1
            if c == c'"':
                break
            if c == c'\\':      # quoted-pair: the byte behind it, whatever it is in a quoted string
                if p == end:
                    return NULL
                c = p[0]
                p += 1
            if c < 0x20 and c != c'\t' or c == 0x7F:
                return NULL
            if n < NODE_TEXT and is_for[0]:
                node[n] = c
            n += 1
    else:
        name = p
        while p < end and is_tchar(p[0]):
            if n < NODE_TEXT and is_for[0]:
                node[n] = p[0]
            n += 1
            p += 1
        if p == name:
            return NULL
    if is_for[0]:
        node_length[0] = min(n, <size_t>NODE_TEXT + 1)
    return p


cdef void read_forwarded(claim_t* claim, const uint8_t* p, const uint8_t* end, const cidr_t* cidrs,
                         uint32_t count) noexcept nogil:
    """Forwarded: elements between commas, pairs between semicolons. Blanks around semicolons, which the grammar does not
    have, are taken; anything else that breaks it makes the field unreadable, for quotes decide where elements end. An
    element without `for`, or with two, is a hop that cannot be read; an empty one is none."""
    cdef uint8_t node[NODE_TEXT]
    cdef uint8_t address[16]
    cdef uint16_t port = 0
    cdef size_t length = 0
    cdef uint32_t pairs = 0, fors = 0
    cdef bint is_for = False
    while True:
        while p < end and is_blank(p[0]):
            p += 1
        if p < end and p[0] != c',' and p[0] != c';':
            p = read_pair(p, end, node, &length, &is_for)
            if p == NULL:
                claim.found = 0
                return
            pairs += 1
            fors += is_for
            while p < end and is_blank(p[0]):
                p += 1
            if p < end and p[0] != c',' and p[0] != c';':
                claim.found = 0
                return
        if p < end and p[0] == c';':
            pairs += 1      # `;` alone is an element too, one that names nobody
            p += 1
            continue
        if pairs:
            hop(claim, fors == 1 and length <= NODE_TEXT and read_end(node, length, False, address, &port), address, port,
                cidrs, count)
        if p == end:
            return
        p += 1
        pairs = fors = 0


cdef claim_kind kind_of_header(const uint8_t* name, uint32_t length) noexcept nogil:
    """How fields of this name are read; the name in any case."""
    if length == 15 and same_name(name, b"x-forwarded-for", 15):
        return CLAIM_HOPS
    if length == 9 and same_name(name, b"forwarded", 9):
        return CLAIM_FORWARDED
    return CLAIM_ADDRESS


cdef void read_claim(claim_t* claim, claim_kind kind, const uint8_t* value, uint32_t length,
                     const cidr_t* cidrs, uint32_t count) noexcept nogil:
    """The next field of the configured name. `claim` is all zero before the first one, and after each holds what the
    fields so far claim. Reads no byte twice, except those of an address."""
    cdef const uint8_t* end = value + length
    claim.fields += claim.fields < 2
    if kind == CLAIM_HOPS:
        read_hops(claim, value, end, cidrs, count)
    elif kind == CLAIM_FORWARDED:
        read_forwarded(claim, value, end, cidrs, count)
    else:
        trim(&value, &end)
        claim.found = claim.fields == 1 and read_end(value, <size_t>(end - value), True, claim.address, &claim.port)


# ---- for tests ----

def is_trusted(networks, address):
    """`trusted` for texts: the networks, and 16 bytes of an address."""
    cdef cidr_t[64] cidrs
    cdef bytes packed = address
    if len(packed) != 16 or len(networks) > 64:
        raise ValueError("an address of 16 bytes and at most 64 networks")
    for i, network in enumerate(networks):
        cidrs[i] = cidr_of(network)
    return trusted(cidrs, <uint32_t>len(networks), <const uint8_t*><const char*>packed)


def claim(header, values, networks):
    """The claim of a request with these fields of the name ``header``: (16 bytes, port), or None."""
    cdef cidr_t[64] cidrs
    cdef claim_t out
    cdef bytes name = header.encode("latin-1"), value
    if len(networks) > 64:
        raise ValueError("at most 64 networks")
    for i, network in enumerate(networks):
        cidrs[i] = cidr_of(network)
    cdef claim_kind kind = kind_of_header(<const uint8_t*><const char*>name, <uint32_t>len(name))
    memset(&out, 0, sizeof(out))
    for value in values:
        read_claim(&out, kind, <const uint8_t*><const char*>value, <uint32_t>len(value), cidrs, <uint32_t>len(networks))
    return (bytes(out.address[:16]), out.port) if out.found else None
