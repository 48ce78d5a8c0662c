/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Bytes -> events: ring choice, chunks, truncation, what nobody wants, loss count. */

#define RB_AVAIL_DATA 0 /* bpf_ringbuf_query */
#define RB_CONS_POS 2
#define RB_PROD_POS 3
#define RB_NO_WAKEUP 1
#define RB_FORCE_WAKEUP 2

static __always_inline u64 scatter(u64 conn_id)
{
    return (conn_id >> 12 ^ conn_id << 52) * 0x9E3779B97F4A7C15ULL;
}

/* The same function as in collector/router/partition.py (a test compares them). */
static __always_inline u16 ring_of(u64 conn_id)
{
    return (u16)((scatter(conn_id) >> 48) % RINGS);
}

/* A connection is read while the share of the connections is above this (shards/numbers.pxd). */
static __always_inline u64 turn_of(u64 scattered)
{
    return ((scattered ^ scattered >> 32) * 0xD6E8FEB86659FD93ULL) >> 48;
}

/*
 * Where the word of a connection's direction stands in `unwanted`, and by what tag it is known there. Connections that
 * two CPUs meet within 4 us, as both ends of one on this host are, or that are an object and its socket, differ in the
 * bits that have become the highest here: both slot and tag are of these. (shards/numbers.pxd)
 */
static __always_inline u32 word_at(u64 scattered, u32 dir)
{
    return (u32)((scattered ^ scattered >> 32) >> 18 & (UNWANTED_WORDS / 2 - 1)) * 2 + (dir & 1);
}

static __always_inline bool has_tag(u64 word, u64 scattered)
{
    return word >> 48 == scattered >> 48;
}

/* Never used twice in one boot: the time of its making on this CPU, moved on when the clock has not. Numbers with bit
 * 11 are those of objects (objects.h). */
static __always_inline u64 next_conn_id(void)
{
    u32 zero = 0;
    u64 cpu = bpf_get_smp_processor_id() & 0x7ff;
    u64 id = (bpf_ktime_get_ns() & ~0xfffULL) | cpu;
    u64 *last = last_ids.lookup(&zero);
    if (!last)
        return id;
    if (id <= *last)
        id = *last + 0x1000;
    *last = id;
    return id;
}

/* The loader is waked when a ring passes WAKE_BYTES; else it looks by itself. */
static __always_inline u64 wake(u64 before, u64 size)
{
    return before < WAKE_BYTES && before + size >= WAKE_BYTES ? RB_FORCE_WAKEUP : RB_NO_WAKEUP;
}

/* An event as it is. False when there was no room. */
static __always_inline bool put(u32 ring, void *event, u64 size, u64 bytes)
{
    int k = ring & 63;
    void *r = rings.lookup(&k);
    if (!r)
        return false;
    if (bpf_ringbuf_output(r, event, size, wake(bpf_ringbuf_query(r, RB_AVAIL_DATA), size))) {
        count(STAT_DROPPED_EVENTS, 1);
        count(STAT_DROPPED_BYTES, bytes);
        return false;
    }
    return true;
}

static __always_inline void header(struct event_header *h, struct conn *c, u32 type)
{
    h->ts_ns = bpf_ktime_get_ns();
    h->pos = 0;
    h->conn_id = c->conn_id;
    h->tgid = c->told;
    h->tid = 0;
    h->fd = c->fd;
    h->len_true = 0;
    h->len_cap = 0;
    h->type = type;
    h->dir = 0;
    h->flags = 0;
    h->source = c->source;
    h->reason = 0;
    h->call = CALL_NONE;
    h->ring = c->ring;
    h->spare = 0;
}

static __always_inline void data_header(struct event_header *h, struct conn *c, const struct call *k, u64 pos)
{
    header(h, c, EVENT_DATA);
    h->pos = pos;
    h->tgid = k->id >> 32;
    h->tid = (u32)k->id;
    h->fd = (s32)k->fd;
    h->dir = k->dir;
    h->call = k->call;
}

static __always_inline bool send_open(struct conn *c, u64 id, u64 in, u64 out)
{
    struct event_open o = {};
    header(&o.h, c, EVENT_OPEN);
    o.h.tgid = id >> 32;
    o.h.tid = (u32)id;
    o.pos[DIR_IN] = in;
    o.pos[DIR_OUT] = out;
    __builtin_memcpy(o.local, c->local, 16);
    __builtin_memcpy(o.remote, c->remote, 16);
    o.local_port = c->local_port;
    o.remote_port = c->remote_port;
    o.role = c->role;
    o.start = c->start;
    o.family = c->family;
    return put(c->ring, &o, sizeof(o), 0);
}

static __always_inline void send_close(struct conn *c, u32 reason)
{
    struct event_close e = {};
    header(&e.h, c, EVENT_CLOSE);
    e.h.reason = reason;
    e.final_pos[DIR_IN] = c->pos[DIR_IN];
    e.final_pos[DIR_OUT] = c->pos[DIR_OUT];
    put(c->ring, &e, sizeof(e), 0);
}

static __always_inline void send_eof(struct conn *c, u64 id, u32 dir, u32 call)
{
    struct event_header h;
    header(&h, c, EVENT_EOF);
    if (id) {
        h.tgid = id >> 32;
        h.tid = (u32)id;
    }
    h.dir = dir;
    h.call = call;
    h.pos = c->pos[dir & 1];
    put(c->ring, &h, sizeof(h), 0);
}

/* A client reads while the kernel has counted bytes of a request whose call has not returned. */
static __always_inline void send_ahead(struct conn *c, u64 id)
{
    struct event_header h;
    header(&h, c, EVENT_AHEAD);
    h.tgid = id >> 32;
    h.tid = (u32)id;
    put(c->ring, &h, sizeof(h), 0);
}

static __always_inline struct scratch *scratch(void)
{
    u32 cpu = bpf_get_smp_processor_id();
    return scratches.lookup(&cpu);
}

/* Bytes that are counted and not copied. */
static __always_inline void send_size(struct conn *c, const struct call *k, u64 pos, u64 n, u32 flags)
{
    struct event_header h;
    if (!n)
        return;
    data_header(&h, c, k, pos);
    h.len_true = n;
    h.flags = flags;
    put(c->ring, &h, sizeof(h), n);
}

/* As send_size, from the header in scratch memory. */
static __always_inline void size_only(struct conn *c, struct scratch *s, u64 n, u32 flags)
{
    if (!n)
        return;
    s->h.len_true = n;
    s->h.len_cap = 0;
    s->h.flags = flags;
    put(c->ring, &s->h, sizeof(s->h), n);
}

/* ---- what is not copied ----------------------------------------------------------------------------------------- */

#define WORTH_ASKING 8192 /* bytes in a row: before, no body can be beyond its limit */

/*
 * How many of the `n` bytes from `pos` on nobody wants. The shard of a connection writes the position up to which it
 * only needs the length: the rest of a body beyond COLLECTOR_BODY_BYTES whose end it knows. Words are shared by hash;
 * the tag tells whose it is. A word that is late, lost or overwritten leaves bytes to be copied for nothing; one that
 * is wrong leaves bytes out, which the size-only event shows to the shard like any other. Positions are never touched.
 */
static __always_inline u64 not_wanted(struct conn *c, u32 dir, u64 pos, u64 n)
{
    if (n < WORTH_ASKING && (c->run < WORTH_ASKING || c->run_dir != dir))
        return 0;
    u64 h = scatter(c->conn_id);
    u32 at = word_at(h, dir);
    u64 *word = unwanted.lookup(&at);
    if (!word)
        return 0;
    u64 w = *word;
    u64 until = w & 0xffffffffffffULL;
    if (!has_tag(w, h) || pos >= until)
        return 0;
    return until - pos < n ? until - pos : n;
}

/*
 * Is there no CPU for this connection, and has its shard let go of it? The share, and who is beyond it, is what the
 * shards go by, too; a shard lets go between two messages, with the word of
 * not_wanted that no position passes. Before a connection has its OPEN there is nothing to let go of.
 */
static __always_inline bool left_out(struct conn *c, u32 dir, u64 n)
{
    u32 zero = 0;
    u64 *none = beyond.lookup(&zero);
    if (!none || !*none)
        return false;
    u64 h = scatter(c->conn_id);
    if (turn_of(h) + *none < SHARES)
        return false;
    if (c->opened) {
        u32 at = word_at(h, dir);
        u64 *word = unwanted.lookup(&at);
        if (!word || !has_tag(*word, h) || (*word & 0xffffffffffffULL) != 0xffffffffffffULL)
            return false;
    } else if (c->start == START_SEEN) {
        c->start = START_MID; /* where it is met again */
        count(STAT_LEFT_OUT, 1);
    }
    count(STAT_LEFT_OUT_BYTES, n);
    return true;
}

/*
 * The shard's word comes a drain later. Until then one connection may fill no more of its ring than this: RUN_BYTES in
 * a row in one direction always (any body that is kept whole), then WINDOW_BYTES between two drains; the first time
 * that it has to be held back the loader is waked. Requests and answers that alternate begin a new run each time.
 */
static __always_inline bool too_much(struct conn *c, u32 dir, u64 n)
{
    if (c->run_dir != dir) {
        c->run_dir = dir;
        c->run = 0;
    }
    if (c->run < RUN_BYTES) {
        c->run += n;
        return false;
    }
    if (c->window + n <= WINDOW_BYTES) {
        c->window += n;
        return false;
    }
    int k = c->ring & 63;
    void *r = rings.lookup(&k);
    if (!r)
        return false;
    if (bpf_ringbuf_query(r, RB_CONS_POS) < c->window_pos) {
        if (!c->held_back) {
            void *nothing = bpf_ringbuf_reserve(r, 8, 0);
            if (nothing)
                bpf_ringbuf_discard(nothing, RB_FORCE_WAKEUP);
            c->held_back = 1;
        }
        return true;
    }
    c->window_pos = bpf_ringbuf_query(r, RB_PROD_POS);
    c->window = n;
    c->held_back = 0;
    return false;
}

/* ---- what is copied --------------------------------------------------------------------------------------------- */

/* Room for the payload of an event that is made in the ring itself: a head, a small exchange. The sizes of reservations
 * must be known to the verifier; what is not used of one is behind len_cap, and nobody reads it. */
#define ROOM_SMALL (256 - sizeof(struct event_header))
#define ROOM_MEDIUM (1088 - sizeof(struct event_header))
#define ROOM_LARGE (2112 - sizeof(struct event_header))
#define ROOM_RECORD 16384 /* the plaintext of a whole TLS record (RFC 8446 section 5.1) */

/* At most `room` bytes, without a copy in between. */
static __always_inline void capture_here(struct conn *c, const struct call *k, u64 pos, u64 base, u64 n, const u64 room)
{
    int number = c->ring & 63;
    void *r = rings.lookup(&number);
    if (!r)
        return;
    struct event_header *h = bpf_ringbuf_reserve(r, sizeof(*h) + room, 0);
    if (!h) {
        count(STAT_DROPPED_EVENTS, 1);
        count(STAT_DROPPED_BYTES, n);
        return;
    }
    data_header(h, c, k, pos);
    u64 m = n;
    asm volatile("" : "+r"(m));
    if (m > room)
        m = room;
    h->len_true = m;
    h->len_cap = m;
    if (bpf_probe_read_user(h + 1, m, (void *)base)) {
        count(STAT_FAULTS, 1);
        h->len_cap = 0;
        h->flags = EVENT_F_FAULT;
    }
    u64 size = sizeof(*h) + room + 8;
    u64 filled = bpf_ringbuf_query(r, RB_AVAIL_DATA);
    bpf_ringbuf_submit(h, wake(filled - size, size));
}

/* `n` bytes at `base`, in chunks by way of scratch memory. */
static __always_inline void capture_chunks(struct conn *c, const struct call *k, u64 pos, u64 base, u64 n)
{
    struct scratch *s = scratch();
    if (!s)
        return;
    data_header(&s->h, c, k, pos);
    if (n <= CHUNK) {
        u64 m = n;
        asm volatile("" : "+r"(m));
        if (m > CHUNK)
            return;
        s->h.len_true = m;
        s->h.len_cap = m;
        if (bpf_probe_read_user(s->data, m, (void *)base)) {
            count(STAT_FAULTS, 1);
            size_only(c, s, n, EVENT_F_FAULT);
            return;
        }
        put(c->ring, &s->h, sizeof(s->h) + m, m);
        return;
    }
    s->left = n;
    s->base = base;
#pragma clang loop unroll(disable)
    for (int i = 0; i <= CHUNKS; i++) {
        u64 m = s->left;
        if (!m)
            return;
        if (m > CHUNK)
            m = CHUNK;
        asm volatile("" : "+r"(m));
        if (m > CHUNK)
            return;
        s->h.len_true = m;
        s->h.len_cap = m;
        s->h.flags = 0;
        if (bpf_probe_read_user(s->data, m, (void *)s->base)) {
            count(STAT_FAULTS, 1);
            size_only(c, s, s->left, EVENT_F_FAULT);
            return;
        }
        put(c->ring, &s->h, sizeof(s->h) + m, m);
        s->h.pos += m;
        s->base += m;
        s->left -= m;
    }
    size_only(c, s, s->left, EVENT_F_CUT);
}

/* Bytes at both ends of a call that are copied when its middle is not: the framing of chunks is there. */
#define EDGE 128

/* `n` bytes at `base` of one call, from stream position `pos` on. */
static __always_inline void capture(struct conn *c, const struct call *k, u64 pos, u64 base, u64 n)
{
    u64 skip = not_wanted(c, k->dir, pos, n);
    u64 most = CHUNKS * CHUNK;
    if (skip) {
        count(STAT_UNWANTED_BYTES, skip);
        send_size(c, k, pos, skip, EVENT_F_SIZE_ONLY);
        if (skip >= n)
            return;
        pos += skip;
        base += skip;
        n -= skip;
    }
    if (too_much(c, k->dir, n)) {
        count(STAT_BOUNDED_BYTES, n);
        if (n < 32 * EDGE) { /* its edges would cost as much as itself */
            send_size(c, k, pos, n, EVENT_F_SIZE_ONLY);
            return;
        }
        most = EDGE;
    } else if (n <= ROOM_SMALL) {
        capture_here(c, k, pos, base, n, ROOM_SMALL);
        return;
    } else if (n <= ROOM_MEDIUM) {
        capture_here(c, k, pos, base, n, ROOM_MEDIUM);
        return;
    }
    bool whole = n <= most + EDGE;
    capture_chunks(c, k, pos, base, whole ? n : most);
    if (whole)
        return;
    send_size(c, k, pos + most, n - most - EDGE, EVENT_F_CUT);
    capture_here(c, k, pos + n - EDGE, base + n - EDGE, EDGE, ROOM_SMALL);
}

#define TINY \
    64 /* bytes that need hardly more room than their length alone: the end of a chunk, and the next one's size */

static __always_inline void capture_tiny(struct conn *c, const struct call *k, u64 pos, u64 base, u64 n)
{
    struct {
        struct event_header h;
        u8 data[TINY];
    } e = {};
    u64 m = n;
    data_header(&e.h, c, k, pos);
    asm volatile("" : "+r"(m));
    if (m > TINY)
        return;
    e.h.len_true = m;
    e.h.len_cap = m;
    if (bpf_probe_read_user(e.data, m, (void *)base)) {
        count(STAT_FAULTS, 1);
        e.h.len_cap = 0;
        e.h.flags = EVENT_F_FAULT;
    }
    put(c->ring, &e, sizeof(e.h) + (e.h.len_cap ? m : 0), m);
}

/*
 * As capture(), for programs that can be interrupted in favour of others on their CPU (uprobes): everything is made in
 * the ring, nothing in scratch memory.
 */
static __always_inline void capture_reserved(struct conn *c, const struct call *k, u64 pos, u64 base, u64 n)
{
    u64 skip = not_wanted(c, k->dir, pos, n);
    if (skip) {
        count(STAT_UNWANTED_BYTES, skip);
        send_size(c, k, pos, skip, EVENT_F_SIZE_ONLY);
        pos += skip;
        base += skip;
        n -= skip;
    }
    if (!n)
        return;
    if (too_much(c, k->dir, n)) {
        if (n <= TINY) {
            capture_tiny(c, k, pos, base, n);
            return;
        }
        count(STAT_BOUNDED_BYTES, n);
        bool edges = n >= 32 * EDGE; /* as in capture() */
        if (edges) {
            capture_here(c, k, pos, base, EDGE, ROOM_SMALL);
            pos += EDGE;
            base += EDGE;
            n -= EDGE;
        }
        send_size(c, k, pos, edges ? n - EDGE : n, EVENT_F_SIZE_ONLY);
        if (edges)
            capture_here(c, k, pos + n - EDGE, base + n - EDGE, EDGE, ROOM_SMALL);
        return;
    }
#pragma clang loop unroll(disable)
    for (int i = 0; i < CHUNKS && n >= ROOM_RECORD; i++) {
        capture_here(c, k, pos, base, ROOM_RECORD, ROOM_RECORD);
        pos += ROOM_RECORD;
        base += ROOM_RECORD;
        n -= ROOM_RECORD;
    }
    if (n > ROOM_RECORD) {
        send_size(c, k, pos, n - EDGE, EVENT_F_CUT);
        capture_here(c, k, pos + n - EDGE, base + n - EDGE, EDGE, ROOM_SMALL);
        return;
    }
    if (!n)
        return;
    if (n <= ROOM_SMALL)
        capture_here(c, k, pos, base, n, ROOM_SMALL);
    else if (n <= ROOM_LARGE)
        capture_here(c, k, pos, base, n, ROOM_LARGE);
    else
        capture_here(c, k, pos, base, n, ROOM_RECORD);
}

/* ---- vectored calls --------------------------------------------------------------------------------------------- */

struct user_iovec {
    u64 base;
    u64 len;
};

/* struct mmsghdr; without what follows `flags` it is struct msghdr. */
struct user_mmsghdr {
    u64 name;
    u64 name_bytes;
    u64 iov;
    u64 buffers;
    u64 control;
    u64 control_bytes;
    u64 flags;
    u32 length; /* bytes that went through */
    u32 pad;
};
#define MSGHDR_BYTES 56
#define MMSG_MESSAGES 64 /* of a call that are looked at; the kernel takes up to 1024 */

/* The headers of a call's messages, into scratch memory at once: each read of user memory has its price. */
static __always_inline bool read_headers(struct scratch *s, u64 base, u64 bytes)
{
    if (bytes > MMSG_MESSAGES * sizeof(struct user_mmsghdr))
        bytes = MMSG_MESSAGES * sizeof(struct user_mmsghdr);
    asm volatile("" : "+r"(bytes));
    return bytes <= MMSG_MESSAGES * sizeof(struct user_mmsghdr) && !bpf_probe_read_user(s->data, bytes, (void *)base);
}

static __always_inline struct user_mmsghdr *message_header(struct scratch *s, u64 number)
{
    asm volatile("" : "+r"(number)); /* or it becomes a pointer that walks, of which the verifier knows no end */
    return (struct user_mmsghdr *)s->data + (number & (MMSG_MESSAGES - 1));
}

#define FEW 4 /* buffers of a call that go straight into the ring */

/*
 * Up to FEW buffers, `n` bytes in all, gathered in one reservation of `room` bytes. The verifier does not relate where
 * a piece goes to how long it is, so a piece must end in the half, the quarter or the eighth of the room that its place
 * leaves. 0: it is done; -1: a piece does not fit so; nothing was put out.
 */
static __always_inline int gather_here(struct conn *c, const struct call *k, u64 pos, struct user_iovec *v, u64 n,
                                       const u64 room)
{
    int number = c->ring & 63;
    u64 at = 0;
    u32 fault = 0;
    void *r = rings.lookup(&number);
    if (!r)
        return 0;
    struct event_header *h = bpf_ringbuf_reserve(r, sizeof(*h) + room, 0);
    if (!h) {
        count(STAT_DROPPED_EVENTS, 1);
        count(STAT_DROPPED_BYTES, n);
        return 0;
    }
    u8 *to = (u8 *)(h + 1);
#pragma unroll
    for (int i = 0; i < FEW; i++) {
        u64 m = v[i].len;
        if (m > n - at)
            m = n - at;
        if (!m)
            continue;
        u64 place = at;
        asm volatile("" : "+r"(m));
        asm volatile("" : "+r"(place));
        if (place <= room / 2 && m <= room / 2)
            fault |= !!bpf_probe_read_user(to + place, m, (void *)v[i].base);
        else if (place <= room - room / 4 && m <= room / 4)
            fault |= !!bpf_probe_read_user(to + place, m, (void *)v[i].base);
        else if (place <= room - room / 8 && m <= room / 8)
            fault |= !!bpf_probe_read_user(to + place, m, (void *)v[i].base);
        else {
            bpf_ringbuf_discard(h, RB_NO_WAKEUP);
            return -1;
        }
        at += m;
    }
    data_header(h, c, k, pos);
    h->len_true = n;
    h->len_cap = n;
    if (fault) {
        count(STAT_FAULTS, 1);
        h->len_cap = 0;
        h->flags = EVENT_F_FAULT;
    }
    u64 size = sizeof(*h) + room + 8;
    u64 filled = bpf_ringbuf_query(r, RB_AVAIL_DATA);
    bpf_ringbuf_submit(h, wake(filled - size, size));
    return 0;
}

/*
 * IOV_STEPS steps over the buffers of a call whose state is in scratch memory: gathered into chunks, so that a long
 * writev is few events. True when it is done; else the program runs again, for all steps in one would be too long for
 * the verifier.
 */
static __always_inline bool gather_steps(struct conn *c, struct scratch *s)
{
    bool out_of_steps = true;
#pragma clang loop unroll(disable)
    for (int i = 0; i < IOV_STEPS; i++) {
        if (!s->left) {
            out_of_steps = false;
            break;
        }
        if (!s->part) {
            struct user_iovec v;
            if (s->iov >= s->iov_end) {
                out_of_steps = false;
                break;
            }
            if (bpf_probe_read_user(&v, sizeof(v), (void *)s->iov)) {
                s->fault = 1;
                out_of_steps = false;
                break;
            }
            s->iov += sizeof(v);
            s->base = v.base;
            s->part = v.len;
            continue;
        }
        u64 fill = s->fill;
        if (fill >= CHUNK || (fill && !s->keep && s->left > EDGE && !s->skipped)) {
            u64 full = fill;
            asm volatile("" : "+r"(full));
            if (full > CHUNK) {
                out_of_steps = false;
                break;
            }
            s->h.len_true = full;
            s->h.len_cap = full;
            s->h.flags = 0;
            put(c->ring, &s->h, sizeof(s->h) + full, full);
            s->h.pos += full;
            s->fill = 0;
            continue;
        }
        u64 m = s->part;
        if (!s->keep && s->left > EDGE) { /* the middle of what is too long: its length only */
            if (m > s->left - EDGE)
                m = s->left - EDGE;
            s->skipped += m;
            s->base += m;
            s->part -= m;
            s->left -= m;
            continue;
        }
        if (s->skipped) {
            size_only(c, s, s->skipped, EVENT_F_CUT);
            s->h.pos += s->skipped;
            s->skipped = 0;
            continue;
        }
        if (m > s->left)
            m = s->left;
        if (s->keep && m > s->keep)
            m = s->keep;
        if (m > CHUNK - fill)
            m = CHUNK - fill;
        fill &= CHUNK - 1;
        asm volatile("" : "+r"(m));
        if (m > CHUNK) {
            out_of_steps = false;
            break;
        }
        if (bpf_probe_read_user(&s->data[fill], m, (void *)s->base)) {
            s->fault = 1;
            out_of_steps = false;
            break;
        }
        s->fill += m;
        s->base += m;
        s->part -= m;
        s->left -= m;
        s->keep -= s->keep < m ? s->keep : m;
    }
    return !out_of_steps;
}

/* What was gathered and not put out yet, and what is left as a size. */
static __always_inline void gather_end(struct conn *c, struct scratch *s)
{
    u64 m = s->fill;
    asm volatile("" : "+r"(m));
    if (m && m <= CHUNK) {
        s->h.len_true = m;
        s->h.len_cap = m;
        s->h.flags = 0;
        put(c->ring, &s->h, sizeof(s->h) + m, m);
        s->h.pos += m;
    }
    if (s->skipped)
        s->left += s->skipped;
    if (s->left) {
        if (s->fault)
            count(STAT_FAULTS, 1);
        size_only(c, s, s->left, s->fault ? EVENT_F_FAULT : EVENT_F_CUT);
    }
}

/* As capture(), for `buffers` buffers at `iov`. True when it is done; else what to gather is in scratch memory. */
static __always_inline bool capture_iov(struct conn *c, const struct call *k, u64 name, u64 pos, u64 iov, u64 buffers,
                                        u64 n)
{
    if (not_wanted(c, k->dir, pos, n) >= n) { /* a call that is wanted in part is copied whole */
        count(STAT_UNWANTED_BYTES, n);
        send_size(c, k, pos, n, EVENT_F_SIZE_ONLY);
        return true;
    }
    u64 keep = CHUNKS * CHUNK;
    if (too_much(c, k->dir, n)) {
        count(STAT_BOUNDED_BYTES, n);
        keep = EDGE;
    } else if (buffers <= FEW && n <= ROOM_LARGE) {
        struct user_iovec v[FEW] = {};
        u64 size = buffers * sizeof(v[0]);
        asm volatile("" : "+r"(size));
        if (size > sizeof(v))
            return true;
        if (size && !bpf_probe_read_user(v, size, (void *)iov)) {
            if (n <= ROOM_MEDIUM / 2) {
                if (!gather_here(c, k, pos, v, n, ROOM_MEDIUM / 2))
                    return true;
            } else if (!gather_here(c, k, pos, v, n, ROOM_LARGE)) {
                return true;
            }
        }
    }
    struct scratch *s = scratch();
    if (!s)
        return true;
    data_header(&s->h, c, k, pos);
    s->left = n;
    s->iov = iov;
    s->iov_end = iov + buffers * sizeof(struct user_iovec);
    s->fill = 0;
    s->part = 0;
    s->keep = keep;
    s->skipped = 0;
    s->base = 0;
    s->fault = 0;
    s->key = name;
    return false;
}
