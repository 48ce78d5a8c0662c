"""HPACK (RFC 7541) for whoever listens: the table of one direction, a part of which may be unknown.

An index counts from the newest entry. So after a header block that was missed, or a beginning in the middle of a connection,
entries that were made since are right, and older ones are unknown: a field that refers to one has an unknown name, value or
both, and is never guessed. An entry with an unknown part is entered all the same, or the indexes of those before it would be
wrong. Once entries of more than the table's size have been made, none that was missed can be in it any more.

The size of an entry with an unknown part is not known, so the table may keep entries that its encoder has evicted already.
That is harmless: no encoder refers to those.

Errors that RFC 7541 has the decoder end the connection for are HPACK_MALFORMED: then something else was missed.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset, strlen

from collector.shards.memory cimport buf_free, buf_reserve

cdef enum:
    ENTRY_BYTES = 32           # section 4.1
    STATIC = 61                # entries of the static table
    FIRST_SLOTS = 32

cdef enum:  # flags of a step through a Huffman code
    EMIT = 1                   # `symbol` is complete
    ENDS = 2                   # the text may end here: what is left is padding (section 5.2)
    FAIL = 4                   # no code goes on like this, or EOS

cdef struct step_t:            # by state and the next four bits
    uint8_t state
    uint8_t symbol
    uint8_t flags

cdef step_t STEPS[256][16]

cdef const char* NAMES[62]
cdef const char* VALUES[62]
cdef uint32_t NAME_BYTES[62]
cdef uint32_t VALUE_BYTES[62]

# Lengths of the codes of all symbols and EOS (appendix B). The codes follow: of one length they count up with the symbol,
# and from one length to the next they go on where they were.
_LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
    23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19,
    22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
    27, 27, 27, 26, 30,
)

_STATIC_TABLE = (
    (b"", b""),
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""),
    (b"cache-control", b""), (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""),
    (b"content-length", b""), (b"content-location", b""), (b"content-range", b""), (b"content-type", b""),
    (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""), (b"host", b""),
    (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""),
    (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""), (b"max-forwards", b""),
    (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""), (b"referer", b""), (b"refresh", b""),
    (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""), (b"strict-transport-security", b""),
    (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""), (b"via", b""), (b"www-authenticate", b""),
)
assert len(_LENGTHS) == 257 and len(_STATIC_TABLE) == STATIC + 1


cdef void _make_steps():
    """STEPS from _LENGTHS: the states are the inner nodes of the tree of codes, the root is 0."""
    cdef int code = 0, before = 0, state, nibble, bit, at
    tree = [[None, None]]
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(_LENGTHS)):
        code <<= length - before
        before = length
        node = 0
        for bit in range(length - 1, 0, -1):
            if tree[node][code >> bit & 1] is None:
                tree[node][code >> bit & 1] = len(tree)
                tree.append([None, None])
            node = tree[node][code >> bit & 1]
        tree[node][code & 1] = -symbol - 1
        code += 1
    assert len(tree) == 256
    padding = {0}       # the nodes that up to seven ones lead to
    node = 0
    for _ in range(7):
        node = tree[node][1]
        padding.add(node)
    for state in range(256):
        for nibble in range(16):
            at = state
            STEPS[state][nibble].flags = 0
            for bit in range(3, -1, -1):
                to = tree[at][nibble >> bit & 1]
                if to >= 0:
                    at = to
                elif to == -257:
                    STEPS[state][nibble].flags = FAIL
                    at = 0
                    break
                else:
                    STEPS[state][nibble].symbol = <uint8_t>(-to - 1)
                    STEPS[state][nibble].flags |= EMIT
                    at = 0
            STEPS[state][nibble].state = <uint8_t>at
            if at in padding and not STEPS[state][nibble].flags & FAIL:
                STEPS[state][nibble].flags |= ENDS


cdef void _make_static():
    cdef int i
    for i in range(STATIC + 1):
        NAMES[i] = <const char*>_STATIC_TABLE[i][0]
        VALUES[i] = <const char*>_STATIC_TABLE[i][1]
        NAME_BYTES[i] = <uint32_t>strlen(NAMES[i])
        VALUE_BYTES[i] = <uint32_t>strlen(VALUES[i])


_make_steps()
_make_static()


# ---- the table

cdef void hpack_init(hpack_t* table) noexcept nogil:
    """Empty, as at the beginning of a connection."""
    memset(table, 0, sizeof(hpack_t))
    table.limit = table.max_bytes = HPACK_TABLE_BYTES


cdef void hpack_free(pool_t* pool, hpack_t* table) noexcept nogil:
    """Give the memory back."""
    buf_free(pool, &table.text)
    pool.bytes -= table.slots * sizeof(hpack_entry_t)
    free(table.entries)
    table.entries = NULL
    table.slots = table.count = 0


cdef void hpack_miss(hpack_t* table) noexcept nogil:
    """A header block went by that is not known, or many did. It may have changed the table's size to anything allowed: who
    begins in the middle of a connection allows more than anybody does (hpack_allow)."""
    table.max_bytes = table.limit
    table.count = 0
    table.bytes = 0
    table.since = 0
    table.text.len = table.text_from = 0
    table.missed = 1


cdef void hpack_allow(hpack_t* table, uint32_t limit) noexcept nogil:
    """The decoder allows so many bytes (SETTINGS_HEADER_TABLE_SIZE). The encoder says when it makes use of it."""
    table.limit = limit
    if table.max_bytes > limit:
        table.max_bytes = limit
        evict(table, 0)


cdef inline hpack_entry_t* newest(const hpack_t* table, uint32_t back) noexcept nogil:
    """The entry that is so many behind the newest; it must be there."""
    return &table.entries[(table.oldest + table.count - 1 - back) & (table.slots - 1)]


cdef void evict(hpack_t* table, uint64_t more) noexcept nogil:
    """Room for `more` bytes (section 4.3)."""
    cdef hpack_entry_t* entry
    cdef uint64_t most = table.max_bytes if table.max_bytes < HPACK_KEPT_BYTES else HPACK_KEPT_BYTES
    while table.count and table.bytes + more > most:
        entry = &table.entries[table.oldest]
        table.bytes -= ENTRY_BYTES + entry.name_len + entry.value_len
        table.text_from += entry.name_len + entry.value_len
        table.oldest = (table.oldest + 1) & (table.slots - 1)
        table.count -= 1
        if table.max_bytes > HPACK_KEPT_BYTES:
            table.missed = 1        # the encoder still has it
            table.since = 0
    if table.count == 0:
        table.text.len = table.text_from = 0


cdef int more_slots(pool_t* pool, hpack_t* table) noexcept nogil:
    cdef uint32_t slots = table.slots * 2 if table.slots else FIRST_SLOTS
    cdef uint32_t i
    cdef hpack_entry_t* entries = <hpack_entry_t*>calloc(slots, sizeof(hpack_entry_t))
    if entries == NULL:
        return -1
    for i in range(table.count):
        entries[i] = table.entries[(table.oldest + i) & (table.slots - 1)]
    pool.bytes += (slots - table.slots) * sizeof(hpack_entry_t)
    free(table.entries)
    table.entries = entries
    table.oldest = 0
    table.slots = slots
    return 0


cdef int enter(pool_t* pool, hpack_t* table, const char* name, uint32_t name_len, const char* value, uint32_t value_len,
               uint8_t unknown) noexcept nogil:
    """A new entry; its texts must not be the table's own. 0, or -1 when memory is out."""
    cdef uint64_t size = <uint64_t>ENTRY_BYTES + name_len + value_len
    cdef hpack_entry_t* entry
    cdef uint32_t i
    table.since += size
    if table.since >= table.max_bytes and table.max_bytes <= HPACK_KEPT_BYTES:
        table.missed = 0
    evict(table, size)
    if size > table.max_bytes or size > HPACK_KEPT_BYTES:
        if size <= table.max_bytes:
            table.missed = 1
            table.since = 0
        return 0                    # not an error: the table is empty then (section 4.4)
    if table.count == table.slots and more_slots(pool, table) < 0:
        return -1
    if table.text_from > 4096 and table.text_from > table.text.len // 2:
        memmove(table.text.data, table.text.data + table.text_from, table.text.len - table.text_from)
        table.text.len -= table.text_from
        for i in range(table.count):
            table.entries[(table.oldest + i) & (table.slots - 1)].at -= table.text_from
        table.text_from = 0
    if buf_reserve(pool, &table.text, name_len + value_len + 1) < 0:
        return -1
    table.count += 1
    entry = newest(table, 0)
    entry.at = table.text.len
    entry.name_len = name_len
    entry.value_len = value_len
    entry.unknown = unknown
    memcpy(table.text.data + table.text.len, name, name_len)
    memcpy(table.text.data + table.text.len + name_len, value, value_len)
    table.text.len += name_len + value_len
    table.bytes += size
    return 0


# ---- a block

cdef inline const uint8_t* integer(const uint8_t* p, const uint8_t* end, uint8_t mask, uint32_t* out) noexcept nogil:
    """An integer whose first bits are those of the byte at `p` in `mask` (section 5.1). Where it ends; NULL when it does
    not, or is larger than anything that has a meaning."""
    cdef uint32_t value = p[0] & mask, shift = 0
    p += 1
    if value == mask:
        while True:
            if p == end or shift > 21:
                return NULL
            value += <uint32_t>(p[0] & 0x7F) << shift
            shift += 7
            p += 1
            if not (p - 1)[0] & 0x80:
                break
    out[0] = value
    return p


cdef const uint8_t* string(pool_t* pool, const uint8_t* p, const uint8_t* end, buf_t* text, uint32_t* length,
                           int* why) noexcept nogil:
    """A string (section 5.2), to the end of `text`. Where it ends; NULL and why when it does not."""
    cdef uint32_t n = 0, i
    cdef bint coded
    cdef uint8_t state = 0, flags = ENDS
    cdef char* out
    cdef step_t step
    why[0] = HPACK_MALFORMED
    if p >= end:
        return NULL
    coded = p[0] & 0x80
    p = integer(p, end, 0x7F, &n)
    if p == NULL or n > <size_t>(end - p):
        return NULL
    if buf_reserve(pool, text, n * 8 // 5 + 1 if coded else n) < 0:     # five bits are the least that a symbol has
        why[0] = HPACK_NO_MEMORY
        return NULL
    out = text.data + text.len
    if not coded:
        memcpy(out, p, n)
        out += n
    else:
        for i in range(n):
            step = STEPS[state][p[i] >> 4]
            out[0] = <char>step.symbol
            out += step.flags & EMIT
            flags = step.flags
            step = STEPS[step.state][p[i] & 15]
            out[0] = <char>step.symbol
            out += step.flags & EMIT
            if (flags | step.flags) & FAIL:
                return NULL
            flags = step.flags
            state = step.state
        if not flags & ENDS:
            return NULL
    length[0] = <uint32_t>(out - text.data) - text.len
    text.len += length[0]
    return p + n


cdef inline int copy(pool_t* pool, buf_t* text, const char* p, uint32_t n) noexcept nogil:
    if buf_reserve(pool, text, n) < 0:
        return -1
    memcpy(text.data + text.len, p, n)
    text.len += n
    return 0


cdef int looked_up(pool_t* pool, const hpack_t* table, uint32_t index, bint with_value, buf_t* text,
                   hpack_field_t* field) noexcept nogil:
    """Name, and value, of an entry of either table, to the end of `text`. 0, or a negative result of hpack_decode."""
    cdef hpack_entry_t* entry
    if index == 0:
        return HPACK_MALFORMED
    if index <= STATIC:
        field.name_len = NAME_BYTES[index]
        field.value_len = VALUE_BYTES[index] if with_value else 0
        if copy(pool, text, NAMES[index], field.name_len) < 0 or copy(pool, text, VALUES[index], field.value_len) < 0:
            return HPACK_NO_MEMORY
        return 0
    index -= STATIC + 1
    if index >= table.count:
        field.unknown = HPACK_NAME | (HPACK_VALUE if with_value else 0)
        # the smallest entries take ENTRY_BYTES, so there can be no others
        return 0 if table.missed and index < table.max_bytes // ENTRY_BYTES else HPACK_MALFORMED
    entry = newest(table, index)
    field.unknown = entry.unknown if with_value else entry.unknown & HPACK_NAME
    field.name_len = entry.name_len
    field.value_len = entry.value_len if with_value else 0
    if copy(pool, text, table.text.data + entry.at, field.name_len + field.value_len) < 0:
        return HPACK_NO_MEMORY
    return 0


cdef int hpack_decode(pool_t* pool, hpack_t* table, const uint8_t* p, size_t n, buf_t* text, hpack_field_t* fields,
                      uint32_t most, uint32_t most_bytes, uint8_t* overflow) noexcept nogil:
    """The fields of a whole header block of `n` bytes, at most `most`, with texts of at most `most_bytes` in `text`, which
    is emptied before; `overflow`: there were more, and they are in the table nevertheless. Their number, or a negative
    result: then the table is as after hpack_miss."""
    cdef const uint8_t* end = p + n
    cdef hpack_field_t field
    cdef uint32_t count = 0, index = 0, at, i
    cdef bint entered
    cdef int why = 0
    text.len = 0
    overflow[0] = 0
    if buf_reserve(pool, text, n + 1) < 0:
        hpack_miss(table)
        return HPACK_NO_MEMORY
    while p < end:
        memset(&field, 0, sizeof(hpack_field_t))
        at = text.len
        entered = False
        if p[0] & 0x80:                                             # indexed (section 6.1)
            p = integer(p, end, 0x7F, &index)
            why = HPACK_MALFORMED if p == NULL else looked_up(pool, table, index, True, text, &field)
        elif p[0] & 0xE0 == 0x20:                                   # the table's size (section 6.3)
            p = integer(p, end, 0x1F, &index)
            if p == NULL:
                why = HPACK_MALFORMED
                break
            if index > table.limit:     # the SETTINGS that allow it may be among what was missed, or come behind this
                table.limit = index
            if index < table.max_bytes and table.missed:
                table.since = table.since if table.since < index else index     # what is left of it may be unknown
            table.max_bytes = index
            evict(table, 0)
            continue
        else:                                                       # literal (section 6.2)
            entered = p[0] & 0x40
            field.sensitive = p[0] & 0xF0 == 0x10
            p = integer(p, end, 0x3F if entered else 0x0F, &index)
            if p == NULL:
                why = HPACK_MALFORMED
            elif index:
                why = looked_up(pool, table, index, False, text, &field)
            else:
                p = string(pool, p, end, text, &field.name_len, &why)
                why = why if p == NULL else 0
            if why == 0:
                p = string(pool, p, end, text, &field.value_len, &why)
                why = why if p == NULL else 0
        if why < 0:
            break
        if entered and enter(pool, table, text.data + at, field.name_len, text.data + at + field.name_len,
                             field.value_len, field.unknown) < 0:
            why = HPACK_NO_MEMORY
            break
        if count == most or text.len > most_bytes:
            overflow[0] = 1
            text.len = at
            continue
        field.at = at                                               # `text` may move yet
        fields[count] = field
        count += 1
    if why < 0:
        hpack_miss(table)
        return why
    for i in range(count):
        fields[i].name = <const uint8_t*>text.data + fields[i].at
        fields[i].value = fields[i].name + fields[i].name_len
    return <int>count


# ---- for tests

@cython.final
cdef class HeaderTable:
    """One direction's table, for tests."""

    cdef pool_t pool
    cdef hpack_t table
    cdef buf_t text
    cdef hpack_field_t fields[512]

    def __cinit__(self):
        memset(&self.pool, 0, sizeof(pool_t))
        memset(&self.text, 0, sizeof(buf_t))
        hpack_init(&self.table)

    def __dealloc__(self):
        buf_free(&self.pool, &self.text)
        hpack_free(&self.pool, &self.table)

    def decode(self, bytes block not None, uint32_t most=512, uint32_t most_bytes=65536):
        """(name, value) of each field, None for what is unknown. Raises ValueError, MemoryError, OverflowError for more."""
        cdef uint8_t overflow = 0
        cdef int i, count
        count = hpack_decode(&self.pool, &self.table, <const uint8_t*><const char*>block, len(block), &self.text,
                             self.fields, min(most, <uint32_t>512), most_bytes, &overflow)
        if count == HPACK_NO_MEMORY:
            raise MemoryError
        if count < 0:
            raise ValueError("malformed")
        if overflow:
            raise OverflowError
        out = []
        for i in range(count):
            field = &self.fields[i]
            out.append((None if field.unknown & HPACK_NAME else field.name[:field.name_len],
                        None if field.unknown & HPACK_VALUE else field.value[:field.value_len]))
        return out

    def miss(self):
        """A block went by."""
        hpack_miss(&self.table)

    def allow(self, uint32_t limit):
        """The decoder's SETTINGS_HEADER_TABLE_SIZE."""
        hpack_allow(&self.table, limit)

    def held(self):
        """Bytes of memory."""
        return self.pool.bytes
