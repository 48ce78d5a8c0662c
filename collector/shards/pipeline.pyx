"""One shard, without process, socket or clock: spans of events in, batches of records out.

    Pipeline.feed(span)      every event of a span, in order (walk -> connection -> dissector -> record)
    Pipeline.tick(now_ns)    timers, when no event moves the time
    Pipeline.take()          the records that are ready
    Pipeline.close_all()     the end: everything that waits is recorded as it stands

Time is event time (CLOCK_MONOTONIC of the capturing host, ns), so recorded traffic gives the same records as live.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from collector.abi cimport *
from collector.shards.connections.table cimport *
from collector.shards.dissectors.http1.messages cimport (
    http1_data, http1_end, http1_hole, http1_idle, http1_quiet, http1_reset, http1_unwanted,
    http1_was_reset, pop_done)
from collector.shards.memory cimport buf_free
from collector.shards.packing cimport Packer
from collector.shards.state cimport *

cdef enum:
    DIR_UNKNOWN = 2
    UNWANTED_LEAST = 16384  # bytes: less is not worth telling the kernel
    UNWANTED_ALL = 0xFFFFFFFFFFFF
    MINUTE_NS = 60000000000

COUNTER_NAMES = (
    "events", "event_bytes", "bad_events", "connections_opened", "connections_closed", "connections_not_http",
    "records", "records_marked", "record_bytes", "records_dropped_size", "orphan_responses",
    "filtered_rule", "filtered_ip_host", "filtered_metadata", "filtered_egress", "filtered_port",
    "holes", "hole_bytes", "uncaptured_bytes", "overlaps", "resyncs", "skipped_bytes", "interim_responses",
    "upgraded", "undecoded_bodies", "evicted_connections", "evicted_budget", "timed_out", "unanswered",
    "suspect_events", "callback_errors", "unconfirmed_exchanges",
    "evicted_connection_bytes", "sampled_out_exchanges", "records_dropped_bandwidth", "evicted_active_connections",
    "refused_bodies",
    "connections", "queued_exchanges", "buffer_bytes", "current_connection", "input_bytes", "buffer_peak_bytes",
)
assert len(COUNTER_NAMES) == COUNTERS

INDEX_FORMAT = "=IIQQQ"      # struct batch_entry_t


cdef void told_process(ctx_t* ctx, event_process* p) noexcept nogil:
    """Keep the name of a process; the one told longest ago of those that share a place gives way."""
    cdef uint32_t at = (p.h.tgid * <uint32_t>2654435761) >> 17
    cdef int i
    cdef name_t* entry
    cdef name_t* place = NULL
    for i in range(NAME_PROBES):
        entry = &ctx.names[(at + <uint32_t>i) & (NAMES - 1)]
        if entry.tgid == p.h.tgid or entry.tgid == 0:
            place = entry
            break
        if place == NULL or entry.used < place.used:
            place = entry
    if place.tgid == p.h.tgid and memcmp(place.comm, p.comm, 16) != 0:
        ctx.names_version += 1
    ctx.names_told += 1
    place.tgid = p.h.tgid
    place.used = ctx.names_told
    memcpy(place.comm, p.comm, 16)


cdef inline void join(conn_t* conn) noexcept nogil:
    """Bytes went by that nobody saw: search for a message in both directions, and doubt what is found."""
    conn.flags |= CONN_JOINED
    conn.doubt = DOUBT_ALL
    conn.half[0].state = H_RESYNC
    conn.half[1].state = H_RESYNC


cdef class Pipeline:
    """See the module. Not thread-safe.

    settings: an object with header_bytes, body_bytes, record_bytes, max_connections, buffer_bytes, connection_bytes,
    input_bytes_per_minute, output_bytes_per_minute (all int; 0 for no limit a minute),
    inactive_seconds, unanswered_seconds (float), response_bodies, disable_egress, ignore_ip_hosts, ignore_metadata,
    want_details (bool), ignore_ports, only_ports (iterables of int), record_prefix, daemonset_id (str, ASCII).
    filters: collector.shards.filters.Filters. content: collector.shards.records.content.Decoder.
    counters: a writable buffer of at least len(COUNTER_NAMES) unsigned 64-bit numbers.
    Raises MemoryError, and ValueError for settings that do not fit.
    """

    cdef ctx_t ctx
    cdef table_t table
    cdef object filters
    cdef object content
    cdef Packer packer
    cdef uint64_t[::1] shared
    cdef uint64_t[16] suspects
    cdef uint32_t suspect_count
    cdef uint8_t[65536] port_rule      # 1: left out; 2: chosen
    cdef bint any_ignored
    cdef bint any_chosen
    cdef object unwanted_memory

    def __cinit__(self, settings, filters, content, uint64_t[::1] counters not None):
        cdef bytes text
        cdef int i
        cdef rule_t* rule
        if counters.shape[0] < COUNTERS:
            raise ValueError("counters: too small")
        memset(&self.ctx, 0, sizeof(ctx_t))
        memset(self.port_rule, 0, 65536)
        self.packer = Packer()
        self.ctx.batch = &self.packer.batch
        self.shared = counters
        self.ctx.counters = &counters[0]
        for i in range(G_CONNECTIONS, COUNTERS):
            counters[i] = 0
        self.filters = filters
        self.content = content
        self.ctx.filters = <void*>filters
        self.ctx.content = <void*>content
        self.ctx.header_bytes = settings.header_bytes
        self.ctx.body_bytes = settings.body_bytes
        self.ctx.record_bytes = settings.record_bytes
        self.ctx.inactive_ns = <uint64_t>(settings.inactive_seconds * 1e9)
        self.ctx.unanswered_ns = <uint64_t>(settings.unanswered_seconds * 1e9)
        self.ctx.conn_bytes = settings.connection_bytes
        self.ctx.input_limit = settings.input_bytes_per_minute
        self.ctx.output_limit = settings.output_bytes_per_minute
        self.ctx.response_bodies = settings.response_bodies
        self.ctx.disable_egress = settings.disable_egress
        self.ctx.ignore_ip_hosts = settings.ignore_ip_hosts
        self.ctx.ignore_metadata = settings.ignore_metadata
        self.ctx.want_details = settings.want_details
        for port in settings.ignore_ports:
            self.port_rule[port] |= 1
            self.any_ignored = True
        for port in settings.only_ports:
            self.port_rule[port] |= 2
            self.any_chosen = True
        text = settings.record_prefix.encode("ascii")
        if len(text) > 500:
            raise ValueError("record_prefix: too long")
        memcpy(self.ctx.prefix, <const char*>text, len(text))
        self.ctx.prefix_len = <uint32_t>len(text)
        text = settings.daemonset_id.encode("ascii")
        if len(text) > 63:
            raise ValueError("daemonset_id: too long")
        memcpy(self.ctx.daemonset, <const char*>text, len(text))
        self.ctx.daemonset_len = <uint32_t>len(text)
        if len(filters.rules) > 32:
            raise ValueError("AKTO_MODULE_DISCOVERY_CONFIG: at most 32 entries")
        for i, entry in enumerate(filters.rules):
            text = entry.header.lower().encode("latin-1")
            if len(text) > 63:
                raise ValueError("AKTO_MODULE_DISCOVERY_CONFIG: a header name is longer than 63 bytes")
            rule = &self.ctx.rules[i]
            memcpy(rule.name, <const char*>text, len(text))
            rule.name_len = <uint32_t>len(text)
            rule.reject_absent = entry.reject_absent
        self.ctx.rule_count = <uint32_t>len(filters.rules)
        self.ctx.names = <name_t*>calloc(NAMES, sizeof(name_t))         # pages that are not used are not there
        self.ctx.ghosts = <ghost_t*>calloc(GHOSTS, sizeof(ghost_t))
        if self.ctx.names == NULL or self.ctx.ghosts == NULL or table_init(&self.table, settings.max_connections, settings.buffer_bytes) < 0:
            raise MemoryError

    def __dealloc__(self):
        cdef conn_t* conn
        cdef exchange_t* ex
        if self.table.buckets != NULL:
            conn = self.table.lru_first
            while conn != NULL:         # nothing is recorded any more: the filters and the decoder may be gone
                ex = conn.first
                while ex != NULL:
                    ex.flags |= EX_DROP
                    ex = ex.next
                conn = conn.lru_next
            self.ctx.rule_count = 0
            self.ctx.ignore_ip_hosts = 0
            self.ctx.ignore_metadata = 0
            self.ctx.content = NULL
            table_clear(&self.ctx, &self.table, 0)
        buf_free(&self.ctx.batch.pool, &self.ctx.scratch)
        free(self.ctx.names)
        free(self.ctx.ghosts)

    def skip(self, connections):
        """Ignore these connections (their conn_id), at most 16: each killed a shard twice."""
        self.suspect_count = 0
        for conn_id in list(connections)[:16]:
            self.suspects[self.suspect_count] = conn_id
            self.suspect_count += 1

    def use_unwanted(self, memory):
        """The words in which the kernel is told what nobody wants (bpf/capture.h): a writable buffer of unsigned 64-bit
        numbers, a power of two of them. Raises ValueError."""
        cdef uint64_t[::1] words = memory
        if words.shape[0] < 2 or words.shape[0] & (words.shape[0] - 1):
            raise ValueError("unwanted: not a power of two")
        self.unwanted_memory = memory
        self.ctx.unwanted = &words[0]
        self.ctx.unwanted_words = <uint64_t>words.shape[0]

    def feed(self, const unsigned char[::1] span not None, int64_t wall_offset_ns=0, size_t start=0):
        """The events of one span (ring records back to back) from byte ``start`` on. Returns where it stopped: the
        span's length, or earlier when more than a batch of records waits to be taken (small compressed bodies
        can become large records). Damage ends the span and is counted."""
        cdef size_t off = start, end = <size_t>span.shape[0]
        cdef uint32_t length, sample
        cdef event_header* h
        cdef ctx_t* ctx = &self.ctx
        ctx.wall_offset_ns = wall_offset_ns
        while end - off >= RING_HEADER_BYTES:
            length = (<uint32_t*>&span[off])[0]
            sample = length & RING_LENGTH_MASK
            if ring_advance(length) > end - off:
                ctx.counters[C_BAD_EVENTS] += 1
                off = end
                break
            if not length & RING_DISCARD:
                if sample < sizeof(event_header):       # perhaps nothing at all, and the span ends here
                    ctx.counters[C_BAD_EVENTS] += 1
                else:
                    h = <event_header*>&span[off + RING_HEADER_BYTES]
                    if h.dir > 1 or (h.type == EVENT_DATA and (
                            sample - sizeof(event_header) < h.len_cap or h.len_cap > h.len_true)):
                        ctx.counters[C_BAD_EVENTS] += 1
                    else:
                        self.event(h, sample)
            off += ring_advance(length)
            if ctx.batch.records.len > ctx.batch.complete:
                break
        else:
            off = end
        ctx.counters[C_EVENT_BYTES] += off - start
        ctx.counters[G_CURRENT_CONN] = 0
        table_tick(ctx, &self.table, ctx.now_ns)
        table_limit(ctx, &self.table)       # a timer may make something of what was held back
        ctx.counters[G_BUFFER_BYTES] = ctx.pool.bytes
        return off

    cdef inline void advance(self, uint64_t now) noexcept:
        """Time goes on, never back; a new minute begins with its whole allowance."""
        cdef ctx_t* ctx = &self.ctx
        cdef uint64_t minute = now // MINUTE_NS
        if now > ctx.now_ns:
            ctx.now_ns = now
        if minute > ctx.minute or minute + 1 < ctx.minute:      # far back: an event's time was wrong
            ctx.minute = minute
            ctx.input_used = 0
            ctx.output_used = 0

    cdef void event(self, event_header* h, uint32_t sample) noexcept:
        cdef ctx_t* ctx = &self.ctx
        cdef conn_t* conn
        cdef half_t* half
        cdef uint32_t i
        cdef uint64_t gap
        cdef size_t before
        ctx.counters[C_EVENTS] += 1
        self.advance(h.ts_ns)
        if sample < event_bytes(h.type):
            ctx.counters[C_BAD_EVENTS] += 1
            return
        if h.type == EVENT_PROCESS:
            told_process(ctx, <event_process*>h)
            return
        if h.type == EVENT_EXIT:
            table_exit(ctx, &self.table, h.tgid, h.ring)
            return
        if h.type == EVENT_BIND or h.type == EVENT_OWNER:
            return      # of sources and providers that are not here yet
        if self.suspect_count:
            for i in range(self.suspect_count):
                if self.suspects[i] == h.conn_id:
                    ctx.counters[C_SUSPECT_EVENTS] += 1
                    return
        ctx.counters[G_CURRENT_CONN] = h.conn_id
        ctx.tgid = h.tgid
        conn = table_find(&self.table, h.conn_id)
        if conn == NULL:
            if h.type != EVENT_DATA and h.type != EVENT_OPEN:
                return
            conn = table_add(ctx, &self.table, h.conn_id, h.tgid, h.ring)
            if conn == NULL:
                ctx.counters[C_BAD_EVENTS] += 1
                return
            conn.fd = h.fd
            conn.seen_ns = h.ts_ns
            if self.table.count > self.table.max_connections:
                table_limit(ctx, &self.table)       # never the newest one
            if h.type == EVENT_DATA or (<event_open*>h).start == START_REJOIN:
                # its OPEN was lost, or it was given up: join in the middle, unless nothing of it was missed
                if not table_recall(ctx, conn):
                    if h.type == EVENT_DATA and h.pos == 0:
                        for i in range(2):      # its OPEN was lost, and nothing before this; what else was, is a hole
                            conn.half[i].known = 1
                    else:
                        join(conn)
                if h.type == EVENT_DATA:
                    self.choose(conn)
        before = ctx.pool.bytes - ctx.free_bytes
        if h.type == EVENT_DATA:
            half = &conn.half[h.dir]
            if conn.flags & CONN_IGNORED:
                table_touch(&self.table, conn, h.ts_ns)
                if not half.known:
                    half.known = 1
                    half.pos = h.pos
                self.publish(conn, h.dir, h.pos + h.len_true)
                return
            if h.ts_ns > conn.seen_ns + ctx.unanswered_ns:
                http1_idle(ctx, conn, h.ts_ns)
            if conn.doubt and h.dir == conn.dir_request and h.ts_ns > conn.seen_ns:
                http1_quiet(ctx, conn, h.ts_ns - conn.seen_ns)
            table_touch(&self.table, conn, h.ts_ns)
            if not half.known:
                half.known = 1
                half.pos = h.pos
            ctx.input_used += h.len_cap
            if h.pos != half.pos:
                if h.pos < half.pos:
                    # Two threads in one call each, or a repeated event: whose bytes these are is not known.
                    ctx.counters[C_OVERLAPS] += 1
                    if h.pos + h.len_true > half.pos:
                        gap = h.pos + h.len_true - half.pos
                        half.pos += gap
                        http1_hole(ctx, conn, h.dir, gap, True)
                        table_arm(ctx, &self.table, conn, h.ts_ns)
                        self.account(conn, before)
                    return
                gap = h.pos - half.pos
                ctx.counters[C_HOLES] += 1
                ctx.counters[C_HOLE_BYTES] += gap
                http1_hole(ctx, conn, h.dir, gap, True)
            half.pos = h.pos + h.len_true
            half.end = h.pos + h.len_cap
            if h.len_cap:
                if conn.dir_request == DIR_UNKNOWN or conn.half[h.dir].state != H_OPAQUE:
                    http1_data(ctx, conn, h.dir, <const uint8_t*>h + sizeof(event_header), h.len_cap, h.ts_ns)
            if h.len_true > h.len_cap:
                gap = h.len_true - h.len_cap
                ctx.counters[C_UNCAPTURED_BYTES] += gap
                http1_hole(ctx, conn, h.dir, gap, h.flags & EVENT_F_FAULT)
            if ctx.unwanted != NULL and h.len_true >= UNWANTED_LEAST:
                self.publish(conn, h.dir, half.pos)
            table_arm(ctx, &self.table, conn, h.ts_ns)
        elif h.type == EVENT_OPEN or h.type == EVENT_ADDRESS:
            self.opened(conn, <event_open*>h)
        elif h.type == EVENT_EOF:
            self.reached(conn, h.dir, h.pos)
            if conn.dir_request != DIR_UNKNOWN:
                http1_end(ctx, conn, h.dir)
        elif h.type == EVENT_AHEAD:
            conn.ahead = 1
            return
        elif h.type == EVENT_CLOSE:
            if h.reason == CLOSE_NOT_HTTP:
                # no socket, or no HTTP after all: nothing of it is a record
                ctx.counters[C_NOT_HTTP] += 1
                conn.flags |= CONN_DROP
            else:
                self.reached(conn, 0, (<event_close*>h).final_pos[0])
                self.reached(conn, 1, (<event_close*>h).final_pos[1])
                if h.reason == CLOSE_RESET:
                    http1_was_reset(conn)
            table_close(ctx, &self.table, conn, MARK_END_UNSEEN if h.reason == CLOSE_SWEPT or h.reason == CLOSE_REPLACED else 0)
            return
        self.account(conn, before)

    cdef void publish(self, conn_t* conn, uint32_t d, uint64_t pos) noexcept:
        """Tell the kernel up to where it needs to copy no more bytes of this direction, if that is known and far."""
        cdef uint64_t until = http1_unwanted(&self.ctx, conn, d, pos)
        cdef uint64_t h
        cdef half_t* half = &conn.half[d]
        if self.ctx.unwanted == NULL or until <= pos + UNWANTED_LEAST or until == half.unwanted:
            return
        half.unwanted = until
        h = ((conn.id >> 12) ^ (conn.id << 52)) * 0x9E3779B97F4A7C15ULL
        # one aligned store: the kernel reads it whole
        self.ctx.unwanted[((h >> 20) & (self.ctx.unwanted_words // 2 - 1)) * 2 + d] = ((h >> 4) & 0xFFFF) << 48 | (
            until if until < UNWANTED_ALL else UNWANTED_ALL)

    cdef inline void account(self, conn_t* conn, size_t before) noexcept:
        """What the event has made the connection hold; limits."""
        cdef ctx_t* ctx = &self.ctx
        conn.held += ctx.pool.bytes - ctx.free_bytes - before
        if ctx.pool.bytes > ctx.counters[G_BUFFER_PEAK]:
            ctx.counters[G_BUFFER_PEAK] = ctx.pool.bytes
        if conn.held > ctx.conn_bytes:
            ctx.counters[C_EVICTED_HELD] += 1
            before = ctx.pool.bytes - ctx.free_bytes
            http1_reset(ctx, conn, MARK_EVICTED)
            conn.held += ctx.pool.bytes - ctx.free_bytes - before
        if ctx.pool.bytes > self.table.max_bytes:
            table_limit(ctx, &self.table)

    cdef void reached(self, conn_t* conn, uint32_t d, uint64_t pos) noexcept:
        """The stream is known to have gone on to `pos`: what is missing was lost."""
        cdef half_t* half = &conn.half[d]
        cdef uint64_t gap
        if half.known and pos > half.pos and not conn.flags & CONN_IGNORED:
            gap = pos - half.pos
            self.ctx.counters[C_HOLES] += 1
            self.ctx.counters[C_HOLE_BYTES] += gap
            half.pos = pos
            http1_hole(&self.ctx, conn, d, gap, True)

    cdef void opened(self, conn_t* conn, event_open* o) noexcept:
        cdef ctx_t* ctx = &self.ctx
        cdef uint32_t i
        if o.role:
            conn.role = o.role
            i = DIR_IN if o.role == ROLE_SERVER else DIR_OUT
            if conn.dir_request != DIR_UNKNOWN and conn.dir_request != i:
                http1_reset(ctx, conn, 0)       # it had been guessed from bytes of a body
                conn.dir_request = <uint8_t>i
        memcpy(conn.local, o.local, 16)
        memcpy(conn.remote, o.remote, 16)
        conn.local_port = o.local_port
        conn.remote_port = o.remote_port
        if o.h.source != SOURCE_SYSCALL:
            conn.flags |= CONN_TLS
        if (o.h.type == EVENT_OPEN and o.start != START_REJOIN and not conn.flags & CONN_OPENED
                and not conn.half[0].known and not conn.half[1].known):
            conn.flags |= CONN_OPENED
            conn.flags &= ~CONN_JOINED & 0xFFFF     # this shard may have been told of it before it came to its beginning
            conn.doubt = 0
            for i in range(2):
                conn.half[i].known = 1
                conn.half[i].pos = o.pos[i]
                conn.half[i].state = H_START
            if o.start != START_SEEN:
                join(conn)
                if o.start == START_UNCONFIRMED:
                    conn.flags |= CONN_UNCONFIRMED
        buf_free(&ctx.pool, &conn.constant)
        if o.h.type == EVENT_ADDRESS and conn.flags & CONN_UNCONFIRMED:
            conn.flags &= ~CONN_UNCONFIRMED & 0xFFFF
            pop_done(ctx, conn)
        self.choose(conn)

    cdef void choose(self, conn_t* conn) noexcept:
        """The filters that look at ports and role: of a new connection, or when they are learnt."""
        cdef ctx_t* ctx = &self.ctx
        cdef uint16_t server_port
        cdef uint32_t i
        if self.any_chosen:
            # a connection is chosen by either of its ports; one whose ports are not known yet is not
            if not (self.port_rule[conn.local_port] | self.port_rule[conn.remote_port]) & 2:
                conn.flags |= CONN_IGNORED
            elif conn.flags & CONN_IGNORED:
                conn.flags &= ~CONN_IGNORED & 0xFFFF
                join(conn)
                for i in range(2):
                    conn.half[i].known = 0
                    conn.half[i].current = NULL
        if conn.flags & CONN_IGNORED:
            return
        if ctx.disable_egress and conn.role == ROLE_CLIENT:
            ctx.counters[C_FILTERED_EGRESS] += 1
            self.ignore(conn)
            return
        if self.any_ignored:
            server_port = conn.remote_port if conn.role == ROLE_CLIENT else conn.local_port
            if server_port and self.port_rule[server_port] & 1:
                ctx.counters[C_FILTERED_PORT] += 1
                self.ignore(conn)

    cdef void ignore(self, conn_t* conn) noexcept:
        """A filter leaves the connection out, and what was already begun on it."""
        cdef exchange_t* ex = conn.first
        conn.flags |= CONN_IGNORED
        while ex != NULL:
            ex.flags |= EX_DROP
            ex = ex.next

    def tick(self, uint64_t now_ns):
        """Timers; `now_ns` is CLOCK_MONOTONIC."""
        self.advance(now_ns)
        table_tick(&self.ctx, &self.table, self.ctx.now_ns)
        table_limit(&self.ctx, &self.table)
        self.ctx.counters[G_BUFFER_BYTES] = self.ctx.pool.bytes

    def finish_timers(self):
        """Recorded traffic is over: let every timer fire as if the silence went on."""
        self.tick(self.ctx.now_ns + self.ctx.unanswered_ns + (self.ctx.unanswered_ns >> 3) + 2)

    def close_all(self):
        """Record everything that waits as it stands (`end_unseen`), and forget it. True when done; False when the
        records that wait have to be taken first."""
        while self.table.lru_first != NULL and self.ctx.batch.records.len <= self.ctx.batch.complete:
            table_close(&self.ctx, &self.table, self.table.lru_first, MARK_END_UNSEEN)
        self.ctx.counters[G_BUFFER_BYTES] = self.ctx.pool.bytes
        return self.table.lru_first == NULL

    def set_budget(self, size_t buffer_bytes):
        """Change the byte budget (supervisor's memory guard)."""
        self.table.max_bytes = buffer_bytes
        table_limit(&self.ctx, &self.table)
        self.ctx.counters[G_BUFFER_BYTES] = self.ctx.pool.bytes

    def pending(self):
        """As Packer.pending."""
        return self.packer.pending()

    def take(self):
        """As Packer.take."""
        return self.packer.take()

    def use_slots(self, unsigned char[::1] memory not None, uint32_t count, uint32_t batch_bytes):
        """As Packer.use_slots."""
        self.packer.use_slots(memory, count, batch_bytes)

    def release(self, uint32_t slot):
        """As Packer.release."""
        self.packer.release(slot)

    def free_slots(self):
        """As Packer.free_slots."""
        return self.packer.free_slots()

    def statistics(self):
        """An immutable look at the counters, for tests and debugging."""
        return {name: self.ctx.counters[i] for i, name in enumerate(COUNTER_NAMES)}

    def __repr__(self):
        return f"<Pipeline {self.table.count} connections, {self.ctx.pool.bytes} bytes, now {self.ctx.now_ns} ns>"
