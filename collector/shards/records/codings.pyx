# distutils: libraries = z
"""gzip, deflate and the frames of zstd, seen from below: where a body's coding ends, and what it costs to undo.

A body of a few bytes can ask for milliseconds: blocks that only describe their codes, thousands of empty members or
frames. So what is done is counted where it is done - members, blocks, bytes in and out - in units of WORK, one of which
is about a nanosecond of a 3 GHz core at worst; nothing here looks at a clock, so that the same bytes always cost the
same. content.py says what happens beyond an allowance.

zlib is called by itself and not by Python's module, because only so its state can be kept from body to body
(inflateReset2) and only so it stops at each block (Z_BLOCK). zstd is left to its package; its frames are walked here
(RFC 8878 section 3.1), which takes no decoding.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from collector.shards.records.zlib cimport *

# How a decoder ended
ENDED, CUT, LONGER, BROKEN, OVER = range(5)
# Prices: what each costs at worst, measured (docs/decisions/0013)
cdef enum:
    WORK_MEMBER = 300           # a state made new, head and checksum of a gzip member
    WORK_FRAME = 200            # zstd: a frame, or one to be skipped
    WORK_ZSTD_BLOCK = 4000      # the codes of a compressed block; of a short one less:
    WORK_ZSTD_BLOCK_BYTE = 100
    WORK_PLAIN_BLOCK = 100      # a raw one, or one byte repeated
    WORK_ZSTD_IN = 3
    OUT_STEP = 16384            # of output at a time


cdef inline bint gzip_member(const uint8_t* p, size_t n) noexcept nogil:
    """Does a member (RFC 1952 section 2.3) begin here, as far as it can be seen?"""
    return n >= 2 and p[0] == 0x1F and p[1] == 0x8B and (n < 3 or p[2] == 8) and (n < 4 or not p[3] & 0xE0)


@cython.final
cdef class Inflater:
    """gzip, zlib and raw deflate, one body after another."""

    def __dealloc__(self):
        if self.made:
            inflateEnd(&self.stream)
        free(self.out)

    cdef int begin(self, int window_bits) except -1:
        cdef int code
        if self.made:
            code = inflateReset2(&self.stream, window_bits)
        else:
            memset(&self.stream, 0, sizeof(z_stream))
            code = inflateInit2(&self.stream, window_bits)
            self.made = code == Z_OK
        if code != Z_OK:
            raise MemoryError
        return 0

    cdef int reserve(self, size_t room) except -1:
        cdef uint8_t* p
        if room > self.room:
            p = <uint8_t*>realloc(self.out, room)
            if p == NULL:
                raise MemoryError
            self.out = p
            self.room = room
        return 0

    def undo(self, bytes data not None, int window_bits, size_t limit, int64_t allowance, bint members):
        """(output, how it ended, bytes behind the end, work). At most ``limit`` bytes of output. ``members``: further
        ones may follow (gzip). Output of a body that is broken or costs too much is empty."""
        cdef size_t done = 0, left = 0
        cdef int64_t work = 0
        cdef int ended = self.run(<const uint8_t*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), window_bits,
                                  limit, allowance, members, &done, &left, &work)
        return PyBytes_FromStringAndSize(<char*>self.out, <Py_ssize_t>done), ended, left, work

    cdef int run(self, const uint8_t* start, size_t size, int window_bits, size_t limit, int64_t allowance, bint members,
                 size_t* made, size_t* behind, int64_t* worked) except -1:
        """As `undo`; the output, `made` bytes, is in `out` up to the next call."""
        cdef size_t done = 0, left = size, block, room
        cdef int64_t work = 0
        cdef int code, ended = CODED_CUT
        cdef bint head
        if size > 0x40000000 or limit > 0x40000000:
            raise ValueError("a body of more than 1 GiB")
        while left and (size == left or (members and gzip_member(start + (size - left), left))):
            self.begin(window_bits)
            work += WORK_MEMBER
            ended = CODED_CUT
            self.stream.next_in = <unsigned char*>start + (size - left)
            self.stream.avail_in = <unsigned>left
            block = left
            head = window_bits > 0      # zlib stops behind it too
            while True:
                room = min(limit + 1, (done // OUT_STEP + 1) * OUT_STEP)
                self.reserve(room)
                self.stream.next_out = self.out + done
                self.stream.avail_out = <unsigned>(room - done)
                with nogil:
                    code = inflate(&self.stream, Z_BLOCK)
                done = room - self.stream.avail_out
                work += <int64_t>(left - self.stream.avail_in) * WORK_IN
                left = self.stream.avail_in
                if self.stream.data_type & 128 or code == Z_STREAM_END:
                    if not head:
                        work += min(<int64_t>WORK_BLOCK, <int64_t>(block - left) * WORK_BLOCK_BYTE)
                    head = False
                    block = left
                if done > limit:
                    ended = CODED_LONGER
                elif code == Z_STREAM_END:
                    ended = CODED_ENDED
                elif code == Z_BUF_ERROR and left == 0:
                    pass
                elif code != Z_OK:
                    ended = CODED_BROKEN
                elif work + <int64_t>(done >> 1) <= allowance:
                    continue
                break
            if ended != CODED_ENDED or work + <int64_t>(done >> 1) > allowance:
                break
        work += <int64_t>(done >> 1)
        if work > allowance:
            ended = CODED_OVER
        elif size == 0:
            ended = CODED_ENDED
        if ended == CODED_BROKEN or ended == CODED_OVER:
            done = left = 0
        elif ended == CODED_LONGER:
            done = limit
        made[0] = done
        behind[0] = left if ended == CODED_ENDED else 0
        worked[0] = work
        return ended


def zstd_frames(bytes data not None, int64_t allowance):
    """(bytes of whole frames, how it ended, work of decoding them without the bytes that they give). Frames follow one
    another, and some are to be skipped; what is left behind the end is no frame."""
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(data), at = 0, place, step
    cdef int64_t work = 0
    cdef uint32_t magic, block
    cdef uint8_t descriptor
    while size - at >= 4:
        magic = start[at] | <uint32_t>start[at + 1] << 8 | <uint32_t>start[at + 2] << 16 | <uint32_t>start[at + 3] << 24
        if magic & 0xFFFFFFF0 == 0x184D2A50:
            if size - at < 8:
                return at, CODED_CUT, work
            step = start[at + 4] | <size_t>start[at + 5] << 8 | <size_t>start[at + 6] << 16 | <size_t>start[at + 7] << 24
            work += WORK_FRAME
            if size - at - 8 < step:
                return at, CODED_CUT, work
            at += 8 + step
        elif magic == 0xFD2FB528:
            work += WORK_FRAME
            if size - at < 5:
                return at, CODED_CUT, work
            descriptor = start[at + 4]
            # window, dictionary, content size (sections 3.1.1.1.2 to 3.1.1.1.4)
            place = at + 5 + (not descriptor & 0x20) + (4 if descriptor & 3 == 3 else descriptor & 3)
            place += <size_t>1 << (descriptor >> 6) if descriptor >> 6 else (descriptor & 0x20) != 0
            while True:
                if place > size or size - place < 3:
                    return at, CODED_CUT, work
                block = start[place] | <uint32_t>start[place + 1] << 8 | <uint32_t>start[place + 2] << 16
                step = 1 if block >> 1 & 3 == 1 else block >> 3
                work += WORK_PLAIN_BLOCK
                if block >> 1 & 3 == 2:
                    work += min(<int64_t>WORK_ZSTD_BLOCK, <int64_t>step * WORK_ZSTD_BLOCK_BYTE)
                if work > allowance:
                    return at, CODED_OVER, work
                place += 3
                if size - place < step:
                    return at, CODED_CUT, work + <int64_t>(size - place) * WORK_ZSTD_IN
                work += <int64_t>step * WORK_ZSTD_IN
                place += step
                if block & 1:
                    break
            if descriptor & 4:
                if size - place < 4:
                    return at, CODED_CUT, work
                place += 4
            at = place
        else:
            break
        if work > allowance:
            return at, CODED_OVER, work
    if at or not size:
        return at, CODED_ENDED, work
    return at, CODED_CUT if size < 4 else CODED_BROKEN, work
