"""Secrets that can be told by their form: JSON web tokens (RFC 7519), keys of products by their beginnings, card numbers
(ISO/IEC 7812, with the check digit of its annex B), IBANs (ISO 13616), private keys (RFC 7468), what follows Bearer and
Basic (RFC 6750, RFC 7617), passwords in URLs (RFC 3986 section 3.2.1), tokens of bots.

Each says how far it has looked, so that no byte is looked at twice for the same form, whatever the text is made of. Where
the text is cut, what may be the beginning of a form is one.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from collector.shards.redaction.sniffing cimport is_blank
from collector.shards.redaction.state cimport *

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_len, const void* needle, size_t needle_len)

cdef enum:
    JWT_LEAST = 16          # of each of the first two parts
    CUT_DIGITS = 5          # of a number whose end is not there
    CUT_TOKEN = 4
    BEARER_LEAST = 16
    BASIC_LEAST = 8
    URL_MOST = 512          # of user information
    BOT_LETTERS = 35
    KEY_MOST = 16384        # of a private key


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return c >= c'0' and c <= c'9'


cdef inline bint is_letter(uint8_t c) noexcept nogil:
    return c | 0x20 >= c'a' and c | 0x20 <= c'z'


cdef inline bint of_word(uint8_t c) noexcept nogil:
    """Of base64url."""
    return is_digit(c) or is_letter(c) or c == c'-' or c == c'_'


cdef inline uint8_t before(const edits_t* e, const uint8_t* p) noexcept nogil:
    """The character before `p`, or a blank: none is there, or one that is escaped, in JSON or as a part of a URL."""
    cdef uint8_t c
    if p == e.begin:
        return c' '
    c = (p - 1)[0]
    if p - e.begin > 2 and (p - 3)[0] == c'%' and (p - 2)[0] <= c'3' and is_digit((p - 2)[0]):
        return c' '         # a control character, a sign, or a digit that nobody encodes
    if (c == c'n' or c == c'r' or c == c't' or c == c'f' or c == c'b') and p - e.begin > 1 and (p - 2)[0] == c'\\':
        return c' '
    return c


cdef inline const uint8_t* behind_word(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and of_word(p[0]):
        p += 1
    return p


cdef void find_form(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    """Does a form begin at `p`, which scan.h takes for one? `out.kind` is 0 if not."""
    cdef uint8_t c = p[0]
    out.kind = 0
    out.begin = p
    out.end = out.seen = p + 1
    if is_digit(c):
        find_number(r, e, p, out)
    elif c == c'e':
        find_jwt(r, e, p, out)
    elif c == c'-':
        find_private_key(r, e, p, out)
    elif c == c':':
        find_user(r, e, p, out)
    else:
        if c | 0x20 == c'b':
            find_scheme(r, e, p, out)
        if out.kind == 0 and c >= c'A' and c <= c'Z':
            find_iban(r, e, p, out)
        if out.kind == 0:
            find_prefix(r, e, p, out)


cdef void find_jwt(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    """`eyJ` is `{"` in base64; signed ones have three parts, encrypted ones five."""
    cdef const uint8_t* end = e.end
    cdef const uint8_t* q
    cdef int parts = 1
    q = behind_word(p, end)
    out.seen = q
    if q == end and e.cut:
        if q - p >= CUT_TOKEN and not (of_word(before(e, p)) or before(e, p) == c'.'):
            out.kind = <uint32_t>r.kind_of[FORM_JWT]
            out.end = q
        return
    if q - p < JWT_LEAST or q == end or q[0] != c'.':
        return
    while parts < 5 and q < end and q[0] == c'.':
        parts += 1
        q = behind_word(q + 1, end)
        if parts == 2 and q - p < JWT_LEAST + 9 and not (q == end and e.cut):
            return
    if parts >= 3 or (q == end and e.cut):
        out.kind = <uint32_t>r.kind_of[FORM_JWT]
        out.end = out.seen = q


cdef void find_prefix(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    cdef const prefix_t* prefix
    cdef const uint8_t* q
    cdef const uint8_t* end = e.end
    cdef uint32_t i
    cdef size_t have = <size_t>(end - p)
    if r.prefix_many[p[0]] == 0 or of_word(before(e, p)):
        return
    for i in range(r.prefix_many[p[0]]):
        prefix = &r.prefixes[r.prefix_first[p[0]] + i]
        if have < prefix.length or prefix.text[1] != p[1]:
            continue
        if memcmp(p, prefix.text, prefix.length) != 0:
            continue
        q = p + prefix.length
        while q < end and r.allowed[q[0]] & prefix.bit:
            q += 1
        if q - p - prefix.length >= prefix.least or (q == end and e.cut and q - p - prefix.length >= CUT_TOKEN):
            out.kind = prefix.kind
            out.end = out.seen = q
            return
        if out.seen < q:
            out.seen = q


# ---- numbers

cdef inline uint32_t card_lengths(const uint8_t* d) noexcept nogil:
    """Bits: a card whose number begins with these four digits has so many. 0: there is none (the list of the ranges in use
    by brand: Visa 4; Mastercard 51-55, 2221-2720; American Express 34, 37; Diners Club 300-305, 36, 38; Discover 6011,
    644-649, 65; JCB 3528-3589; UnionPay 62; Maestro 50, 56-58, 6304, 6759, 676)."""
    cdef uint32_t two = (d[0] - c'0') * 10 + d[1] - c'0'
    cdef uint32_t four = two * 100 + (d[2] - c'0') * 10 + d[3] - c'0'
    if d[0] == c'4':
        return 1 << 16 | 1 << 19       # 13, which was, is a European article number now
    if two >= 51 and two <= 55 or four >= 2221 and four <= 2720:
        return 1 << 16
    if two == 34 or two == 37:
        return 1 << 15
    if two == 36 or two == 38 or four >= 3000 and four <= 3059:
        return 1 << 14 | 1 << 16
    if four == 6011 or two == 65 or four >= 6440 and four <= 6499 or four >= 3528 and four <= 3589:
        return 1 << 16 | 1 << 19
    if two == 62:
        return 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19
    if two == 50 or two >= 56 and two <= 58 or four == 6304 or four == 6759 or four // 10 == 676:
        return 1 << 16 | 1 << 18 | 1 << 19
    return 0


cdef bint luhn(const uint8_t* digits, uint32_t n) noexcept nogil:
    cdef uint32_t i, d, total = 0
    for i in range(n):
        d = digits[n - 1 - i] - c'0'
        if i & 1:
            d *= 2
            if d > 9:
                d -= 9
        total += d
    return total % 10 == 0


cdef bint is_negative(const edits_t* e, const uint8_t* minus) noexcept nogil:
    """A number of JSON below zero, which no card has."""
    cdef const uint8_t* q = minus
    while q > e.begin and is_blank((q - 1)[0]):
        q -= 1
    return q == e.begin or (q - 1)[0] == c':' or (q - 1)[0] == c',' or (q - 1)[0] == c'['


cdef void find_number(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    """A card's number: in one piece, or in groups of four or more with one kind of blank or dash between them."""
    cdef const uint8_t* end = e.end
    cdef const uint8_t* q = p
    cdef const uint8_t* run
    cdef uint8_t[20] digits
    cdef uint8_t c
    cdef uint32_t n = 0, group = 0, lengths
    cdef uint8_t between = 0
    while q < end and is_digit(q[0]):
        q += 1
    run = q
    out.seen = run      # of the digits in a row only the first can be the beginning
    if run - p >= 8 and run - p <= 19 and run < end and run[0] == c':':
        find_bot(r, e, p, run, out)
        if out.kind:
            return
    c = before(e, p)
    if is_digit(c) or is_letter(c) or c == c'_' or c == c'.' or c == c'%' or c == c'-' and is_negative(e, p - 1):
        return
    if run - p < 4 or run - p > 19:
        return
    if run - p < 12 and not (end - run > 1 and (run[0] == c' ' or run[0] == c'-') and is_digit(run[1])) and not (
            e.cut and end - run <= 1):
        return
    lengths = card_lengths(p)
    if lengths == 0:
        return
    q = p
    while q < end and n < 20:
        if is_digit(q[0]):
            digits[n] = q[0]
            n += 1
            group += 1
            q += 1
            continue
        if lengths >> n & 1 and not is_letter(q[0]) and luhn(digits, n):
            break
        if (q[0] != c' ' and q[0] != c'-') or (between and q[0] != between) or group < 3 or group > 7:
            break
        if end - q < 2 and e.cut:
            q = end
            break
        if end - q < 2 or not is_digit(q[1]):
            break
        between = q[0]
        group = 0
        q += 1
    if q == end and e.cut and n >= CUT_DIGITS and n < 20:
        out.kind = <uint32_t>r.kind_of[FORM_CARD]
        out.end = out.seen = end
        return
    if n > 19 or not lengths >> n & 1 or not luhn(digits, n):
        return
    if q < end and (is_digit(q[0]) or is_letter(q[0]) or q[0] == c'_' or (q[0] == c'.' and end - q > 1 and is_digit(q[1]))):
        return
    if p > e.begin + 1 and (p - 1)[0] == c'-' and is_digit((p - 2)[0]):
        return      # the end of a longer number, of a date or an identifier
    out.kind = <uint32_t>r.kind_of[FORM_CARD]
    out.end = out.seen = q


cdef void find_bot(const redaction_t* r, const edits_t* e, const uint8_t* p, const uint8_t* colon,
                   found_t* out) noexcept nogil:
    """Of Telegram: the number of a bot, a colon, 35 letters."""
    cdef const uint8_t* q = colon + 1
    cdef const uint8_t* end = e.end if e.end - q < BOT_LETTERS + 1 else q + BOT_LETTERS + 1
    q = behind_word(q, end)
    if q - colon - 1 == BOT_LETTERS or (q == e.end and e.cut and q - colon - 1 >= CUT_TOKEN * 2):
        out.kind = <uint32_t>r.kind_of[FORM_TELEGRAM]
        out.end = out.seen = q


cdef void find_iban(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    """Country, two check digits, letters and digits; in one piece or in groups of four."""
    cdef const uint8_t* end = e.end
    cdef const uint8_t* q = p
    cdef uint8_t[34] text
    cdef uint32_t n = 0, length, i, value
    cdef uint64_t rest = 0
    cdef uint8_t c
    if end - p < 5 or not (p[1] >= c'A' and p[1] <= c'Z') or not is_digit(p[2]) or not is_digit(p[3]):
        return
    if of_word(before(e, p)) or before(e, p) == c'.':
        return
    length = r.ibans[(p[0] - c'A') * 26 + p[1] - c'A']
    if length == 0:
        return
    while q < end and n < length:
        c = q[0]
        if is_digit(c) or c >= c'A' and c <= c'Z':
            text[n] = c
            n += 1
        elif (c != c' ' and c != c'-') or n % 4 or n == 0 or (q - 1)[0] == c:
            break
        q += 1
    if n < length:
        if q == end and e.cut and n >= CUT_TOKEN + 2:
            out.kind = <uint32_t>r.kind_of[FORM_IBAN]
            out.end = out.seen = end
        return
    if q < end and (is_digit(q[0]) or is_letter(q[0]) or q[0] == c'_'):
        return
    for i in range(length):
        c = text[(i + 4) % length]
        value = c - c'0' if is_digit(c) else c - c'A' + 10
        rest = (rest * (10 if value < 10 else 100) + value) % 97
    if rest == 1:
        out.kind = <uint32_t>r.kind_of[FORM_IBAN]
        out.end = out.seen = q


# ---- what has a word before it

cdef void find_private_key(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    """From its BEGIN to its END, or to the end of the text; in JSON with its line ends escaped, or all in one line."""
    cdef const uint8_t* end = e.end
    cdef const uint8_t* q = p
    cdef const uint8_t* last
    if p > e.done and (p - 1)[0] == c'-':
        return
    if end - p < 16 or memcmp(p, b"-----BEGIN ", 11) != 0:
        if (e.cut and end - p < 32 and end - p >= 5
                and memcmp(p, b"-----BEGIN ", <size_t>(11 if end - p > 11 else end - p)) == 0):
            out.kind = <uint32_t>r.kind_of[FORM_PRIVATE_KEY]
            out.end = out.seen = end
        return
    last = end if end - p < 64 else p + 64
    q = <const uint8_t*>memmem(p, <size_t>(last - p), b"PRIVATE KEY", 11)
    if q == NULL:
        out.seen = p + 11
        return
    q = <const uint8_t*>memmem(q, <size_t>(end - q if end - q < KEY_MOST else KEY_MOST), b"-----END ", 9)
    if q != NULL:
        last = end if end - q < 72 else q + 72
        q = <const uint8_t*>memmem(q + 9, <size_t>(last - q - 9), b"-----", 5)
    if q != NULL:
        out.end = q + 5
    else:       # without an end, the letters of base64 and what is between them
        q = p + 16
        while q < end and q[0] != c'"' and q[0] != c'<':
            q += 1
        while q < end and (q - 1)[0] == c'\\':      # the quote was escaped
            q -= 1
        out.end = q
    out.kind = <uint32_t>r.kind_of[FORM_PRIVATE_KEY]
    out.seen = out.end


cdef void find_scheme(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    """What follows `Bearer` or `Basic`; in prose these words are followed by words."""
    cdef const uint8_t* end = e.end
    cdef const uint8_t* q
    cdef const uint8_t* token
    cdef bint bearer
    cdef bint digits = False, small = False, large = False, other = False
    if is_letter(before(e, p)) or is_digit(before(e, p)):
        return
    if end - p > 7 and memcmp(p + 1, b"earer", 5) == 0:
        bearer = True
        token = p + 6
    elif end - p > 6 and memcmp(p + 1, b"asic", 4) == 0:
        bearer = False
        token = p + 5
    else:
        return
    if token[0] == c'%' and end - token > 3 and token[1] == c'2' and token[2] == c'0':
        token += 3
    elif token[0] == c' ' or token[0] == c'+':
        while token < end and token[0] == c' ' or token[0] == c'+':
            token += 1
    else:
        return
    q = token
    while q < end and (of_word(q[0]) or q[0] == c'.' or q[0] == c'~' or q[0] == c'+' or q[0] == c'/' or q[0] == c'='):
        if is_digit(q[0]):
            digits = True
        elif q[0] >= c'a' and q[0] <= c'z':
            small = True
        elif q[0] >= c'A' and q[0] <= c'Z':
            large = True
        elif q[0] == c'=' or q[0] == c'/' or q[0] == c'+':
            other = True
        q += 1
    out.seen = token
    if q == end and e.cut and q - token >= CUT_TOKEN:
        pass
    elif q - token < (BEARER_LEAST if bearer else BASIC_LEAST) or digits + small + large + other < 2:
        return
    elif not bearer and not (other or digits or has_capital_inside(token, q)):
        return
    out.kind = <uint32_t>r.kind_of[FORM_BEARER if bearer else FORM_BASIC]
    out.begin = token
    out.end = out.seen = q


cdef bint has_capital_inside(const uint8_t* p, const uint8_t* end) noexcept nogil:
    p += 1
    while p < end:
        if p[0] >= c'A' and p[0] <= c'Z':
            return True
        p += 1
    return False


cdef void find_user(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil:
    """The password of `://user:password@host`."""
    cdef const uint8_t* end = e.end
    cdef const uint8_t* q
    cdef const uint8_t* colon = NULL
    cdef const uint8_t* at = NULL
    if end - p < 3 or p[1] != c'/' or p[2] != c'/':
        return
    q = p + 3
    if end - q > URL_MOST:
        end = q + URL_MOST
    while q < end and q[0] > c' ' and q[0] != c'/' and q[0] != c'?' and q[0] != c'#' and q[0] != c'"' and q[0] != c'<' \
            and q[0] != c'\\' and q[0] != c'>' and q[0] != c"'":
        if q[0] == c':' and colon == NULL:
            colon = q
        elif q[0] == c'@':
            at = q
        q += 1
    out.seen = p + 3
    if colon == NULL:
        return
    if at == NULL and q == e.end and e.cut and not (colon + 1 < q and is_digit(colon[1])):
        at = q      # which may be further on
    if at != NULL and at > colon + 1:
        out.kind = <uint32_t>r.kind_of[FORM_URL]
        out.begin = colon + 1
        out.end = out.seen = at
