"""Names and their values in a text of any kind: JSON, XML, logs, GraphQL, JavaScript, heads.

What could be a name is what stands before `=`, `:` or `>`; its quotes, or their absence, say how far its value goes. So
what is cut, broken or nested is read as well as what is whole, and JSON stays JSON: a value that is replaced keeps its
quotes, or gets those that its name has.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from collector.shards.redaction.edits cimport *
from collector.shards.redaction.forms cimport find_form, found_t
from collector.shards.redaction.names cimport find_name, may_be_name
from collector.shards.redaction.pairs cimport name_of_pair
from collector.shards.redaction.sniffing cimport is_blank
from collector.shards.redaction.state cimport *

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_len, const void* needle, size_t needle_len)
    void* memrchr(const void* s, int c, size_t n)

cdef enum:
    NAME_MOST = 96          # bytes of a name
    PAIR_MOST = 2048        # from `"name": "password"` to its `"value":`
    TAG_MOST = 256          # of an element of XML, with its attributes
    HOLD_BACK = 4           # a value in prose has at least so many letters


cdef const uint8_t* end_of_quoted(const uint8_t* p, const uint8_t* end, uint8_t quote, size_t slashes) noexcept nogil:
    """Where a text ends that has begun behind a quote with so many backslashes before it: at those, or the end of all."""
    cdef const uint8_t* q = p
    cdef const uint8_t* back
    while True:
        q = <const uint8_t*>memchr(q, quote, <size_t>(end - q))
        if q == NULL:
            return end
        back = q
        while back > p and (back - 1)[0] == c'\\':
            back -= 1
        # as many as before the beginning, or none of them escapes the quote
        if <size_t>(q - back) == slashes or (slashes == 0 and (q - back) % 2 == 0):
            return q - slashes
        if <size_t>(q - back) < slashes:
            return back     # the text around it ends
        q += 1


cdef const uint8_t* end_of_block(const uint8_t* p, const uint8_t* end, uint8_t quote, size_t slashes) noexcept nogil:
    """Where a block string (GraphQL, section 2.9.4) ends whose first of three quotes is before `p`; NULL: it is none."""
    cdef uint8_t[3 * 4] quotes
    cdef size_t one = slashes + 1
    cdef size_t i
    cdef const uint8_t* q
    if slashes > 3 or <size_t>(end - p) < 2 * one:
        return NULL
    for i in range(3 * one):
        quotes[i] = quote if i % one == slashes else c'\\'
    if memcmp(p, quotes, 2 * one) != 0:
        return NULL
    q = p + 2 * one
    q = <const uint8_t*>memmem(q, <size_t>(end - q), quotes, 3 * one)
    return end if q == NULL else q


cdef bint inside_quotes(const edits_t* e, place_t* place, const uint8_t* at) noexcept nogil:
    """Is `at` inside a text of JSON? Asked in ascending order."""
    cdef const uint8_t* q = place.parity_at
    while True:
        q = <const uint8_t*>memchr(q, c'"', <size_t>(at - q)) if q < at else NULL
        if q == NULL:
            break
        if not place.inside or not escaped(e.begin, q):
            place.inside = not place.inside
        q += 1
    if at > place.parity_at:
        place.parity_at = at
    return place.inside


cdef bint escaped(const uint8_t* begin, const uint8_t* q) noexcept nogil:
    cdef const uint8_t* back = q
    while back > begin and (back - 1)[0] == c'\\':
        back -= 1
    return (q - back) & 1


cdef const uint8_t* end_of_string(const edits_t* e, place_t* place, const uint8_t* at) noexcept nogil:
    """Where the text of JSON ends that `at` is inside, so that no value goes beyond it; or the end of all. Asked in
    ascending order."""
    if at < place.string_end:
        return place.string_end
    if not place.json or not inside_quotes(e, place, at):
        return e.end
    place.string_end = end_of_quoted(at, e.end, c'"', 0)
    return place.string_end


# ---- a name and its value

cdef void at_sign(redaction_t* r, edits_t* e, place_t* place, const uint8_t* sign) noexcept:
    """`sign` is `=`, `:` or `>`: if a secret's name ends before it, its value is replaced."""
    cdef const uint8_t* end = sign
    cdef const uint8_t* name
    cdef const uint8_t* quote = NULL
    cdef size_t slashes = 0
    cdef const known_t* entry
    cdef uint32_t kind
    if sign[0] == c'>':
        at_tag(r, e, place, sign)
        return
    if sign[0] == c'=' and sign > e.begin and (sign - 1)[0] == c':':
        end -= 1
    while end > e.begin and is_blank((end - 1)[0]):
        end -= 1
    if end == e.begin:
        return
    if (end - 1)[0] == c'"' or (end - 1)[0] == c"'":
        end -= 1
        quote = end
        while end > e.begin and (end - 1)[0] == c'\\':
            end -= 1
            slashes += 1
    elif (end - 1)[0] == c']':
        if ends_redacted(e, end):
            return
    if sign[0] == c'=' and end == sign:
        entry = encoded_name(r, e, end)
        if entry != NULL and not entry.flags & NAME_PAIR:
            value(r, e, place, sign, entry.kind, NULL, 0)
            return
    end = before_brackets(e.begin, end)
    if not may_be_name(r, e.begin, end):
        return
    name = end
    if quote != NULL:
        while name > e.begin and end - name < NAME_MOST and (name - 1)[0] != quote[0]:
            name -= 1
        if slashes == 0 and memchr(name, c'\\', <size_t>(end - name)) != NULL:
            return          # at_escape reads it
    else:
        while name > e.begin and end - name < NAME_MOST and (of_name((name - 1)[0]) or (name - 1)[0] == c'['):
            name -= 1
    if end == name:
        return
    if end - name == 5 and is_value(name):
        kind = kind_of_value(r, e, place, sign)
        if kind == 0:
            return
    else:
        entry = find_name(r, name, end)
        if entry == NULL:
            return
        if entry.flags & NAME_PAIR:
            if quote != NULL:
                note_name(place, sign, slashes)
            else:
                pair(r, e, place, sign + 1)
            return
        kind = entry.kind
    value(r, e, place, sign, kind, quote, slashes)


cdef const known_t* encoded_name(redaction_t* r, edits_t* e, const uint8_t* end) noexcept:
    """Of a pair in a form that nobody has said to be one, where it has percent-encoded letters: what is known of it."""
    cdef const uint8_t* name = end
    cdef bint encoded = False
    while name > e.begin and end - name < NAME_MOST and (of_name((name - 1)[0]) or (name - 1)[0] == c'%'):
        name -= 1
        encoded |= name[0] == c'%'
    return name_of_pair(r, e, name, end) if encoded else NULL


cdef inline const uint8_t* before_brackets(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Where the last word of `user[password]` or `user[tokens][]` ends."""
    while end > p and ((end - 1)[0] == c']' or (end - 1)[0] == c'[') and end - p > 1:
        end -= 1
    return end


cdef bint ends_redacted(const edits_t* e, const uint8_t* end) noexcept nogil:
    """Is it the end of what another value became?"""
    cdef size_t most = <size_t>(end - e.begin)
    cdef const uint8_t* p
    if most > NAME_MOST:
        most = NAME_MOST
    p = <const uint8_t*>memrchr(end - most, c'[', most)
    return p != NULL and end - p > 10 and memcmp(p, b"[redacted:", 10) == 0


cdef inline bint is_value(const uint8_t* p) noexcept nogil:
    return (p[0] | 0x20 == c'v' and p[1] | 0x20 == c'a' and p[2] | 0x20 == c'l' and p[3] | 0x20 == c'u'
            and p[4] | 0x20 == c'e')


cdef const uint8_t* quoted(const edits_t* e, const uint8_t* p, uint8_t* quote, size_t* slashes) noexcept nogil:
    """Where the text begins, if a quote is here; else NULL."""
    cdef const uint8_t* q = p
    while q < e.end and q[0] == c'\\':
        q += 1
    if q == e.end or (q[0] != c'"' and q[0] != c"'"):
        return NULL
    quote[0] = q[0]
    slashes[0] = <size_t>(q - p)
    return q + 1


cdef const uint8_t* behind_blanks(const edits_t* e, const uint8_t* p) noexcept nogil:
    while p < e.end and is_blank(p[0]):
        p += 1
    return p


cdef uint32_t kind_of_value(const redaction_t* r, const edits_t* e, place_t* place, const uint8_t* sign) noexcept nogil:
    """Of what a member `value` is, by the name beside it or around it; 0: of no secret."""
    cdef uint32_t kind = place.pair_kind
    cdef const uint8_t* begin
    cdef const uint8_t* end
    cdef const known_t* entry
    cdef uint8_t quote
    cdef size_t count
    if kind and sign < place.pair_end:
        place.pair_kind = 0
        return kind
    begin = place.pair_name
    place.pair_name = NULL
    if begin == NULL or sign - begin > PAIR_MOST or memchr(begin, c'}', <size_t>(sign - begin)) != NULL:
        return 0
    begin = quoted(e, behind_blanks(e, begin + 1), &quote, &count)
    if begin == NULL or count != place.pair_slashes:
        return 0
    end = end_of_quoted(begin, e.end, quote, count)
    if end - begin > NAME_MOST:
        return 0
    entry = find_name(r, begin, end)
    return 0 if entry == NULL or entry.flags & NAME_PAIR else entry.kind


cdef void pair(redaction_t* r, edits_t* e, place_t* place, const uint8_t* p) noexcept:
    """`name="password"` in the head of a part of multipart/form-data or of an element, or `name: "password", value: ...`."""
    cdef uint8_t quote
    cdef size_t count
    cdef const uint8_t* begin = quoted(e, behind_blanks(e, p), &quote, &count)
    cdef const uint8_t* end
    cdef const uint8_t* most
    cdef const known_t* entry
    if begin != NULL:
        end = end_of_quoted(begin, e.end, quote, count)
    else:
        begin = end = p
        while end < e.end and (of_name(end[0]) or end[0] == c'[' or end[0] == c']'):
            end += 1
    if end - begin > NAME_MOST or not may_be_name(r, e.begin, before_brackets(begin, end)):
        return
    entry = find_name(r, begin, end)
    if entry == NULL or entry.flags & NAME_PAIR:
        return
    most = e.end if e.end - end < PAIR_MOST else end + PAIR_MOST
    p = content(end, most)
    if p != NULL:
        part(r, e, p, entry.kind)
        return
    p = <const uint8_t*>memchr(end, c'>', <size_t>(most - end))
    place.pair_kind = entry.kind
    place.pair_end = p if p != NULL else most


cdef void part(redaction_t* r, edits_t* e, const uint8_t* p, uint32_t kind) noexcept:
    """The content of a part (RFC 7578), up to the next boundary."""
    cdef const uint8_t* end = <const uint8_t*>memmem(p, <size_t>(e.end - p), b"\n--", 3)
    if end == NULL:
        end = e.end
    elif end > p and (end - 1)[0] == c'\r':
        end -= 1
    replace(r, e, p, end, kind, NULL, 0)


cdef const uint8_t* content(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """What an empty line is before, of a part whose head is at `p`; its lines may end without CR. NULL: that is no head."""
    cdef const uint8_t* line = p
    while True:
        line = <const uint8_t*>memchr(line, c'\n', <size_t>(end - line))
        if line == NULL:
            return NULL
        line += 1
        if line < end and line[0] == c'\r':
            line += 1
        if line < end and line[0] == c'\n':
            return line + 1
        if end - line < 8 or not (memcmp(line + 1, b"ontent-", 7) == 0 or line[1] == c'-'):
            return NULL         # no field that parts have


cdef inline bint is_word(const uint8_t* p, const uint8_t* end, const char* word, size_t n) noexcept nogil:
    return end - p >= <Py_ssize_t>n and memcmp(p, word, n) == 0 and (end - p == <Py_ssize_t>n or not of_name(p[n]))


cdef void value(redaction_t* r, edits_t* e, place_t* place, const uint8_t* sign, uint32_t kind, const uint8_t* outer,
                size_t slashes) noexcept:
    """Replace the value behind `sign`, of a name that had the quote `outer` behind so many backslashes, or none. A name
    inside a text of JSON has its value there, too."""
    cdef const uint8_t* end = e.end
    if outer == NULL or slashes or outer[0] != c'"':
        e.end = end_of_string(e, place, sign)
    value_here(r, e, place, sign, kind, outer, slashes)
    e.end = end


cdef void value_here(redaction_t* r, edits_t* e, place_t* place, const uint8_t* sign, uint32_t kind, const uint8_t* outer,
                     size_t slashes) noexcept:
    cdef const uint8_t* p = behind_blanks(e, sign + 1)
    cdef const uint8_t* begin
    cdef const uint8_t* end
    cdef found_t found
    cdef uint8_t quote
    cdef size_t count
    if sign[0] == c'=' and sign + 1 < e.end and sign[1] == c'=':
        return          # a comparison
    if sign[0] == c'=' and sign + 1 < e.end and sign[1] == c'>':
        p = behind_blanks(e, sign + 2)      # of a hash of Ruby, an array of PHP; else a function
        if quoted(e, p, &quote, &count) == NULL:
            return
    if p == e.end:
        return
    begin = quoted(e, p, &quote, &count)
    if begin == NULL and outer != NULL and outer[0] == c"'" and (p[0] == c'b' or p[0] == c'u'):
        begin = quoted(e, p + 1, &quote, &count)        # of Python
    if begin != NULL:
        end = end_of_block(begin, e.end, quote, count)
        if end != NULL:
            begin += 2 * (count + 1)
        else:
            end = end_of_quoted(begin, e.end, quote, count)
        replace(r, e, begin, end, kind, NULL, 0)
        return
    if outer != NULL:
        if (p[0] == c'{' or p[0] == c'[') and r.whole[kind]:
            if p >= place.members_end:
                place.members_end = members(r, e, p, kind, outer, slashes)
        elif p[0] == c'[':
            elements(r, e, p + 1, kind, outer, slashes)
        elif p[0] == c'{':
            if p >= place.brace:
                place.brace = <const uint8_t*>memchr(p, c'}', <size_t>(e.end - p))
                if place.brace == NULL:
                    place.brace = e.end
            place.pair_kind = kind
            place.pair_end = place.brace
        else:
            literal(r, e, p, kind, outer, slashes)
        return
    if sign[0] == c':' and p[0] == c'/' and p == sign + 1:
        return          # a URL's scheme
    if sign[0] == c':' and (kind == r.kind_of[FORM_COOKIE] or kind == r.kind_of[FORM_AUTHORIZATION]):
        field(r, e, p, kind)
        return
    end = p
    while end < e.end and not is_blank(end[0]) and end[0] != c'&' and end[0] != c'"' and end[0] != c"'" and end[0] != c'<' \
            and end[0] != c'>' and end[0] != c';' and end[0] != c'\\' and end[0] != c')' and end[0] != c'}' \
            and not (end[0] == c',' and sign[0] == c':'):
        end += 1
    if sign[0] == c':' and (end - p < HOLD_BACK or is_prose(p, end)):
        return
    find_form(r, e, p, &found)      # with blanks in it
    replace(r, e, p, found.end if found.kind and found.end > end else end, kind, NULL, 0)


cdef void field(redaction_t* r, edits_t* e, const uint8_t* p, uint32_t kind) noexcept:
    """A field of a head in a text: cookies, or credentials, of which the scheme stays."""
    cdef const uint8_t* begin = p
    cdef const uint8_t* end = p
    cdef const uint8_t* second
    while end < e.end and end[0] != c'\n' and end[0] != c'\r' and end[0] != c'"' and end[0] != c"'" and end[0] != c'\\' \
            and end[0] != c'<':
        end += 1
    while end > p and is_blank((end - 1)[0]):
        end -= 1
    if kind == r.kind_of[FORM_AUTHORIZATION]:
        while p < end and (of_name(p[0]) and p[0] < 0x80):
            p += 1
        second = behind_blanks(e, p)
        if p == end or second == p or second >= end:
            p = begin
        else:
            p = second
    if memchr(p, c'=', <size_t>(end - p)) == NULL and is_prose(p, behind_letters(p, end)):
        return
    replace(r, e, p, end, kind, NULL, 0)


cdef inline const uint8_t* behind_letters(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and p[0] > c' ':
        p += 1
    return p


cdef bint is_prose(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """A word, as in `Password: must have`, and not a value."""
    if p[0] == c'[' or p[0] == c'{' or p[0] == c'$' or p[0] == c'(':
        return True
    p += 1
    while p < end:
        if not (p[0] >= c'a' and p[0] <= c'z' or p[0] == c'.' or p[0] == c','):
            return False
        p += 1
    return True


cdef const uint8_t* literal_end(const edits_t* e, const uint8_t* p) noexcept nogil:
    while p < e.end and not is_blank(p[0]) and p[0] != c',' and p[0] != c'}' and p[0] != c']' and p[0] != c'\\' \
            and p[0] != c'"':
        p += 1
    return p


cdef void literal(redaction_t* r, edits_t* e, const uint8_t* p, uint32_t kind, const uint8_t* outer,
                  size_t slashes) noexcept:
    """A number, if those of this kind may be such; true, false and null stay."""
    cdef const uint8_t* end = literal_end(e, p)
    if end == p or not r.numbers[kind] or is_word(p, end, b"true", 4) or is_word(p, end, b"false", 5) \
            or is_word(p, end, b"null", 4) or is_word(p, end, b"None", 4):
        return
    replace(r, e, p, end, kind, outer - slashes, slashes + 1)


cdef const uint8_t* members(redaction_t* r, edits_t* e, const uint8_t* p, uint32_t kind, const uint8_t* outer,
                            size_t slashes) noexcept:
    """The values in an object or array, and in what it has in it, up to its end, which is returned."""
    cdef const uint8_t* begin
    cdef const uint8_t* end
    cdef const uint8_t* next
    cdef uint8_t quote
    cdef size_t count
    cdef int depth = 0
    while p < e.end:
        begin = quoted(e, p, &quote, &count)
        if begin != NULL:
            end = end_of_quoted(begin, e.end, quote, count)
            next = end + count + 1
            while next < e.end and is_blank(next[0]):
                next += 1
            if next >= e.end or next[0] != c':':
                replace(r, e, begin, end, kind, NULL, 0)
            p = end + count + 1
            continue
        if p[0] == c'{' or p[0] == c'[':
            depth += 1
        elif p[0] == c'}' or p[0] == c']':
            depth -= 1
            if depth <= 0:
                return p
        elif p[0] == c'-' or p[0] >= c'0' and p[0] <= c'9':
            end = literal_end(e, p)
            literal(r, e, p, kind, outer, slashes)
            p = end
            continue
        p += 1
    return e.end


cdef void elements(redaction_t* r, edits_t* e, const uint8_t* p, uint32_t kind, const uint8_t* outer,
                   size_t slashes) noexcept:
    """What is in an array, up to its end or the first object in it."""
    cdef const uint8_t* begin
    cdef const uint8_t* end
    cdef uint8_t quote
    cdef size_t count
    cdef int depth = 1
    while p < e.end and depth:
        if p[0] == c'{':
            return
        begin = quoted(e, p, &quote, &count)
        if begin != NULL:
            end = end_of_quoted(begin, e.end, quote, count)
            replace(r, e, begin, end, kind, NULL, 0)
            p = end + count + 1
        elif p[0] == c'[' or p[0] == c']':
            depth += 1 if p[0] == c'[' else -1
            p += 1
        elif is_blank(p[0]) or p[0] == c',' or p[0] == c'\\':
            p += 1
        else:
            end = literal_end(e, p)
            if end == p:
                return
            literal(r, e, p, kind, outer, slashes)
            p = end


cdef bint may_end_tag(const redaction_t* r, const edits_t* e, const uint8_t* sign) noexcept nogil:
    """Is there a name of a secret before `>`, or an attribute or blank, before which one may be?"""
    return (sign > e.begin and ((sign - 1)[0] == c'"' or (sign - 1)[0] == c"'" or is_blank((sign - 1)[0]))
            or may_be_name(r, e.begin, sign))


cdef void at_tag(redaction_t* r, edits_t* e, place_t* place, const uint8_t* sign) noexcept:
    """`<password>value</password>`, with or without a prefix and attributes (XML 1.0 section 3.1)."""
    cdef size_t most = <size_t>(sign - e.begin)
    cdef const uint8_t* p
    cdef const uint8_t* name
    cdef const uint8_t* end
    cdef const known_t* entry
    if sign + 1 >= e.end or sign < place.element_end or sign[1] == c'<' and not (e.end - sign > 3 and sign[2] == c'!'):
        return
    if not may_end_tag(r, e, sign):
        return
    if most > TAG_MOST:
        most = TAG_MOST
    p = <const uint8_t*>memrchr(sign - most, c'<', most)
    if p == NULL or p + 1 == sign or p[1] == c'/' or p[1] == c'!' or p[1] == c'?' or (sign - 1)[0] == c'/':
        return
    name = end = p + 1
    while end < sign and not is_blank(end[0]):
        if end[0] == c':':
            name = end + 1
        end += 1
    if not may_be_name(r, e.begin, end):
        return
    entry = find_name(r, name, end)
    if entry == NULL or entry.flags & NAME_PAIR:
        return
    place.element_end = element(r, e, sign + 1, end_of_string(e, place, sign), entry.kind)


cdef const uint8_t* element(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end, uint32_t kind) noexcept:
    """The content of an element up to the next tag, with what is in CDATA sections and around comments. Its end."""
    cdef const uint8_t* next
    while p < end:
        if p[0] != c'<':
            next = <const uint8_t*>memchr(p, c'<', <size_t>(end - p))
            if next == NULL:        # no element, unless it is cut
                next = p if not e.cut else end
                while next < end and next[0] != c'"' and next[0] != c'\\' and next[0] != c'\n':
                    next += 1
            replace_trimmed(r, e, p, next, kind)
            if next == end or next[0] != c'<':
                return next
            p = next
        elif end - p > 9 and memcmp(p, b"<![CDATA[", 9) == 0:
            next = <const uint8_t*>memmem(p, <size_t>(end - p), b"]]>", 3)
            replace_trimmed(r, e, p + 9, end if next == NULL else next, kind)
            p = end if next == NULL else next + 3
        elif end - p > 4 and memcmp(p, b"<!--", 4) == 0:
            next = <const uint8_t*>memmem(p, <size_t>(end - p), b"-->", 3)
            p = end if next == NULL else next + 3
        else:
            return p
    return end


cdef void replace_trimmed(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end, uint32_t kind) noexcept:
    """Without the blanks around it."""
    while p < end and is_blank(p[0]):
        p += 1
    while end > p and is_blank((end - 1)[0]):
        end -= 1
    replace(r, e, p, end, kind, NULL, 0)
