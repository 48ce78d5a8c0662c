"""What shards redact by: a policy's redaction as tables, and the parts of the work that need objects - keyed hashes, and
texts inside of texts.
"""

import array
import base64
import binascii
import codecs
import hashlib
import re
from urllib.parse import quote, unquote_to_bytes

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from collector.policy.model import Mode, Part
from collector.shards.redaction import known
from collector.shards.redaction.rules import Rules, apply
from collector.shards.redaction.edits cimport edits_begin, edits_end, edits_free
from collector.shards.redaction.names cimport learn, learn_last
from collector.shards.redaction.pairs cimport scan_pairs
from collector.shards.redaction.scan cimport scan_binary, scan_text
from collector.shards.redaction.sniffing cimport is_text
from collector.shards.redaction.state cimport *

cdef enum:
    HASH_BYTES = 8          # of a keyed hash: as many hexadecimal digits twice

_MODES = {Mode.OFF: MODE_OFF, Mode.SECRETS: MODE_SECRETS, Mode.STRICT: MODE_STRICT}
_FORM_KINDS = {
    FORM_JWT: known.JWT, FORM_CARD: known.CARD, FORM_IBAN: known.IBAN, FORM_PRIVATE_KEY: known.PRIVATE_KEY,
    FORM_BEARER: "bearer", FORM_BASIC: "basic", FORM_URL: known.URL_PASSWORD, FORM_TELEGRAM: "telegram_token",
    FORM_COOKIE: known.COOKIE, FORM_AUTHORIZATION: known.AUTHORIZATION, FORM_UNREAD: "unread",
}
# Three bytes with which forms begin, in groups (scan.h), as sets of bytes: beside those of known.PREFIXES.
_DIGITS, _LARGE = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ALL = bytes(range(256))
_BEGINNINGS = (
    (b"e", b"y", b"J"),
    (_LARGE, _LARGE, _DIGITS),
    (b"\\", b"u/", _ALL),
    (b"-", b"-", b"-"),
    (b":", b"/", b"/"),
    (b"%", b"0234567", _DIGITS + b"abcdefABCDEF"),
    (b"Bb", b"ae", b"as"),
)
# Which group each has, and the prefixes of products by their first three letters: so that together they take few other
# texts for a beginning (of documents and OpenAPI examples 1.6 % of all bytes; 20 % with some others).
_GROUPS = (0, 5, 3, 6, 3, 4, 2)
_PREFIX_GROUPS = {
    three: group
    for group, many in enumerate((
        "AIz NRA pyp xap xox",
        "ghp ghs gld glp glr gls gsk hvb hvs shp snt whs",
        "dap dck dop fig key",
        "PMA SG. SK",
        "AGE AKI ASI ATA GOC",
        "sq0 ya2",
        "ghu hf_ rk_ sk- sk_",
        "doo dor gho ghr git lin npm ntn",
    ))
    for three in many.split()
}  # fmt: skip
_PREFIX_GROUP = 1       # of others

_ESCAPE = re.compile(rb'\\(?:u([0-9a-fA-F]{4})|(.))', re.DOTALL)
_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_TO_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{4,}={0,2}")


def _undo(found):
    number, other = found.groups()
    if number is not None:
        return chr(int(number, 16)).encode("utf-8", "surrogatepass")
    return _SHORT.get(other, other)


@cython.final
cdef class Redactor:
    """``redaction``: of collector.policy.model. ``key``: values become keyed hashes (BLAKE2b, RFC 7693), 8 bytes in
    hexadecimal; empty: they do not. Raises ValueError for what does not fit.
    """

    cdef redaction_t state
    cdef readonly list kinds
    cdef list texts
    cdef bytes key
    cdef dict numbers
    cdef object rules
    cdef dict held          # by enum ruled_t: what was settled last
    cdef edits_t work       # of a text inside another one: taken in turn

    def __cinit__(self, redaction, bytes key=b""):
        memset(&self.state, 0, sizeof(redaction_t))
        memset(&self.work, 0, sizeof(edits_t))
        self.state.owner = <void*>self
        self.state.mode = <uint8_t>_MODES[redaction.mode]
        self.state.keyed = len(key) > 0
        self.key = hashlib.blake2b(key).digest() if key else b""
        self.kinds = [""]
        self.texts = [b""]
        self.numbers = {}
        self.held = {}
        self.rules = Rules(redaction) if redaction.rules else None
        self.state.ruled = self.rules is not None
        self.learn_names()
        self.learn_forms()

    def __dealloc__(self):
        edits_free(&self.work)

    def address(self):
        """Of the tables, for functions of this package."""
        return <size_t>&self.state

    cdef uint32_t number_of(self, kind) except 0:
        cdef bytes text
        number = self.numbers.get(kind)
        if number is None:
            number = len(self.kinds)
            if number >= KINDS:
                raise ValueError(f"more than {KINDS} kinds of secrets")
            self.numbers[kind] = number
            self.kinds.append(kind)
            text = b"[redacted:" + kind.encode() + b"]"
            self.texts.append(text)
            self.state.kind_text[<uint32_t>number] = <const char*>text
            self.state.kind_length[<uint32_t>number] = <uint32_t>len(text)
            self.state.numbers[<uint32_t>number] = kind in known.NUMBERS
            self.state.whole[<uint32_t>number] = kind in known.WHOLE_OBJECTS
        return number

    def learn_names(self):
        for kind, names in known.ENDINGS.items():
            for name in names:
                for case in {name, name.upper(), name.title()} if not name.isascii() else {name}:
                    apart = len(name.replace(" ", "")) <= 3 or name in ("clave", "parola", "totp", "cvv2", "cvc2", "pass")
                    learn(&self.state, case, self.number_of(kind), NAME_ENDING | (NAME_APART if apart else 0) | NAME_WHOLE)
        for listed in (known.WHOLE, known.HEADERS):
            for kind, names in listed.items():
                for name in names:
                    learn(&self.state, name, self.number_of(kind), NAME_WHOLE)
        for name in known.NOT_SECRET:
            learn(&self.state, name, 0, NAME_NOT)
        for name in ("name", "key"):
            learn(&self.state, name, 0, NAME_PAIR)
        learn_last(&self.state, "value")

    def learn_forms(self):
        cdef uint32_t i = 0, at
        cdef prefix_t* prefix
        classes = sorted({letters for _kind, _text, letters, _least in known.PREFIXES})
        for form, kind in _FORM_KINDS.items():
            self.state.kind_of[<uint32_t>form] = self.number_of(kind)
        for number, letters in enumerate(classes):
            pattern = re.compile(f"[{letters}]".encode())
            for at in range(256):
                if pattern.match(bytes([at])):
                    self.state.allowed[at] |= 1 << number
        for kind, text, letters, least in sorted(known.PREFIXES, key=lambda one: one[1]):
            if self.state.prefix_many[<uint8_t>ord(text[0])] == 0:
                self.state.prefix_first[<uint8_t>ord(text[0])] = <uint8_t>i
            self.state.prefix_many[<uint8_t>ord(text[0])] += 1
            prefix = &self.state.prefixes[i]
            data = text.encode()
            memcpy(prefix.text, <const char*>data, len(data))
            prefix.length = <uint8_t>len(data)
            prefix.least = least
            prefix.kind = <uint16_t>self.number_of(kind)
            prefix.bit = 1 << classes.index(letters)
            third = data[2:3] if len(data) > 2 else b"0123456789abcdef"
            self.learn_beginning(_PREFIX_GROUPS.get(text[:3], _PREFIX_GROUP), data[:1], data[1:2], third)
            i += 1
        for group, three in zip(_GROUPS, _BEGINNINGS, strict=True):
            self.learn_beginning(group, *three)
        for text in known.IBANS.split():
            self.state.ibans[(ord(text[0]) - 65) * 26 + ord(text[1]) - 65] = <uint8_t>int(text[2:])

    def learn_beginning(self, group, *three):
        cdef uint32_t i, c, h
        cdef uint8_t bit = <uint8_t>(1 << group)
        cdef beginnings_t* b = &self.state.beginnings
        for i, letters in enumerate(three):
            for c in letters:
                b.low[i][c & 15] |= bit
                b.high[i][c >> 4] |= bit
        for i in range(3):
            for c in range(256):
                h = c >> 4
                b.any[i][c] = b.low[i][c & 15] & b.high[i][h]

    def rule_number(self, bytes host, bytes target):
        """Of the rules in force for a request; 0: none are."""
        return self.rules.number(host, target)

    def settled(self, int what, bytes name, bytes text):
        """What the rules in force say of a text: (the text redacted, what is settled in it, how many values), or None."""
        rules = self.rules.set_of(self.state.rules)
        if what == RULED_FIELD:
            values = rules.field(name, text)
        elif what == RULED_TARGET:
            values = rules.target(text)
        else:
            values = rules.pairs(text, Part.NAME) if what == RULED_FORM else rules.body(text)
        if not values:
            return None
        out, kept, count = apply(text, values, self.named)
        self.held[what] = out, array.array("I", kept), count    # what points to them is used before the next one
        return self.held[what]

    def named(self, kind, bytes value):
        """What a value becomes for which a rule has a name."""
        return self.replacement(self.number_of(kind), value)

    # ---- what edits.pyx and scan.pyx ask for

    def replacement(self, uint32_t kind, bytes value):
        """What a value becomes."""
        cdef bytes text = self.texts[kind]
        if not self.state.keyed:
            return text
        digest = hashlib.blake2b(value, digest_size=HASH_BYTES, key=self.key).hexdigest()
        return text[:len(text) - 1] + b":" + digest.encode() + b"]"

    cdef tuple scanned(self, bytes text, bint cut, int depth, bint names):
        """(the text redacted, how many values), or None when there is nothing."""
        cdef edits_t e = self.work
        cdef const uint8_t* p = text
        memset(&self.work, 0, sizeof(edits_t))      # a text inside this one has memory of its own
        edits_begin(&e, p, p + len(text), cut, depth)
        if names:
            scan_text(&self.state, &e)
        else:
            scan_binary(&self.state, &e)
        try:
            if e.failed:
                raise MemoryError
            if not edits_end(&e):
                return None
            if e.failed:
                raise MemoryError
            return PyBytes_FromStringAndSize(e.data, <Py_ssize_t>e.len), e.count
        finally:
            edits_free(&self.work)
            self.work = e

    def text(self, bytes text, bint cut=False):
        """A whole text, as a body: the text redacted. ``cut``: it goes on."""
        found = self.scanned(text, cut, 0, True)
        return text if found is None else found[0]

    def form(self, bytes text, bint cut=False):
        """The same of a query or form."""
        cdef edits_t e
        cdef const uint8_t* p = text
        memset(&e, 0, sizeof(edits_t))
        edits_begin(&e, p, p + len(text), cut, 0)
        scan_pairs(&self.state, &e, c'&')
        out = PyBytes_FromStringAndSize(e.data, <Py_ssize_t>e.len) if edits_end(&e) and not e.failed else text
        edits_free(&e)
        return out

    def unescaped(self, bytes text, bint cut, int depth):
        """A text of JSON with escapes: (redacted and escaped again, how many values), or None."""
        found = self.scanned(_ESCAPE.sub(_undo, text), cut, depth, True)
        if found is None:
            return None
        return _TO_ESCAPE.sub(lambda one: b"\\u%04x" % one.group()[0], found[0]), found[1]

    def plain_name(self, bytes name):
        """A name without its escapes."""
        return _ESCAPE.sub(_undo, name)

    def unquoted(self, bytes text, bint cut, int depth):
        """The same of a word of a URL."""
        plain = unquote_to_bytes(text)
        found = self.scanned(plain, cut, depth, True)
        if found is None:
            return None
        return quote(found[0], safe="[]:/").encode(), found[1]

    def percent_decoded(self, bytes text):
        """A name without percent-encoding."""
        return unquote_to_bytes(text)

    def of_pair(self, bytes text, bint cut, int depth):
        """The same of a value of a query or form."""
        if b"%" not in text and b"+" not in text:
            return self.scanned(text, cut, depth, True)
        if depth > DEPTH:
            return None
        found = self.scanned(unquote_to_bytes(text.replace(b"+", b" ")), cut, depth, True)
        if found is None:
            # a plus may be one
            found = self.scanned(unquote_to_bytes(text), cut, depth, True) if b"+" in text else None
            if found is None:
                return None
        return quote(found[0], safe="[]:/").encode(), found[1]

    def unbase64(self, bytes text, bint cut, int depth):
        """The same of letters of base64."""
        row = text.rstrip(b"=")
        url = b"-" in row or b"_" in row
        whole = row[: len(row) - 1] if len(row) % 4 == 1 else row + b"=" * ((4 - len(row) % 4) % 4)
        try:
            plain = base64.b64decode(whole, b"-_" if url else None, validate=True)
        except (ValueError, binascii.Error):
            return None
        found = self.scanned(plain, cut, depth, True)
        if found is None:
            return None
        out = base64.b64encode(found[0], b"-_" if url else None)
        return (out if len(text) % 4 == 0 else out.rstrip(b"=")), found[1]

    def utf16(self, bytes data, bint cut):
        """A text in UTF-16 that nobody has said to be one: redacted in UTF-16."""
        mark = data[:2] if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else b""
        big = mark == codecs.BOM_UTF16_BE or (not mark and data[0:64:2].count(0) > data[1:64:2].count(0))
        name = "utf-16-be" if big else "utf-16-le"
        found = self.scanned(data[len(mark):].decode(name, "replace").encode(), cut, 0, True)
        if found is None:
            return None
        return mark + found[0].decode("utf-8", "replace").encode(name), found[1]

    def messages(self, bytes payload, bint cut):
        """Messages in base64, one or a JSON array of them (records/messages.py): likewise. ``cut``: the last one goes on."""
        count = 0
        last = len(payload.rstrip(b'"]')) if cut else -1

        def one(found):
            cdef bytes data
            nonlocal count
            try:
                data = base64.b64decode(found.group())
                # texts have names; their length may be another one, for none stands beside them
                text = is_text(<const uint8_t*><const char*>data, <size_t>len(data))
                changed = self.scanned(data, found.end() == last, 1, text)
            except (ValueError, binascii.Error):
                return found.group()
            if changed is None:
                return found.group()
            count += changed[1]
            return base64.b64encode(changed[0])

        out = _BASE64.sub(one, payload)
        return (out, count) if count else None
