"""A text of any kind, and texts inside of it. Nothing is parsed: it is looked at in blocks (scan.h), and read where
something may be: a name and its value (values.pyx), a form (forms.pyx), another text.

What hides another text - escapes in JSON, percent-encoding, base64 - is undone, read, and redone if something was found.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from collector.shards.redaction.edits cimport *
from collector.shards.redaction.forms cimport find_form, found_t
from collector.shards.redaction.names cimport ending_of, find_name
from collector.shards.redaction.sniffing cimport is_blank
from collector.shards.redaction.state cimport *
from collector.shards.redaction.values cimport *

cdef extern from "<string.h>" nogil:
    void* memrchr(const void* s, int c, size_t n)

cdef enum:
    NAME_MOST = 96          # bytes of a name
    LEAST_ROW = 18          # of base64: of a card's number, without padding
    CALL_BYTES = 100        # what reading a text in a text costs beside its length, as so many bytes

scan_prepare(2)


# ---- what has a form, and what hides another text

cdef void nested(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end, how) noexcept:
    """Undo the disguise of what is from `p` to `end`; when there is a secret in it, it is replaced by what it becomes
    redone."""
    cdef bytes out
    cdef const char* data
    if e.depth >= DEPTH or end <= p or p < e.done:
        return
    if r.spent:
        replace(r, e, p, end, <uint32_t>r.kind_of[FORM_UNREAD], NULL, 0)
        return
    r.work += end - p + CALL_BYTES
    try:
        found = how(p[:end - p], e.cut and end == e.end, e.depth + 1)
    except Exception:
        e.failed = 1
        return
    if found is None:
        return
    if e.same_size:
        replace(r, e, p, end, <uint32_t>r.kind_of[FORM_UNREAD], NULL, 0)
        return
    out, count = found
    data = out
    replace_with(e, p, end, data, <size_t>len(out))
    e.count += <uint32_t>count - 1


cdef void at_escape(redaction_t* r, edits_t* e, place_t* place, const uint8_t* p) noexcept:
    """An escaped letter of JSON (RFC 8259 section 7) that need not be escaped: read the whole text that it is in."""
    cdef const uint8_t* begin = p
    cdef const uint8_t* end
    cdef bint other
    if p < place.skip_escapes or e.end - p < 2:
        return
    other = p[1] == c'u' and (e.end - p < 6 or p[2] != c'0' or p[3] != c'0')     # no letter of ASCII: only in a name
    if (other and p < place.no_name) or escaped(e.begin, p):
        return
    if not inside_quotes(e, place, p):
        return
    while True:
        begin = <const uint8_t*>memrchr(e.begin, c'"', <size_t>(begin - e.begin))
        if begin == NULL:
            return
        if not escaped(e.begin, begin):
            break
    begin += 1
    end = end_of_quoted(begin, e.end, c'"', 0)
    place.skip_escapes = end
    if begin < e.done:
        begin = e.done      # what is before was replaced
    elif is_name(e, end):
        nested_name(r, e, place, begin, end)
        return
    if other:
        place.skip_escapes = p + 6
        place.no_name = end
    else:
        nested(r, e, begin, end, (<object>r.owner).unescaped)


cdef inline bint is_name(const edits_t* e, const uint8_t* end) noexcept nogil:
    """Does a colon follow the text that ends here?"""
    cdef const uint8_t* p = end + 1
    while p < e.end and is_blank(p[0]):
        p += 1
    return p < e.end and p[0] == c':'


cdef void nested_name(redaction_t* r, edits_t* e, place_t* place, const uint8_t* p, const uint8_t* end) noexcept:
    """A name with escapes in it."""
    cdef bytes name
    cdef const uint8_t* text
    cdef const known_t* entry
    cdef const uint8_t* sign = end + 1
    if end - p > NAME_MOST * 6:
        return
    try:
        name = (<object>r.owner).plain_name(p[:end - p])
    except Exception:
        e.failed = 1
        return
    text = name
    entry = find_name(r, text, text + len(name))
    if entry == NULL or entry.flags & NAME_PAIR:
        return
    while sign[0] != c':':
        sign += 1
    value(r, e, place, sign, entry.kind, end, 0)


cdef void at_percent(redaction_t* r, edits_t* e, place_t* place, const uint8_t* p) noexcept:
    """An encoded letter of a URL (RFC 3986 section 2.1): read the whole word that it is in."""
    cdef const uint8_t* begin = p
    cdef const uint8_t* end = p
    if p < place.skip_percent or e.end - p < 3 or not is_hex(p[2]):
        return
    while begin > e.done and not ends_word((begin - 1)[0]):
        begin -= 1
    while end < e.end and not ends_word(end[0]):
        end += 1
    place.skip_percent = end
    nested(r, e, begin, end, (<object>r.owner).unquoted)


cdef inline bint is_hex(uint8_t c) noexcept nogil:
    return c >= c'0' and c <= c'9' or c | 0x20 >= c'a' and c | 0x20 <= c'f'


cdef inline bint ends_word(uint8_t c) noexcept nogil:
    return (c <= c' ' or c == c'"' or c == c"'" or c == c'<' or c == c'>' or c == c'&' or c == c'?' or c == c'='
            or c == c'\\' or c == c';' or c == c',')


cdef void at_form(redaction_t* r, edits_t* e, place_t* place, const uint8_t* p) noexcept:
    cdef found_t found
    cdef const uint8_t* before
    if p[0] == c'\\':
        at_escape(r, e, place, p)
        return
    if p[0] == c'%':
        at_percent(r, e, place, p)
        return
    if p < place.skip_forms:
        return
    find_form(r, e, p, &found)
    place.skip_forms = found.seen
    if found.kind == 0:
        return
    before = found.begin
    while before > e.begin and is_blank((before - 1)[0]):
        before -= 1
    if found.begin == p and found.begin[0] >= c'0' and found.begin[0] <= c'9' and before > e.begin and \
            ((before - 1)[0] == c':' or (before - 1)[0] == c',' or (before - 1)[0] == c'[') and \
            not inside_quotes(e, place, found.begin) and e.begin[0] != c'&':
        replace(r, e, found.begin, found.end, found.kind, <const uint8_t*>b'"', 1 if place.json else 0)
    elif place.json and found.kind == r.kind_of[FORM_PRIVATE_KEY]:
        texts(r, e, found.begin, found.end, found.kind)
    else:
        replace(r, e, found.begin, found.end, found.kind, NULL, 0)


cdef void texts(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end, uint32_t kind) noexcept:
    """What begins inside a text of JSON, and may end inside of another one: what is between them stays."""
    cdef const uint8_t* q
    while p < end:
        q = end_of_quoted(p, end, c'"', 0)
        replace(r, e, p, q, kind, NULL, 0)
        if q == end:
            return
        q = <const uint8_t*>memchr(q + 1, c'"', <size_t>(end - q - 1))
        if q == NULL:
            return
        p = q + 1


cdef inline bint is_json(const edits_t* e) noexcept nogil:
    cdef const uint8_t* p = e.begin
    while p < e.end and is_blank(p[0]):
        p += 1
    return p < e.end and (p[0] == c'{' or p[0] == c'[')


cdef void at_row(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    """A long row of letters of base64 (RFC 4648): a text, if its first letters are one."""
    if (end - p < LEAST_ROW and not (e.cut and end == e.end)) or e.depth >= DEPTH or p < e.done \
            or not looks_like_text(p, end):
        return
    while end < e.end and end[0] == c'=':
        end += 1
    nested(r, e, p, end, (<object>r.owner).unbase64)


cdef inline int sextet(uint8_t c) noexcept nogil:
    if c >= c'A' and c <= c'Z':
        return c - c'A'
    if c >= c'a' and c <= c'z':
        return c - c'a' + 26
    if c >= c'0' and c <= c'9':
        return c - c'0' + 52
    return 62 if c == c'+' or c == c'-' else 63 if c == c'/' or c == c'_' else -1


cdef bint looks_like_text(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Do the first twelve letters, or the eight that there are, stand for as many characters of ASCII?"""
    cdef uint32_t bits
    cdef int i, k, s
    cdef int letters = 12 if end - p >= 12 else 8
    if end - p < letters:
        return False
    for i in range(0, letters, 4):
        bits = 0
        for k in range(4):
            s = sextet(p[i + k])
            if s < 0:
                return False
            bits = bits << 6 | <uint32_t>s
        for k in range(3):
            s = bits >> (16 - 8 * k) & 0xFF
            if s >= 0x7F or (s < 0x20 and s != 0x0A and s != 0x0D and s != 0x09):
                return False
    return True


# ---- all of it

cdef void scan_text(redaction_t* r, edits_t* e) noexcept:
    """All secrets of the text, by name and by form."""
    scan(r, e)


cdef void scan_binary(redaction_t* r, edits_t* e) noexcept:
    """The same of bytes that are no text, or not only: as many bytes."""
    e.same_size = 1
    scan(r, e)


cdef void scan(redaction_t* r, edits_t* e) noexcept:
    cdef const uint8_t* at = e.begin
    cdef const uint8_t* q
    cdef const uint8_t* row = NULL      # where letters of base64 have begun that go on
    cdef scan_t[8] blocks               # SCAN_MANY
    cdef scan_t* found
    cdef unsigned block = 0, scanned = 0
    cdef place_t place
    cdef uint64_t bits, rows, ends = 0
    cdef unsigned i, digit = 0
    cdef size_t n
    place.skip_forms = place.skip_escapes = place.skip_percent = place.parity_at = e.begin
    place.pair_end = place.pair_name = NULL
    place.pair_slashes = 0
    place.pair_kind = 0
    place.inside = False
    place.json = is_json(e)
    place.no_name = place.string_end = place.brace = place.members_end = place.element_end = e.begin
    while at < e.end and not e.failed:
        n = <size_t>(e.end - at)
        if block == scanned:
            scanned = scan_blocks(&r.beginnings, at, n, blocks)
            block = 0
        found = &blocks[block]
        block += 1
        if row != NULL and ~found.word:
            i = ones_below(found.word)
            if at + i - row >= LEAST_ROW:
                at_row(r, e, row, at + i)
            row = NULL
            found.word &= ~<uint64_t>0 << i
        rows = 0 if row != NULL else eighteen(found.word) & ~(found.word << 1)
        if row == NULL and found.word >> 63 and n > SCAN_BYTES:
            i = SCAN_BYTES - ones_above(found.word)
            row = at + i
            rows &= (<uint64_t>1 << i) - 1
        # a number in a row of digits only begins with it
        found.forms = found.forms & ~found.digits | (
            numbers(found, digit) if n > SCAN_BYTES or not e.cut else rows_of_digits(found.digits, digit))
        digit = <unsigned>(found.digits >> 63)
        ends = found.ends if at == e.begin else unusual(r, at, found.ends)
        bits = found.forms | rows | ends
        while bits:
            i = first_bit(bits)
            bits &= bits - 1
            q = at + i
            if q < e.done:
                continue
            if ends >> i & 1 and not (q[0] == c':' and is_authority(e, q)):
                if ends_name(e, q):
                    note_name(&place, q, 0)
                else:
                    at_sign(r, e, &place, q)
            elif found.forms >> i & 1:
                at_form(r, e, &place, q)
            if rows >> i & 1 and q >= e.done:
                at_row(r, e, q, q + ones_below(found.word >> i))
        at += SCAN_BYTES
    if row == NULL and e.cut:       # one that is shorter than others, as its end is not there
        row = e.end
        while row > e.done and e.end - row < LEAST_ROW and sextet((row - 1)[0]) >= 0:
            row -= 1
    if row != NULL and not e.failed:
        at_row(r, e, row, e.end)


cdef inline uint64_t unusual(const redaction_t* r, const uint8_t* at, uint64_t ends) noexcept nogil:
    """Of the signs in the block at `at`, which is not the first one, those before which there may be a name of a secret.
    Without branches for most names of JSON: a quote before the colon, and four letters before that with which no secret's
    name ends."""
    cdef uint64_t other, left = 0
    cdef const uint8_t* q
    cdef uint32_t bit, two
    cdef unsigned i
    while ends:
        i = first_bit(ends)
        ends &= ends - 1
        q = at + i
        bit = ending_of(q - 1)
        two = (q - 1)[0] | <uint32_t>q[0] << 8
        other = (two != (c'"' | c':' << 8)) | ((q - 2)[0] == c'\\') | r.endings[bit >> 6] >> (bit & 63) & 1
        left |= other << i
    return left


cdef inline bint is_authority(const edits_t* e, const uint8_t* p) noexcept nogil:
    return e.end - p > 2 and p[1] == c'/' and p[2] == c'/'


def use_instructions(int most):
    """For tests: those of any machine (0), SSSE3 (1) or AVX2 (2)."""
    scan_prepare(most)
