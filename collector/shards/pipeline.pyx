"""One shard, without process, socket or clock: spans of events in, batches of records out.

    Pipeline.feed(span)      every event of a span, in order (walk -> connection -> layers -> record)
    Pipeline.tick(now_ns)    timers, when no event moves the time
    Pipeline.take()          the records that are ready
    Pipeline.close_all()     the end: everything that waits is recorded as it stands

Time is event time (CLOCK_MONOTONIC of the capturing host, ns), so recorded traffic gives the same records as live.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from collector.abi cimport *
from collector.shards.connections.ends cimport change_source, choose, found_owner, told_ends, told_socket
from collector.shards.connections.table cimport *
from collector.shards.redaction.state cimport redaction_t
from collector.shards.kafka cimport HEADER_BYTES, RECORD_MOST
from collector.shards.http.selection cimport selection_make, selection_release
from collector.shards.layers.stack cimport *
from collector.shards.layers.tunnel cimport tunnel_layer
from collector.shards.marks cimport MARK_END_UNSEEN, MARK_EVICTED
from collector.shards.memory cimport buf_free
from collector.shards.names cimport forget_owners, told_library, told_owner, told_process
from collector.shards.packing cimport Packer
from collector.shards.peers cimport forget_peers, told_peer
from collector.shards.sampling.sampler cimport forget_sampling, use_sampling
from collector.shards.settings cimport use_settings
from collector.shards.state cimport *
from collector.shards.tls cimport told_tls
from collector.shards.unwanted cimport publish, take_back, withdraw, UNWANTED_LEAST

from collector.policy.model import Mode
from collector.shards.redaction.redactor import Redactor

cdef enum:
    MINUTE_NS = 60000000000
    LEAVE_NS = 3000000000       # what is beyond the share has so long to come to the end of its exchange

_NAMES = {
    C_EVENTS: "events", C_EVENT_BYTES: "event_bytes", C_BAD_EVENTS: "bad_events", C_OPENED: "connections_opened",
    C_CLOSED: "connections_closed", C_NOT_HTTP: "connections_not_http", C_RECORDS: "records",
    C_RECORDS_MARKED: "records_marked", C_RECORD_BYTES: "record_bytes",
    C_RECORDS_DROPPED_SIZE: "records_dropped_size", C_ORPHAN_RESPONSES: "orphan_responses",
    C_FILTERED_RULE: "filtered_rule", C_FILTERED_IP: "filtered_ip_host", C_FILTERED_METADATA: "filtered_metadata",
    C_FILTERED_EGRESS: "filtered_egress", C_FILTERED_PORT: "filtered_port",
    C_FILTERED_POLICY: "filtered_policy", C_FILTERED_POLICY_DOUBT: "filtered_policy_doubt", C_HOLES: "holes",
    C_HOLE_BYTES: "hole_bytes", C_UNCAPTURED_BYTES: "uncaptured_bytes", C_OVERLAPS: "overlaps", C_RESYNCS: "resyncs",
    C_SKIPPED_BYTES: "skipped_bytes", C_INTERIM: "interim_responses", C_UPGRADED: "upgraded",
    C_UNDECODED: "undecoded_bodies", C_EVICTED_CONNECTIONS: "evicted_connections", C_EVICTED_BUDGET: "evicted_budget",
    C_TIMED_OUT: "timed_out", C_UNANSWERED: "unanswered", C_SUSPECT_EVENTS: "suspect_events",
    C_CALLBACK_ERRORS: "callback_errors", C_UNCONFIRMED: "unconfirmed_exchanges",
    C_EVICTED_HELD: "evicted_connection_bytes", C_SAMPLED_OUT: "sampled_out_exchanges",
    C_BANDWIDTH: "records_dropped_bandwidth", C_EVICTED_ACTIVE: "evicted_active_connections",
    C_REFUSED_BODIES: "refused_bodies", C_OTHER_SOURCE_BYTES: "other_source_bytes", C_PEER_UNKNOWN: "peer_unknown_records",
    C_LEFT_OUT: "left_out_connections", C_LEFT_OUT_BYTES: "left_out_bytes",
    C_MESSAGES_TRANSCODED: "messages_transcoded", C_MESSAGES_NOT_TRANSCODED: "messages_not_transcoded",
    C_UNKNOWN_METHODS: "unknown_methods", C_REDACTED: "redacted_values",
    C_SAMPLED_PLAIN: "sampling_left_out", C_SAMPLED_ERRORS: "sampling_left_out_errors",
    C_SAMPLED_MARKED: "sampling_left_out_marked", C_SAMPLED_TOLD: "sampling_told", C_SAMPLED_HEADS: "sampling_heads",
    C_SAMPLED_SHARED: "sampling_shared", C_OWNER_UNKNOWN: "owner_unknown_records", C_UNSELECTED: "unselected_connections",
    C_FILTERED_NOISE: "filtered_noise",
    G_CONNECTIONS: "connections",
    G_QUEUED: "queued_exchanges", G_BUFFER_BYTES: "buffer_bytes", G_CURRENT_CONN: "current_connection",
    G_INPUT_BYTES: "input_bytes", G_BUFFER_PEAK: "buffer_peak_bytes",
    G_ENDPOINTS: "sampling_endpoints",
}
assert sorted(_NAMES) == list(range(COUNTERS))
COUNTER_NAMES = tuple(_NAMES[i] for i in range(COUNTERS))     # collector/counter_names.py CORE_NAMES, which a test compares


@cython.final
cdef class Pipeline:
    """See the module. Not thread-safe.

    settings: collector.settings.ShardSettings, or an object with its attributes.
    filters: collector.shards.filters.Filters. content: collector.shards.records.content.Decoder.
    counters: a writable buffer of at least len(COUNTER_NAMES) unsigned 64-bit numbers.
    Raises MemoryError, and ValueError for settings that do not fit.
    """

    cdef ctx_t ctx
    cdef table_t table
    cdef object filters
    cdef object content
    cdef object inflater
    cdef object redactor
    cdef tuple redacts      # what it does: (redaction, key)
    cdef Packer packer
    cdef uint64_t[::1] shared
    cdef uint64_t[16] suspects
    cdef uint32_t suspect_count
    cdef object unwanted_memory
    cdef uint32_t record_bytes
    cdef uint32_t policies              # that were in force so far

    def __cinit__(self, settings, filters, content, uint64_t[::1] counters not None):
        cdef int i
        if counters.shape[0] < COUNTERS:
            raise ValueError("counters: too small")
        memset(&self.ctx, 0, sizeof(ctx_t))
        self.packer = Packer(4 << 20)
        self.ctx.batch = &self.packer.batch
        self.shared = counters
        self.ctx.counters = &counters[0]
        for i in range(G_CONNECTIONS, COUNTERS):
            counters[i] = 0
        self.filters = filters
        self.content = content
        self.ctx.filters = <void*>filters
        self.ctx.content = <void*>content
        self.inflater = content.inflater
        self.ctx.inflater = <void*>self.inflater
        self.ctx.transcodes = content is not None and content.methods is not None
        use_settings(&self.ctx, settings, filters)
        self.ctx.share = SHARES
        self.record_bytes = self.ctx.record_bytes
        self.ctx.names = <name_t*>calloc(NAMES, sizeof(name_t))         # pages that are not used are not there
        self.ctx.libraries = <library_t*>calloc(LIBRARIES, sizeof(library_t))
        self.ctx.ghosts = <ghost_t*>calloc(GHOSTS, sizeof(ghost_t))
        if (self.ctx.names == NULL or self.ctx.libraries == NULL or self.ctx.ghosts == NULL
                or table_init(&self.table, settings.max_connections, settings.buffer_bytes) < 0):
            raise MemoryError

    def __dealloc__(self):
        if self.table.buckets != NULL:
            self.ctx.silent = 1         # the filters and the decoder may be gone
            self.ctx.rule_count = 0
            self.ctx.ignore_ip_hosts = 0
            self.ctx.ignore_metadata = 0
            self.ctx.redaction = NULL
            self.ctx.content = NULL
            self.ctx.inflater = NULL
            table_clear(&self.ctx, &self.table, 0)
        selection_release(self.ctx.selection)
        buf_free(&self.ctx.batch.pool, &self.ctx.scratch)
        forget_sampling(&self.ctx)
        free(self.ctx.trusted)
        forget_owners(&self.ctx)
        forget_peers(&self.ctx)
        free(self.ctx.names)
        free(self.ctx.libraries)
        table_forget_ghosts(&self.ctx)

    def skip(self, connections):
        """Ignore these connections (their conn_id), at most 16: each killed a shard twice."""
        self.suspect_count = 0
        for conn_id in list(connections)[:16]:
            self.suspects[self.suspect_count] = conn_id
            self.suspect_count += 1

    def use_policy(self, policy, bytes key=b""):
        """Go by this policy (collector.policy.model.Policy) from now on, in every record that is made. ``key``: of the
        hashes in the place of redacted values, or empty. Raises ValueError for what collector/policy/reading.py refuses."""
        cdef selection_t* selection = selection_make(policy.rules)
        self.policies += 1
        if selection != NULL:
            selection.version = self.policies
        selection_release(self.ctx.selection)
        self.ctx.selection = selection
        if (policy.redaction, key) != self.redacts:
            self.use_redaction(policy.redaction, key)
        use_sampling(&self.ctx, policy.sampling)

    cdef use_redaction(self, redaction, bytes key):
        """Heads that were read under another one are looked at again (http/redacting.pyx)."""
        self.redactor = Redactor(redaction, key) if redaction.mode is not Mode.OFF or redaction.rules else None
        self.redacts = redaction, key
        self.ctx.redaction = NULL if self.redactor is None else <redaction_t*><size_t>self.redactor.address()
        if self.ctx.redaction != NULL:
            self.ctx.redaction.version = <uint16_t>self.policies

    def untold(self):
        """How many exchanges were left out by sampling that no record has told of."""
        return self.ctx.sampler.untold if self.ctx.sampler != NULL else 0

    def use_unwanted(self, memory):
        """The words that the kernel reads (unwanted.pyx), a power of two of unsigned 64-bit numbers. Raises ValueError."""
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
        """One event: to the connection that it names."""
        cdef ctx_t* ctx = &self.ctx
        cdef conn_t* conn
        cdef uint32_t i
        cdef size_t before
        ctx.counters[C_EVENTS] += 1
        if h.type != EVENT_OWNER and h.type != EVENT_PEER:     # which stand in front of what happened before them
            self.advance(h.ts_ns)
        if sample < event_bytes(h.type):
            ctx.counters[C_BAD_EVENTS] += 1
            return
        if h.type == EVENT_PROCESS:
            told_process(ctx, <event_process*>h)
            return
        if h.type == EVENT_LIBRARY:
            told_library(ctx, <event_library*>h)
            return
        if h.type == EVENT_EXIT:
            table_exit(ctx, &self.table, h.tgid, h.ring)
            return
        if h.type == EVENT_OWNER:
            self.owner(h, sample)
            return
        if h.type == EVENT_PEER:
            if sample - sizeof(event_peer) < h.len_cap:
                ctx.counters[C_BAD_EVENTS] += 1
            else:
                told_peer(ctx, <event_peer*>h)
            return
        if self.suspect_count:
            for i in range(self.suspect_count):
                if self.suspects[i] == h.conn_id:
                    ctx.counters[C_SUSPECT_EVENTS] += 1
                    return
        ctx.counters[G_CURRENT_CONN] = h.conn_id
        ctx.tgid = h.tgid
        conn = table_find(&self.table, h.conn_id)
        if conn == NULL:
            conn = self.first_event(h)
            if conn == NULL:
                return
        elif h.conn_id != conn.id and (h.ring != conn.ring or h.reason == CLOSE_NOT_HTTP):
            return      # of the socket, from before it was bound and its events came to this ring: old, or not about this
        table_catch_up(ctx, &self.table, conn, h.ts_ns)
        before = ctx.pool.bytes - ctx.free_bytes
        if h.type == EVENT_DATA:
            if conn.turn >= ctx.share and not conn.flags & CONN_IGNORED:
                self.leave_out(conn, h.ts_ns)
            if conn.flags & CONN_IGNORED and not (conn.left_out and self.has_its_turn_again(conn)):
                self.pass_over(conn, h)
                return
            if h.source != conn.source and not self.of_our_source(conn, h):
                return
            self.data(conn, h)
        elif h.type == EVENT_OPEN or h.type == EVENT_ADDRESS:
            told_ends(ctx, conn, <event_open*>h)
        elif h.type == EVENT_EOF:
            if h.source == conn.source:
                self.reached(conn, h.dir, h.pos, h.ts_ns)
                flow_end(ctx, &conn.flow, h.dir)
        elif h.type == EVENT_BIND:
            told_socket(ctx, &self.table, conn, <event_bind*>h)
        elif h.type == EVENT_TLS:
            told_tls(ctx, conn, <event_tls*>h)
        elif h.type == EVENT_AHEAD:
            flow_told(ctx, &conn.flow, FACT_AHEAD)
        elif h.type == EVENT_CLOSE:
            self.closed(conn, <event_close*>h)
            return
        self.account(conn, before)

    cdef void owner(self, event_header* h, uint32_t sample) noexcept:
        """Whose process that is, or that nothing of it is wanted: what waits for that goes on, or nowhere."""
        if sample - sizeof(event_header) < h.len_cap:
            self.ctx.counters[C_BAD_EVENTS] += 1
        elif told_owner(&self.ctx, h):
            found_owner(&self.ctx, &self.table, h.tgid)

    cdef conn_t* first_event(self, event_header* h) noexcept:
        """A connection that is not in the table: enter it, if the event can begin one."""
        cdef ctx_t* ctx = &self.ctx
        cdef conn_t* conn
        cdef uint32_t i
        cdef size_t before
        if h.type == EVENT_ADDRESS:
            table_released(ctx, h.conn_id)
        if h.type != EVENT_DATA and h.type != EVENT_OPEN and h.type != EVENT_BIND:
            return NULL
        conn = table_add(ctx, &self.table, h.conn_id, h.tgid, h.ring)
        if conn == NULL:
            ctx.counters[C_BAD_EVENTS] += 1
            return NULL
        conn.fd = h.fd
        conn.source = h.source
        if h.source != SOURCE_SYSCALL:
            conn.flags |= CONN_TLS
            if h.fd < 0:
                conn.holds = HOLD_PEER
        conn.seen_ns = h.ts_ns
        if self.table.count > self.table.max_connections:
            table_limit(ctx, &self.table)       # never the newest one
        before = ctx.pool.bytes - ctx.free_bytes
        if h.type != EVENT_OPEN or (<event_open*>h).start == START_REJOIN:
            # its OPEN was lost, or it was given up: join in the middle, unless nothing of it was missed
            if not table_recall(ctx, &self.table, conn) and h.type != EVENT_BIND:
                if h.type == EVENT_DATA and h.pos == 0:
                    for i in range(2):      # its OPEN was lost, and nothing before this; what else was, is a hole
                        conn.stream[i].known = 1
                else:
                    conn.flags |= CONN_JOINED
                    take_back(ctx, conn)        # what a shard before us has said of it
            if h.type == EVENT_DATA:
                choose(ctx, conn)
        conn.held += ctx.pool.bytes - ctx.free_bytes - before
        return conn

    cdef inline bint of_our_source(self, conn_t* conn, event_header* h) noexcept:
        """Bytes of another source than the one that the positions count. What a library has in clear counts, whatever was
        seen of the socket before; bytes of a socket whose plaintext is captured are ciphertext, and nobody's."""
        if h.source != SOURCE_SYSCALL and conn.source == SOURCE_SYSCALL:
            change_source(&self.ctx, conn, h.source)
            conn.flags |= CONN_JOINED           # its OPEN was lost
            return True
        self.ctx.counters[C_OTHER_SOURCE_BYTES] += h.len_true
        return False

    cdef void leave_out(self, conn_t* conn, uint64_t ts) noexcept:
        """There is not the CPU for all connections, and this one is beyond the share: it is left out from its beginning, or
        from the next message on that nothing waits for, or, when none comes for long, as it stands."""
        cdef ctx_t* ctx = &self.ctx
        cdef const layer_t* layer
        cdef uint32_t marks = 0
        cdef size_t before = ctx.pool.bytes - ctx.free_bytes
        if conn.flow.layer != NULL and (conn.holds or conn.flow.layer.rest(&conn.flow) != 0):
            if conn.beyond_ns <= ctx.share_ns:
                conn.beyond_ns = ts
            if ts < conn.beyond_ns + LEAVE_NS:
                return
            marks = MARK_EVICTED
        if conn.holds & HOLD_PEER:
            table_wait_no_more(ctx, conn)
        if conn.flow.layer != tunnel_layer():       # a tunnel stays one, whatever goes by that looks like a message
            layer = when_back(conn.flow.layer)
            flow_close(ctx, &conn.flow, marks)
            conn.flow.passed = 0
            if layer == tunnel_layer():
                conn.flow.layer = layer
        conn.flags |= CONN_IGNORED
        conn.left_out = 1
        conn.held += ctx.pool.bytes - ctx.free_bytes - before
        ctx.counters[C_LEFT_OUT] += 1

    cdef bint has_its_turn_again(self, conn_t* conn) noexcept:
        """There is CPU for it again: it is joined in the middle, unless a filter leaves it out. Does anything want it?"""
        if conn.turn >= self.ctx.share:
            return False
        conn.left_out = 0
        choose(&self.ctx, conn)
        return not conn.flags & CONN_IGNORED

    cdef void pass_over(self, conn_t* conn, event_header* h) noexcept:
        """Bytes of a connection that is left out: only its position goes on."""
        cdef stream_t* stream = &conn.stream[h.dir]
        cdef ctx_t* ctx = &self.ctx
        if conn.left_out:
            ctx.counters[C_LEFT_OUT_BYTES] += h.len_true
            stream.unwanted = 0     # the kernel does not know it (any more), or nothing would have come
        table_touch(&self.table, conn, h.ts_ns)
        if not stream.known:
            stream.known = 1
            stream.pos = h.pos
        publish(ctx, conn, h.dir, h.pos + h.len_true)

    cdef void data(self, conn_t* conn, event_header* h) noexcept:
        """Bytes at a position: what is missing before them is a hole, what is there twice is not read twice."""
        cdef ctx_t* ctx = &self.ctx
        cdef stream_t* stream = &conn.stream[h.dir]
        cdef uint64_t gap
        if h.ts_ns > conn.seen_ns + ctx.unanswered_ns:
            flow_idle(ctx, &conn.flow, h.ts_ns)
        if not stream.known:
            if h.pos and conn.flow.layer == NULL:
                conn.flags |= CONN_JOINED       # nobody has said where it begins
            stream.known = 1
            stream.pos = h.pos
        ctx.input_used += h.len_cap
        if h.pos < stream.pos:
            # Two threads in one call each, or a repeated event: whose bytes these are is not known.
            ctx.counters[C_OVERLAPS] += 1
            if h.pos + h.len_true > stream.pos:
                gap = h.pos + h.len_true - stream.pos
                stream.pos += gap
                flow_hole(ctx, &conn.flow, h.dir, gap, True, h.ts_ns)
        else:
            if h.pos > stream.pos:
                gap = h.pos - stream.pos
                ctx.counters[C_HOLES] += 1
                ctx.counters[C_HOLE_BYTES] += gap
                flow_hole(ctx, &conn.flow, h.dir, gap, True, h.ts_ns)
            stream.pos = h.pos + h.len_true
            if h.len_cap:
                stream.end = h.pos + h.len_cap
                stream.last_ns = h.ts_ns
                stream.tgid = h.tgid
                flow_data(ctx, &conn.flow, h.dir, <const uint8_t*>h + sizeof(event_header), h.len_cap, h.ts_ns)
            if h.len_true > h.len_cap:
                gap = h.len_true - h.len_cap
                ctx.counters[C_UNCAPTURED_BYTES] += gap
                flow_hole(ctx, &conn.flow, h.dir, gap, h.flags & EVENT_F_FAULT, h.ts_ns)
            if ctx.unwanted != NULL and h.len_true >= UNWANTED_LEAST:
                publish(ctx, conn, h.dir, stream.pos)
        table_touch(&self.table, conn, h.ts_ns)
        table_arm(ctx, &self.table, conn, h.ts_ns)

    cdef void closed(self, conn_t* conn, event_close* e) noexcept:
        """The connection is over."""
        cdef ctx_t* ctx = &self.ctx
        cdef uint32_t i
        if e.h.reason == CLOSE_NOT_HTTP:
            # no socket, or no HTTP after all: nothing of it is a record
            ctx.counters[C_NOT_HTTP] += 1
            conn.flags |= CONN_DROP
        else:
            if e.h.source == conn.source:       # else they count other bytes than those that were captured
                for i in range(2):
                    self.reached(conn, i, e.final_pos[i], e.h.ts_ns)
            if e.h.reason == CLOSE_RESET:
                flow_told(ctx, &conn.flow, FACT_RESET)
        if conn.holds & HOLD_OWNER and (e.h.reason == CLOSE_NORMAL or e.h.reason == CLOSE_RESET):
            conn.over = 1       # what is complete waits on
            table_arm(ctx, &self.table, conn, e.h.ts_ns)
            return
        table_close(ctx, &self.table, conn,
                    MARK_END_UNSEEN if e.h.reason == CLOSE_SWEPT or e.h.reason == CLOSE_REPLACED else 0)

    cdef inline void account(self, conn_t* conn, size_t before) noexcept:
        """What the event has made the connection hold; limits."""
        cdef ctx_t* ctx = &self.ctx
        conn.held += ctx.pool.bytes - ctx.free_bytes - before
        if ctx.pool.bytes > ctx.counters[G_BUFFER_PEAK]:
            ctx.counters[G_BUFFER_PEAK] = ctx.pool.bytes
        if conn.holds & HOLD_PEER:
            self.waits(conn)
        if conn.held > ctx.conn_bytes:
            ctx.counters[C_EVICTED_HELD] += 1
            before = ctx.pool.bytes - ctx.free_bytes
            flow_rejoin(ctx, &conn.flow, MARK_EVICTED)
            conn.held += ctx.pool.bytes - ctx.free_bytes - before
        if ctx.pool.bytes > self.table.max_bytes:
            table_limit(ctx, &self.table)

    cdef void waits(self, conn_t* conn) noexcept:
        """It may hold only so much because nobody knows which socket it is, and only for so long."""
        cdef ctx_t* ctx = &self.ctx
        cdef size_t before = ctx.pool.bytes - ctx.free_bytes
        if conn.peer_due_ns and (conn.held > PEER_WAIT_BYTES or conn.held > ctx.conn_bytes):
            table_peer_is_late(ctx, conn)
            conn.held += ctx.pool.bytes - ctx.free_bytes - before
        if conn.peer_due_ns:
            table_arm(ctx, &self.table, conn, conn.seen_ns)

    cdef void reached(self, conn_t* conn, uint32_t d, uint64_t pos, uint64_t ts) noexcept:
        """The stream is known to have gone on to `pos`: what is missing was lost."""
        cdef stream_t* stream = &conn.stream[d]
        cdef uint64_t gap
        if stream.known and pos > stream.pos and not conn.flags & CONN_IGNORED:
            gap = pos - stream.pos
            self.ctx.counters[C_HOLES] += 1
            self.ctx.counters[C_HOLE_BYTES] += gap
            stream.pos = pos
            flow_hole(&self.ctx, &conn.flow, d, gap, True, ts)

    def tick(self, uint64_t now_ns):
        """Timers; `now_ns` is CLOCK_MONOTONIC."""
        self.advance(now_ns)
        table_tick(&self.ctx, &self.table, self.ctx.now_ns)
        table_limit(&self.ctx, &self.table)
        self.ctx.counters[G_BUFFER_BYTES] = self.ctx.pool.bytes

    def finish_timers(self):
        """Recorded traffic is over: let every timer fire as if the silence went on."""
        self.tick(self.ctx.now_ns + self.ctx.unanswered_ns + 2 * table_granularity_ns())

    def close_all(self):
        """Record everything as it stands (`end_unseen`) and forget it. False: take the records that wait, and go on."""
        while self.table.lru_first != NULL and self.ctx.batch.records.len <= self.ctx.batch.complete:
            table_close(&self.ctx, &self.table, self.table.lru_first, MARK_END_UNSEEN)
        self.ctx.counters[G_BUFFER_BYTES] = self.ctx.pool.bytes
        return self.table.lru_first == NULL

    def set_budget(self, size_t buffer_bytes):
        """Change the byte budget (supervisor's memory guard)."""
        self.table.max_bytes = buffer_bytes
        table_limit(&self.ctx, &self.table)
        self.ctx.counters[G_BUFFER_BYTES] = self.ctx.pool.bytes

    def set_largest(self, size_t batch_bytes):
        """What the destination takes at once: no batch is larger, and a record that would be goes with shorter bodies,
        marked. 0: as the settings say. Bytes before compression, for a record is cut before it is compressed."""
        self.packer.set_largest(batch_bytes)
        self.ctx.record_bytes = self.record_bytes
        if batch_bytes and batch_bytes < self.record_bytes + RECORD_MOST + HEADER_BYTES:
            self.ctx.record_bytes = <uint32_t>(batch_bytes - min(batch_bytes, <size_t>(RECORD_MOST + HEADER_BYTES)))

    def complete(self):
        """Bytes of records with which a batch is complete."""
        return self.packer.batch.complete

    def set_share(self, uint32_t share):
        """How many of 65,536 connections to read, chosen by their numbers: the others are left out as soon as they are
        between messages, and joined again when the share allows it."""
        cdef conn_t* conn = self.table.lru_first
        if share > self.ctx.share:
            self.ctx.share_ns = self.ctx.now_ns
            while conn != NULL:     # before their next bytes, which the kernel would not copy
                if conn.left_out and conn.turn < share:
                    withdraw(&self.ctx, conn)
                conn = conn.lru_next
        self.ctx.share = min(share, <uint32_t>SHARES)

    def pending(self):
        return self.packer.pending()

    def pending_records(self):
        return self.packer.pending_records()

    def use_tap(self, tap):
        self.packer.use_tap(tap)

    def take(self, int64_t wall_ms=0):
        return self.packer.take(wall_ms)

    def use_record_batches(self, uint16_t codec, compress not None, size_t most, size_t largest, bint keys=False):
        self.packer.use_record_batches(codec, compress, most, largest, keys)

    def use_slots(self, unsigned char[::1] memory not None, uint32_t count, uint32_t batch_bytes):
        self.packer.use_slots(memory, count, batch_bytes)

    def release(self, uint32_t slot):
        self.packer.release(slot)

    def free_slots(self):
        return self.packer.free_slots()

    def statistics(self):
        """An immutable look at the counters, for tests and debugging."""
        return {name: self.ctx.counters[i] for i, name in enumerate(COUNTER_NAMES)}

    def __repr__(self):
        return f"<Pipeline {self.table.count} connections, {self.ctx.pool.bytes} bytes, now {self.ctx.now_ns} ns>"
