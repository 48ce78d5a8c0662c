"""What two ends agree on in the handshake: the server's answer says it (RFC 6455 section 4.2.2, RFC 7692 section 5)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from collector.shards.http.fields cimport field_t, fields_t, same_name, F_UPGRADE


cdef bint upgrades_to_websocket(const fields_t* fields) noexcept nogil:
    """Of a 101: does the connection go on as a WebSocket?"""
    cdef uint32_t i
    for i in range(fields.count):
        if fields.items[i].id == F_UPGRADE:
            return fields.items[i].value_len == 9 and same_name(fields.items[i].value, b"websocket", 9)
    return False


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef uint16_t token_bits(const uint8_t* p, uint32_t n, bint first) noexcept nogil:
    """Of one element of the list, `first`: its name, else a parameter."""
    while n and is_blank(p[0]):
        p += 1
        n -= 1
    while n and is_blank(p[n - 1]):
        n -= 1
    if n == 0:
        return 0
    if first:
        return EXT_DEFLATE if n == 18 and same_name(p, b"permessage-deflate", 18) else EXT_UNKNOWN
    if n == 26 and same_name(p, b"client_no_context_takeover", 26):
        return EXT_CLIENT_ANEW
    if n == 26 and same_name(p, b"server_no_context_takeover", 26):
        return EXT_SERVER_ANEW
    return 0


cdef uint16_t agreed_extensions(const fields_t* fields) noexcept nogil:
    """enum extension, from Sec-WebSocket-Extensions of the answer."""
    cdef const field_t* f
    cdef uint16_t found = 0
    cdef uint32_t i, at, begin
    cdef bint first
    for i in range(fields.count):
        f = &fields.items[i]
        if f.name_len != 24 or not same_name(f.name, b"sec-websocket-extensions", 24):
            continue
        begin = 0
        first = True
        for at in range(f.value_len + 1):
            if at < f.value_len and f.value[at] != c',' and f.value[at] != c';':
                continue
            found |= token_bits(f.value + begin, at - begin, first)
            first = at < f.value_len and f.value[at] == c','
            begin = at + 1
    return found
