"""What leaves a shard, for those who look at it: `collector tail` and `collector top`.

The packer hands each batch over as it is taken, before it is framed for Kafka: lines of JSON, exactly as they are
delivered. Each is looked at once (scan.pyx), held against what every viewer wants, copied for those whom it fits, and
counted (tally.pyx). While nobody looks there is no Tap, and a batch costs one comparison.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memset

from cpython.bytes cimport PyBytes_FromStringAndSize

from collector.shards.eyes.scan cimport (
    F_DIRECTION, F_HEADERS, F_PATH, F_PROCESS_ID, F_PROCESS_NAME, F_STATUS, FIELD_LENGTHS, FIELD_NAMES, number_of, scan,
    seen_t, text_t, unit)
from collector.shards.eyes.tally cimport Tally
from collector.shards.memory cimport buf_append, buf_free, buf_reserve
from collector.shards.records.text cimport put_text

from collector.viewing import pattern

cdef enum:
    KEEP_BYTES = 512 << 10   # of lines, from one batch to the next


cdef bint fits(const glob_t* glob, const text_t* text) noexcept nogil:
    """Does the whole text fit? After a star the shortest possible part is tried first, and only the last star is ever moved
    on: at most (length of the pattern) x (length of the text) steps."""
    cdef const uint8_t* p = text.p
    cdef const uint8_t* end = text.p + text.n
    cdef const uint8_t* again = NULL    # where the text went on behind the last star
    cdef size_t at = 0, star = 0
    if glob.n == 0:
        return True
    if p == NULL:
        return False
    while p < end:
        if at < glob.n and glob.text[at] == c'*':
            at += 1
            star = at
            again = p
        elif at < glob.n and glob.text[at] == c'?':
            at += 1
            p += unit(p, end)
        elif at < glob.n and glob.text[at] == p[0]:
            at += 1
            p += 1
        elif again != NULL:
            again += 1
            p = again
            at = star
        else:
            return False
    while at < glob.n and glob.text[at] == c'*':
        at += 1
    return at == glob.n


cdef bint path_fits(const glob_t* glob, const text_t* path) noexcept nogil:
    """With its query, or without."""
    cdef text_t bare
    cdef const void* query
    if fits(glob, path):
        return True
    if path.p == NULL:
        return False
    query = memchr(path.p, c'?', path.n)
    if query == NULL:
        return False
    bare.p = path.p
    bare.n = <size_t>(<const uint8_t*>query - path.p)
    return fits(glob, &bare)


cdef inline bint wanted(const view_t* view, const seen_t* seen) noexcept nogil:
    """Is it for this viewer? The cheapest questions first."""
    cdef const text_t* direction = &seen.field[F_DIRECTION]
    cdef uint64_t code
    if view.direction and (direction.n != 1 or direction.p[0] != view.direction):
        return False
    if view.some_codes:
        code = number_of(&seen.field[F_STATUS])
        if code >= CODES or not view.codes[code]:
            return False
    if view.process_id and number_of(&seen.field[F_PROCESS_ID]) != view.process_id:
        return False
    return (fits(&view.process, &seen.field[F_PROCESS_NAME]) and fits(&view.host, &seen.host)
            and path_fits(&view.path, &seen.field[F_PATH]))


cdef int put_short(Tap tap, view_t* view, const seen_t* seen) noexcept:
    """The fields that viewers go by, as an object of JSON. 0, or -1 when memory is out."""
    cdef char* out
    cdef size_t i, most = seen.host.n + 64
    for i in range(F_HEADERS):
        most += FIELD_LENGTHS[i] + seen.field[i].n + 8
    if buf_reserve(&tap.pool, &view.lines, most) < 0:
        return -1
    out = put_text(view.lines.data + view.lines.len, b'{"host":"')
    if seen.host.n:
        memcpy(out, seen.host.p, seen.host.n)
        out += seen.host.n
    for i in range(F_HEADERS):
        if seen.field[i].p != NULL:
            out = put_text(put_text(put_text(out, b'","'), FIELD_NAMES[i]), b'":"')
            memcpy(out, seen.field[i].p, seen.field[i].n)
            out += seen.field[i].n
    out = put_text(out, b'"}\n')
    view.lines.len = <uint32_t>(out - view.lines.data)
    return 0


cdef void set_glob(glob_t* glob, bytes text):
    """Raises ValueError for one that is too long."""
    if len(text) > GLOB_MOST:
        raise ValueError("the pattern is too long")
    glob.n = len(text)
    memcpy(&glob.text[0], <const char*>text, glob.n)


cdef class Tap:
    """Not thread-safe. Viewers have numbers above zero, given by the supervisor."""

    def __cinit__(self):
        memset(&self.views[0], 0, sizeof(self.views))

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(VIEWS):
            buf_free(&self.pool, &self.views[i].lines)

    def watch(self, uint32_t number, request not None):
        """Begin to collect lines for a viewer (collector.viewing.Request). Raises ValueError when all places are taken."""
        cdef uint32_t i
        cdef view_t* view
        cdef bytes codes = request.codes()
        cdef str process = request.process
        for i in range(VIEWS):
            if self.views[i].number == 0:
                break
        else:
            raise ValueError("too many viewers")
        view = &self.views[i]
        memset(view, 0, sizeof(view_t))
        view.whole = request.whole
        view.direction = c'0' + <uint8_t>request.direction if request.direction else 0
        if process.isdecimal() and process.isascii():
            view.process_id = int(process)
        else:
            set_glob(&view.process, pattern(process))
        set_glob(&view.host, pattern(request.host.lower()))
        set_glob(&view.path, pattern(request.path))
        view.some_codes = len(codes) > 0
        memcpy(&view.codes[0], <const char*>codes, len(codes))
        view.number = number
        self.used = max(self.used, i + 1)

    def forget(self, uint32_t number):
        """The viewer has gone."""
        cdef uint32_t i
        for i in range(VIEWS):
            if self.views[i].number == number:
                buf_free(&self.pool, &self.views[i].lines)
                self.views[i].number = 0
        while self.used and self.views[self.used - 1].number == 0:
            self.used -= 1

    def count_figures(self, bint on):
        """Begin to count for those who want figures, or stop."""
        if not on:
            self.tally = None
        elif self.tally is None:
            self.tally = Tally()

    def lines(self, uint32_t number):
        """(lines, how many, how many there was no memory for) that have come together for a viewer since the last call."""
        cdef uint32_t i
        cdef view_t* view
        for i in range(self.used):
            view = &self.views[i]
            if view.number == number:
                out = (PyBytes_FromStringAndSize(view.lines.data, view.lines.len), view.count, view.lost)
                view.count = view.lost = view.lines.len = 0
                if view.lines.cap > KEEP_BYTES:
                    buf_free(&self.pool, &view.lines)
                return out
        return b"", 0, 0

    def figures(self):
        """Tally.take."""
        return self.tally.take() if self.tally is not None else []

    def feed(self, const uint8_t[::1] records not None):
        """As the packer does. For tests."""
        if records.shape[0]:
            self.see(&records[0], records.shape[0])

    cdef void see(self, const uint8_t* records, size_t n) noexcept:
        """Records that leave: lines, each with its newline."""
        cdef const uint8_t* p = records
        cdef const uint8_t* end = records + n
        cdef const uint8_t* stop
        cdef seen_t seen
        cdef view_t* view
        cdef uint32_t i
        while p < end:
            stop = <const uint8_t*>memchr(p, c'\n', <size_t>(end - p))
            if stop == NULL:
                return
            if scan(p, stop, &seen):
                if self.tally is not None:
                    self.tally.add(&seen)
                for i in range(self.used):
                    view = &self.views[i]
                    if view.number == 0 or not wanted(view, &seen):
                        continue
                    if (buf_append(&self.pool, &view.lines, p, <size_t>(stop - p) + 1) if view.whole else
                            put_short(self, view, &seen)) == 0:
                        view.count += 1
                    else:
                        view.lost += 1
            p = stop + 1
