"""The connections of one shard: found by conn_id, bounded in number and bytes, timed.

* Look-up: chained hash, doubled when full; the cost of an event does not depend on how many connections there are. A
  connection with a second name (EVENT_BIND) is found by both.
* Limits: when there are too many, or their buffers hold too many bytes, the least recently active connection is
  recorded as it stands and forgotten. The order is exact to 2^LRU_SHIFT ns: a busy connection is not moved in the
  list more often than that, so the common event does not touch its neighbours' memory.
* Timers: a wheel of SLOTS slots of 2^SLOT_SHIFT ns. Deadlines may be of any length: one beyond the wheel's turn stays in
  its slot for as many turns as it takes. A connection is looked at when its layer's deadline has passed, never before,
  and before an event changes it; each deadline at its own time. The decision itself (layer_t.idle) depends only on event
  times, so it does not matter when the look is taken, and replay gives the same records as live capture.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from collector.shards.http.exchanges cimport exchange_trim
from collector.shards.layers.stack cimport flow_close, flow_idle, flow_told
from collector.shards.layers.tunnel cimport tunnel_layer
from collector.shards.layers.websocket.layer cimport websocket_layer
from collector.shards.marks cimport MARK_END_UNSEEN, MARK_EVICTED
from collector.shards.memory cimport buf_free
from collector.shards.numbers cimport turn_of
from collector.shards.state cimport *
from collector.shards.tls cimport tls_bytes, tls_free

cdef enum:
    LRU_SHIFT = 30      # about a second
    SLOT_SHIFT = 27     # 134 ms: a deadline is noticed late by no more
    FIRST_BUCKETS = 1024


cdef inline uint64_t mix(uint64_t key) noexcept nogil:
    key *= 0x9E3779B97F4A7C15ULL
    return key ^ (key >> 32)


cdef int table_init(table_t* t, uint32_t max_connections, size_t max_bytes) noexcept:
    memset(t, 0, sizeof(table_t))
    t.buckets = <conn_t**>calloc(FIRST_BUCKETS, sizeof(conn_t*))
    t.mask = FIRST_BUCKETS - 1
    t.max_connections = max_connections
    t.max_bytes = max_bytes
    return -1 if t.buckets == NULL else 0


cdef conn_t* table_find(table_t* t, uint64_t conn_id) noexcept nogil:
    cdef conn_t* c = t.buckets[mix(conn_id) & t.mask]
    while c != NULL and c.id != conn_id:
        c = c.hash_next
    if c == NULL and t.bound:
        c = t.sockets[mix(conn_id) & (SOCKETS - 1)]
        while c != NULL and c.socket != conn_id:
            c = c.socket_next
    return c


cdef void table_bind(table_t* t, conn_t* conn, uint64_t socket) noexcept:
    """From now on the connection is found by `socket` too; 0: by its first name only."""
    cdef conn_t** at
    if conn.socket:
        at = &t.sockets[mix(conn.socket) & (SOCKETS - 1)]
        while at[0] != conn:
            at = &at[0].socket_next
        at[0] = conn.socket_next
        t.bound -= 1
    conn.socket = 0
    if socket and t.sockets == NULL:
        t.sockets = <conn_t**>calloc(SOCKETS, sizeof(conn_t*))
    if socket and t.sockets != NULL:
        conn.socket = socket
        at = &t.sockets[mix(socket) & (SOCKETS - 1)]
        conn.socket_next = at[0]
        at[0] = conn
        t.bound += 1


cdef void grow(ctx_t* ctx, table_t* t) noexcept:
    cdef uint64_t n = (t.mask + 1) * 2, i
    cdef conn_t** fresh = <conn_t**>calloc(n, sizeof(conn_t*))
    cdef conn_t* c
    cdef conn_t* following
    if fresh == NULL:
        return
    for i in range(t.mask + 1):
        c = t.buckets[i]
        while c != NULL:
            following = c.hash_next
            c.hash_next = fresh[mix(c.id) & (n - 1)]
            fresh[mix(c.id) & (n - 1)] = c
            c = following
    free(t.buckets)
    t.buckets = fresh
    t.mask = n - 1


cdef inline void lru_unlink(table_t* t, conn_t* c) noexcept nogil:
    if c.lru_prev != NULL:
        c.lru_prev.lru_next = c.lru_next
    else:
        t.lru_first = c.lru_next
    if c.lru_next != NULL:
        c.lru_next.lru_prev = c.lru_prev
    else:
        t.lru_last = c.lru_prev


cdef inline void lru_append(table_t* t, conn_t* c) noexcept nogil:
    c.lru_prev = t.lru_last
    c.lru_next = NULL
    if t.lru_last != NULL:
        t.lru_last.lru_next = c
    else:
        t.lru_first = c
    t.lru_last = c


cdef inline conn_t** slot_of(table_t* t, uint64_t due) noexcept nogil:
    return &t.wheel[due >> SLOT_SHIFT & (SLOTS - 1)]


cdef inline void timer_unlink(table_t* t, conn_t* c) noexcept nogil:
    if c.timer_prev != NULL:
        c.timer_prev.timer_next = c.timer_next
    else:
        slot_of(t, c.due_ns)[0] = c.timer_next
    if c.timer_next != NULL:
        c.timer_next.timer_prev = c.timer_prev
    c.flags &= ~CONN_TIMED & 0xFF


cdef inline void timer_link(table_t* t, conn_t* c, uint64_t due) noexcept nogil:
    cdef conn_t** slot
    if due >> SLOT_SHIFT < t.wheel_at:
        due = t.wheel_at << SLOT_SHIFT      # it has passed: the next slot that is looked at
    slot = slot_of(t, due)
    c.due_ns = due
    c.timer_prev = NULL
    c.timer_next = slot[0]
    if c.timer_next != NULL:
        c.timer_next.timer_prev = c
    slot[0] = c
    c.flags |= CONN_TIMED


cdef conn_t* table_add(ctx_t* ctx, table_t* t, uint64_t conn_id, uint32_t tgid, uint16_t ring) noexcept:
    """A new connection with unknown role, or NULL when memory is out. The identity must not be in the table."""
    cdef conn_t* c
    cdef uint64_t b
    cdef uint32_t g
    if t.count > t.mask:
        grow(ctx, t)
    c = <conn_t*>malloc(sizeof(conn_t))
    if c == NULL:
        return NULL
    memset(c, 0, sizeof(conn_t))
    ctx.pool.bytes += sizeof(conn_t)
    c.id = conn_id
    c.tgid = tgid
    c.ring = ring
    c.turn = turn_of(conn_id)
    c.dir_request = DIR_UNKNOWN
    c.flow.conn = c
    b = mix(conn_id) & t.mask
    c.hash_next = t.buckets[b]
    t.buckets[b] = c
    g = <uint32_t>(mix(tgid) & (GROUPS - 1))
    c.group_next = t.groups[g]
    if c.group_next != NULL:
        c.group_next.group_prev = c
    t.groups[g] = c
    c.lru = <uint32_t>(ctx.now_ns >> LRU_SHIFT)
    lru_append(t, c)
    t.count += 1
    ctx.counters[C_OPENED] += 1
    ctx.counters[G_CONNECTIONS] = t.count
    return c


cdef void remove(ctx_t* ctx, table_t* t, conn_t* conn) noexcept:
    cdef conn_t** at = &t.buckets[mix(conn.id) & t.mask]
    while at[0] != conn:
        at = &at[0].hash_next
    at[0] = conn.hash_next
    if conn.group_prev != NULL:
        conn.group_prev.group_next = conn.group_next
    else:
        t.groups[mix(conn.tgid) & (GROUPS - 1)] = conn.group_next
    if conn.group_next != NULL:
        conn.group_next.group_prev = conn.group_prev
    lru_unlink(t, conn)
    if conn.flags & CONN_TIMED:
        timer_unlink(t, conn)
    if conn.socket:
        table_bind(t, conn, 0)
    tls_free(ctx, conn)
    buf_free(&ctx.pool, &conn.constant)
    ctx.pool.bytes -= sizeof(conn_t)
    free(conn)
    t.count -= 1
    ctx.counters[C_CLOSED] += 1
    ctx.counters[G_CONNECTIONS] = t.count


cdef void table_close(ctx_t* ctx, table_t* t, conn_t* conn, uint32_t marks) noexcept:
    """Record what waits on the connection, with `marks`, and forget it."""
    table_catch_up(ctx, t, conn, ctx.now_ns)
    if conn.holds & HOLD_PEER:
        table_wait_no_more(ctx, conn)       # what is complete has nothing to do with these marks
    table_release(ctx, conn, HOLD_OWNER)
    flow_close(ctx, &conn.flow, marks)
    remove(ctx, t, conn)


cdef void table_wait_no_more(ctx_t* ctx, conn_t* conn) noexcept:
    """Nobody knows which socket the connection is: what waits for that is recorded without ends, or left out where only some
    ports are wanted."""
    if ctx.any_chosen and not socket_known(conn):
        ignore(ctx, conn)
    table_release(ctx, conn, HOLD_PEER)


cdef void table_peer_is_late(ctx_t* ctx, conn_t* conn) noexcept:
    """As table_wait_no_more, for now: the next records wait again, for a moment."""
    table_wait_no_more(ctx, conn)
    conn.peer_late = 1
    conn.holds |= HOLD_PEER


cdef void table_release(ctx_t* ctx, conn_t* conn, uint8_t hold) noexcept:
    """This reason to hold records back is over."""
    if not conn.holds & hold:
        return
    conn.holds &= ~hold & 0xFF
    if hold == HOLD_PEER:
        conn.peer_due_ns = 0
    elif hold == HOLD_OWNER:
        conn.owner_due_ns = 0
    if not conn.holds:
        flow_told(ctx, &conn.flow, FACT_RELEASED)


cdef void ignore(ctx_t* ctx, conn_t* conn) noexcept:
    """A filter leaves the connection out, and what was already begun on it."""
    conn.flags |= CONN_IGNORED
    flow_close(ctx, &conn.flow, 0)
    conn.flow.passed = 0


cdef void table_touch(table_t* t, conn_t* conn, uint64_t now) noexcept nogil:
    conn.seen_ns = now
    if <uint32_t>(now >> LRU_SHIFT) > conn.lru:
        conn.lru = <uint32_t>(now >> LRU_SHIFT)
        lru_unlink(t, conn)
        lru_append(t, conn)


cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    """Of two times; 0 is none."""
    return a if a and (b == 0 or a < b) else b


cdef inline uint64_t look(ctx_t* ctx, conn_t* conn, uint64_t now) noexcept:
    """Do what is due at `now`. When to look again; 0: not before the next byte."""
    cdef uint64_t due
    if conn.peer_due_ns and conn.peer_due_ns <= now:
        table_peer_is_late(ctx, conn)
    if conn.owner_due_ns and conn.owner_due_ns <= now:
        table_release(ctx, conn, HOLD_OWNER)
    conn.soon_ns = 0
    due = flow_idle(ctx, &conn.flow, now)
    return earlier(earlier(conn.peer_due_ns, conn.owner_due_ns), earlier(conn.soon_ns, due))


cdef void table_arm(ctx_t* ctx, table_t* t, conn_t* conn, uint64_t now) noexcept:
    """Look at the connection when its layer says so, or when what waits has waited enough, unless that is arranged already.
    A deadline that has moved back since then is found out at the look."""
    cdef uint64_t due
    if not conn.flags & CONN_TIMED:
        due = look(ctx, conn, now)
        if due:
            timer_link(t, conn, due)
        return
    due = earlier(earlier(conn.peer_due_ns, conn.owner_due_ns), conn.soon_ns)
    if due and due < conn.due_ns:
        timer_unlink(t, conn)
        timer_link(t, conn, due)


cdef void pass_deadlines(ctx_t* ctx, table_t* t, conn_t* conn, uint64_t now) noexcept:
    """Each deadline of a connection up to `now`, in their order, at its own time: one may set another, that of a peer which
    is not known."""
    cdef uint64_t at = conn.due_ns, again
    cdef uint32_t stalled = 0
    cdef size_t before = ctx.pool.bytes - ctx.free_bytes
    timer_unlink(t, conn)
    while True:
        again = look(ctx, conn, at)
        stalled = 0 if again > at else stalled + 1      # once: that of a peer may have passed when it is set
        if again == 0 or again > now or stalled > 1:
            break
        if again > at:
            at = again
    if again:
        timer_link(t, conn, again)
    conn.held += ctx.pool.bytes - ctx.free_bytes - before


cdef void table_catch_up(ctx_t* ctx, table_t* t, conn_t* conn, uint64_t now) noexcept:
    """An event of `now` is about to change the connection: what was due before it comes first, whenever the timers are
    looked at."""
    if conn.flags & CONN_TIMED and conn.due_ns <= now:
        pass_deadlines(ctx, t, conn, now)


cdef uint64_t table_granularity_ns() noexcept nogil:
    """So late a deadline may be noticed."""
    return <uint64_t>1 << SLOT_SHIFT


cdef void table_tick(ctx_t* ctx, table_t* t, uint64_t now) noexcept:
    """Deadlines that have passed at `now` (event time, ns), as far as their slots have passed whole."""
    cdef uint64_t until = now >> SLOT_SHIFT
    cdef uint64_t at = t.wheel_at
    cdef conn_t* c
    cdef conn_t* following
    if at >= until:
        return
    if until - at > SLOTS:
        at = until - SLOTS      # each slot once
    t.wheel_at = until          # what is put back goes into a slot that is still to come
    while at < until:
        c = t.wheel[at & (SLOTS - 1)]
        while c != NULL:
            following = c.timer_next
            if c.due_ns < until << SLOT_SHIFT:
                pass_deadlines(ctx, t, c, now)
                if c.over and not c.holds & HOLD_OWNER:
                    table_close(ctx, t, c, 0)
            c = following
        at += 1


cdef const layer_t* when_back(const layer_t* layer) noexcept nogil:
    """Which layer reads a connection that gave way, when it goes on. Of a WebSocket nobody knows any more what was agreed
    on: what it carries is no message of the connection, whatever it looks like."""
    return tunnel_layer() if layer == websocket_layer() else layer


cdef void keep_ghost(ctx_t* ctx, conn_t* conn) noexcept nogil:
    """A connection that is given up will be joined again, and its OPEN is not told twice: keep its ends, its role and what
    its library has told. The one that was active longest ago of those that share a place gives way."""
    cdef uint64_t at = mix(conn.id)
    cdef int i
    cdef ghost_t* entry
    cdef ghost_t* place = NULL
    if not conn.role and not socket_known(conn) and not conn.holds & ~HOLD_OWNER and conn.tls == NULL:
        return
    for i in range(GHOST_PROBES):
        entry = &ctx.ghosts[(at + <uint64_t>i) & (GHOSTS - 1)]
        if entry.id == conn.id or entry.id == 0:
            place = entry
            break
        if place == NULL or entry.seen_ns < place.seen_ns:
            place = entry
    place.id = conn.id
    place.seen_ns = conn.seen_ns
    memcpy(place.local, conn.local, 16)
    memcpy(place.remote, conn.remote, 16)
    memcpy(place.client, conn.client, 16)
    place.local_port = conn.local_port
    place.remote_port = conn.remote_port
    place.client_port = conn.client_port
    place.client_source = conn.client_source
    place.role = conn.role
    place.source = conn.source
    place.tls = conn.flags & CONN_TLS != 0
    place.holds = conn.holds & ~HOLD_OWNER & 0xFF       # what waited for that has just gone out
    if place.facts != NULL:
        free(place.facts)
        place.facts = NULL
        ctx.ghosts_told -= 1
    if conn.tls != NULL:        # a copy: the records that go out now have it too
        place.facts = <tls_t*>malloc(tls_bytes(conn.tls))
        if place.facts != NULL:
            memcpy(place.facts, conn.tls, tls_bytes(conn.tls))
            ctx.ghosts_told += 1
    place.socket = conn.socket
    place.dir_request = conn.dir_request
    place.layer = when_back(conn.flow.layer)
    place.word = <uint64_t>NOT_AT_REST
    if conn.stream[0].known and conn.stream[1].known and place.layer != NULL:
        place.word = place.layer.rest(&conn.flow)
    place.pos[0] = conn.stream[0].pos
    place.pos[1] = conn.stream[1].pos


cdef bint table_recall(ctx_t* ctx, table_t* t, conn_t* conn) noexcept:
    """Role and ends of a connection that was given up and goes on, if they are still known. True when it had stood between
    messages: then its positions are known too, and it goes on as if it had never been away."""
    cdef uint64_t at = mix(conn.id)
    cdef int i, d
    cdef ghost_t* entry
    cdef uint64_t word
    for i in range(GHOST_PROBES):
        entry = &ctx.ghosts[(at + <uint64_t>i) & (GHOSTS - 1)]
        if entry.id == conn.id:
            memcpy(conn.local, entry.local, 16)
            memcpy(conn.remote, entry.remote, 16)
            memcpy(conn.client, entry.client, 16)
            conn.local_port = entry.local_port
            conn.remote_port = entry.remote_port
            conn.client_port = entry.client_port
            conn.client_source = entry.client_source
            conn.role = entry.role
            conn.source = entry.source
            if entry.tls:
                conn.flags |= CONN_TLS
            conn.holds = entry.holds
            if entry.facts != NULL:
                ctx.pool.bytes += tls_bytes(entry.facts)
                conn.tls = entry.facts
                entry.facts = NULL
                ctx.ghosts_told -= 1
            if entry.socket and table_find(t, entry.socket) == NULL:
                table_bind(t, conn, entry.socket)
            entry.seen_ns = 0       # the next one may have its place
            word = entry.word
            entry.word = <uint64_t>NOT_AT_REST      # once: what comes now is not known to a later reader of the entry
            # NULL: a free entry, and a connection whose number is 0
            if word == <uint64_t>NOT_AT_REST or entry.layer == NULL:
                return False
            conn.dir_request = entry.dir_request
            if entry.layer.resume(ctx, &conn.flow, word) < 0:
                return False
            conn.flow.layer = entry.layer
            for d in range(2):
                conn.stream[d].known = 1
                conn.stream[d].pos = entry.pos[d]
            return True
    return False


cdef void table_forget_ghosts(ctx_t* ctx) noexcept nogil:
    """Free the table of connections that were given up."""
    cdef int i
    if ctx.ghosts_told:     # the table is large, and mostly empty
        for i in range(GHOSTS):
            free(ctx.ghosts[i].facts)
    free(ctx.ghosts)
    ctx.ghosts = NULL


cdef void table_released(ctx_t* ctx, uint64_t conn_id) noexcept nogil:
    """A connection that was given up while its records were held back is a socket: they need not be any more."""
    cdef uint64_t at = mix(conn_id)
    cdef int i
    for i in range(GHOST_PROBES):
        if ctx.ghosts[(at + <uint64_t>i) & (GHOSTS - 1)].id == conn_id:
            ctx.ghosts[(at + <uint64_t>i) & (GHOSTS - 1)].holds = 0


cdef void table_limit(ctx_t* ctx, table_t* t) noexcept:
    """Bring count and bytes back within their limits."""
    while t.count > t.max_connections and t.lru_first != NULL:
        ctx.counters[C_EVICTED_CONNECTIONS] += 1
        if ctx.now_ns - t.lru_first.seen_ns < ctx.inactive_ns:
            ctx.counters[C_EVICTED_ACTIVE] += 1
        keep_ghost(ctx, t.lru_first)
        table_close(ctx, t, t.lru_first, MARK_EVICTED | MARK_END_UNSEEN)
    if ctx.pool.bytes > t.max_bytes:
        exchange_trim(ctx)  # what is only kept for reuse goes first: no connection is given up for it
    while ctx.pool.bytes > t.max_bytes and t.lru_first != NULL:
        ctx.counters[C_EVICTED_BUDGET] += 1
        if ctx.now_ns - t.lru_first.seen_ns < ctx.inactive_ns:
            ctx.counters[C_EVICTED_ACTIVE] += 1
        keep_ghost(ctx, t.lru_first)
        table_close(ctx, t, t.lru_first, MARK_EVICTED | MARK_END_UNSEEN)
        exchange_trim(ctx)


cdef conn_t* table_group(table_t* t, uint32_t tgid) noexcept nogil:
    """The first of the connections among which those of that process are (conn_t.group_next)."""
    return t.groups[mix(tgid) & (GROUPS - 1)]


cdef void table_exit(ctx_t* ctx, table_t* t, uint32_t tgid, uint32_t ring) noexcept:
    """The process is gone: so are its connections. Their last bytes are not known to have been seen.

    The event comes through every ring; each speaks for the connections of its own ring only, whose data lies before it.
    """
    cdef conn_t* c = table_group(t, tgid)
    cdef conn_t* following
    while c != NULL:
        following = c.group_next
        if c.tgid == tgid and c.ring == ring:
            table_close(ctx, t, c, MARK_END_UNSEEN)
        c = following


cdef void table_clear(ctx_t* ctx, table_t* t, uint32_t marks) noexcept:
    """Record and forget everything, least recently active first."""
    while t.lru_first != NULL:
        table_close(ctx, t, t.lru_first, marks)
    exchange_trim(ctx)
    free(t.buckets)
    free(t.sockets)
    t.buckets = NULL
