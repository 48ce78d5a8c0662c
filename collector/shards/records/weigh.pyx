"""What a protobuf message would cost as JSON, from its bytes alone, before anything is made of it.

A message of 64 KiB can be 32,768 messages that are empty, each of them an object with room for all fields of its type; it
can be nested, and say in an Any that what follows is nested again. So it is walked first, with the shapes of its types,
which costs some nanoseconds a field (https://protobuf.dev/programming-guides/encoding/), and what is too much or too deep is
not begun.

Work is counted in units of about a nanosecond (docs/decisions/0013). The prices are those of google.protobuf.json_format,
which makes the JSON: measured, and a half more.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t

from collector.shards.records.text cimport utf8_length

cdef enum:  # wire type
    VARINT = 0
    FIXED64 = 1
    LENGTH = 2
    GROUP = 3
    GROUP_END = 4
    FIXED32 = 5

cdef enum:  # of an element that stands alone: the wire type, or
    ENUM = 8            # VARINT
    STRING = 9          # LENGTH, as these
    PATH = 10           # of a FieldMask, whose bytes are looked at in Python
    BYTES = 11

cdef enum:
    WORK_MESSAGE = 2000         # an object, a dictionary, the type's name looked up
    WORK_WELL_KNOWN = 6000      # one that has a form of its own: a time, an Any
    WORK_FIELD = 800            # a field, an element, a key of a map
    WORK_ENUM = 1500
    WORK_PATH_BYTE = 150
    WORK_BYTE = 15              # of a string: checked, copied, searched for what must be escaped
    WORK_TAG = 40               # walking itself
    MOST_DEPTH = 100            # as google.protobuf has it for parsing; an Any counts as what is in it
    MOST_ROOM = 16777216        # bytes that a message may take in memory, its strings aside
    ROOM_MESSAGE = 400          # of each: the library's object, Python's, a dictionary
    ROOM_FIELD = 16             # of each field of the type, whether it is there or not
    ROOM_ELEMENT = 64
    MOST_NUMBER = 536870911


cdef class Shape:
    """A type, as far as weighing goes. ``ask()`` gives its fields, when they are first needed: (number, is it repeated, its
    wire type when it stands alone or one of ENUM to BYTES, the shape of what it holds or None).

    ``name``: of the type; ``opaque``: of a form that cannot be weighed, so refused.
    """

    cdef object ask
    cdef dict fields
    cdef int64_t room
    cdef int64_t work
    cdef bint is_any
    cdef bint opaque

    def __init__(self, ask, str name, bint opaque=False):
        self.ask = ask
        self.work = WORK_WELL_KNOWN if name.startswith("google.protobuf.") else WORK_MESSAGE
        self.is_any = name == "google.protobuf.Any"
        self.opaque = opaque

    cdef int fill(self) except -1:
        self.fields = {}
        for number, repeated, alone, shape in self.ask():
            self.fields[number] = _Field(repeated, alone, shape)
        self.room = ROOM_MESSAGE + ROOM_FIELD * <int64_t>len(self.fields)
        self.ask = None
        return 0


cdef class _Field:
    cdef bint repeated
    cdef uint8_t alone
    cdef Shape shape

    def __init__(self, bint repeated, uint8_t alone, Shape shape):
        self.repeated = repeated
        self.alone = alone
        self.shape = shape


cdef class Scale:
    """Weighs one message after the other. ``named(type_url)``: the shape of what an Any says it holds, or None."""

    cdef object named
    cdef const uint8_t* at
    cdef int64_t work
    cdef int64_t most
    cdef int64_t room
    cdef bint merged        # a message is in two pieces, which are weighed for themselves...
    cdef bint any_seen      # ...and one that has an Any may be another one when they are put together

    def __init__(self, named):
        self.named = named

    def weigh(self, Shape shape, bytes message, int64_t most):
        """(may it be made into JSON?, work, of what is made of it or of weighing it). ``most``: of work."""
        cdef const uint8_t* p = <const uint8_t*><const char*>message
        cdef bint fits
        self.at = p
        self.most = most
        self.work = self.room = 0
        self.merged = self.any_seen = False
        fits = self.walk(shape, p + len(message), 0, 0)
        fits = fits and self.work <= most and self.room <= MOST_ROOM and not (self.merged and self.any_seen)
        return fits, self.work if fits else <int64_t>len(message) * WORK_TAG

    cdef bint varint(self, const uint8_t* end, uint64_t* value) noexcept:
        cdef int shift = 0
        cdef uint8_t byte
        value[0] = 0
        while self.at < end and shift < 70:
            byte = self.at[0]
            self.at += 1
            value[0] |= <uint64_t>(byte & 0x7F) << (shift if shift < 64 else 63)
            if byte < 0x80:
                return True
            shift += 7
        return False

    cdef bint walk(self, Shape shape, const uint8_t* end, uint64_t group, int depth) except? False:
        """Over a message up to ``end``, or up to the end of this group (0: none). None: a type that nobody knows."""
        cdef uint64_t tag, number, n, seen = 0, bit
        cdef int wire
        cdef _Field field
        cdef const uint8_t* url = NULL
        cdef const uint8_t* value = NULL
        cdef uint64_t url_bytes = 0, value_bytes = 0
        if depth > MOST_DEPTH:
            return False
        if shape is not None:
            if shape.fields is None:
                shape.fill()
            if shape.opaque:
                return False
            self.room += shape.room
            self.work += shape.work
        while self.at < end:
            if self.work > self.most or self.room > MOST_ROOM or not self.varint(end, &tag):
                return False
            wire = <int>(tag & 7)
            number = tag >> 3
            if number == 0 or number > MOST_NUMBER:
                return False
            if wire == GROUP_END:
                return number == group
            self.work += WORK_TAG
            field = None if shape is None else <_Field>shape.fields.get(number)
            if wire == VARINT or wire == FIXED32 or wire == FIXED64:
                if field is not None:
                    self.element(field, 1)
                n = 4 if wire == FIXED32 else 8
                if wire == VARINT:
                    if not self.varint(end, &n):
                        return False
                elif n > <uint64_t>(end - self.at):
                    return False
                else:
                    self.at += n
                continue
            if field is not None and field.shape is not None and not field.repeated:
                bit = <uint64_t>1 << (number & 63)
                self.merged = self.merged or seen & bit != 0
                seen |= bit
            if wire == GROUP:
                if not self.walk(None if field is None else field.shape, end, number, depth + 1):
                    return False
                continue
            if wire != LENGTH or not self.varint(end, &n) or n > <uint64_t>(end - self.at):
                return False
            if field is None:
                self.at += n
            elif field.shape is not None:
                if not self.walk(field.shape, self.at + n, 0, depth + 1):
                    return False
            else:
                if shape.is_any and number == 1:
                    url, url_bytes = self.at, n
                elif shape.is_any and number == 2:
                    value, value_bytes = self.at, n
                if not self.string_or_packed(field, n):
                    return False
        if group:
            return False
        return value_bytes == 0 or self.inner(url, url_bytes, value, value_bytes, depth)

    cdef inline void element(self, _Field field, int64_t count) noexcept:
        self.work += count * (WORK_ENUM if field.alone == ENUM else WORK_FIELD)
        self.room += count * ROOM_ELEMENT

    cdef bint string_or_packed(self, _Field field, uint64_t n) noexcept:
        """At n bytes of a string or of elements without tags. False for a string that is no UTF-8: where the library takes
        one, it makes something else of it."""
        cdef int64_t count = 0
        cdef const uint8_t* end = self.at + n
        cdef int length = 1
        if field.alone >= STRING:
            self.element(field, 1)
            self.work += <int64_t>n * (WORK_PATH_BYTE if field.alone == PATH else WORK_BYTE)
            while field.alone < BYTES and length > 0 and self.at < end:
                length = 1 if self.at[0] < 0x80 else utf8_length(self.at, end)
                self.at += length
            if length <= 0:
                return False
        elif field.alone == VARINT or field.alone == ENUM:
            while self.at < end:
                count += self.at[0] < 0x80
                self.at += 1
            self.element(field, count)
        else:
            self.element(field, <int64_t>n // (4 if field.alone == FIXED32 else 8))
        self.at = end
        return True

    cdef bint inner(self, const uint8_t* url, uint64_t url_bytes, const uint8_t* value, uint64_t n, int depth) except? False:
        """What is in an Any."""
        cdef const uint8_t* after = self.at
        cdef bint fits
        shape = self.named(PyBytes_FromStringAndSize(<const char*>url, <Py_ssize_t>url_bytes)) if url != NULL else None
        if shape is None:
            return False
        self.any_seen = True
        self.at = value
        fits = self.walk(shape, value + n, 0, depth + 1)
        self.at = after
        return fits
