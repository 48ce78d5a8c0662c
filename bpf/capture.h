/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Bytes -> events: positions, chunks, truncation, ring choice, loss count. */

/* The same function as collector/router/partition.py (a test compares them). */
static __always_inline u16 ring_of(u32 tgid, s32 fd)
{
    u64 key = ((u64)tgid << 32 | (u32)fd) * 0x9E3779B97F4A7C15ULL;
    return (u16)((key >> 48) % RINGS);
}

static __always_inline u32 next_generation(void)
{
    u32 zero = 0;
    u32 *g = generations.lookup(&zero);
    if (!g)
        return 1;
    *g += 1;
    return *g << 8 | (bpf_get_smp_processor_id() & 0xff);
}

static __always_inline void put(u32 ring, void *event, u64 size, u64 bytes)
{
    int k = ring & 63;
    void *r = rings.lookup(&k);
    if (!r)
        return;
    if (bpf_ringbuf_output(r, event, size, 1 /* BPF_RB_NO_WAKEUP: the loader polls */)) {
        count(STAT_DROPPED_EVENTS, 1);
        count(STAT_DROPPED_BYTES, bytes);
    }
}

static __always_inline void header(struct event_header *h, struct conn *c, u32 type, u32 dir)
{
    h->ts_ns = bpf_ktime_get_ns();
    h->tgid = c->tgid;
    h->fd = c->fd;
    h->gen = c->gen;
    h->tid = (u32)bpf_get_current_pid_tgid();
    h->type = type;
    h->dir = dir;
    h->flags = 0;
    h->call = 0;
    h->spare = 0;
    h->len_true = 0;
    h->len_cap = 0;
    h->pos = 0;
}

static __always_inline void send_open(struct conn *c, u32 type)
{
    struct event_open o = {};
    header(&o.h, c, type, 0);
    __builtin_memcpy(o.local, c->local, 16);
    __builtin_memcpy(o.remote, c->remote, 16);
    o.local_port = c->local_port;
    o.remote_port = c->remote_port;
    o.role = c->role;
    o.start = c->start;
    o.family = c->family;
    bpf_get_current_comm(o.comm, sizeof(o.comm));
    put(c->ring, &o, sizeof(o), 0);
}

static __always_inline void send_close(struct conn *c, u32 reason)
{
    struct event_close e = {};
    header(&e.h, c, EVENT_CLOSE, 0);
    e.h.flags = reason;
    e.final_pos[0] = c->pos[0];
    e.final_pos[1] = c->pos[1];
    put(c->ring, &e, sizeof(e), 0);
}

/* The address of a server that did not ask for it: the socket that this very call has read from. */
static __always_inline void late_address(struct conn *c)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct ends *e = last_read.lookup(&thread);
    if (!e)
        return;
    if (bpf_ktime_get_ns() - e->ts_ns < 50000) {
        __builtin_memcpy(c->local, e->local, 16);
        __builtin_memcpy(c->remote, e->remote, 16);
        c->local_port = e->local_port;
        c->remote_port = e->remote_port;
        c->family = e->family;
    }
    last_read.delete(&thread);
}

static __always_inline void open_if_needed(struct conn *c, u32 dir)
{
    if (c->opened)
        return;
    c->opened = 1;
    if (!c->family && dir == DIR_IN)
        late_address(c);
    send_open(c, EVENT_OPEN);
    if (!c->family || c->start != START_SEEN) {
        struct question q = {.tgid = c->tgid, .fd = c->fd, .gen = c->gen, .ring = c->ring};
        questions.ringbuf_output(&q, sizeof(q), 1);
    }
}

static __always_inline struct scratch *scratch(void)
{
    u32 cpu = bpf_get_smp_processor_id();
    return scratches.lookup(&cpu);
}

/* Bytes that are counted and not copied. */
static __always_inline void size_only(struct conn *c, struct scratch *s, u64 n, u32 flags)
{
    if (!n)
        return;
    s->h.len_true = n;
    s->h.len_cap = 0;
    s->h.flags = flags;
    put(c->ring, &s->h, sizeof(s->h), n);
}

/* Room for the payload of an event that is made in the ring itself: a head, a small exchange. The sizes of reservations
 * must be known to the verifier; what is not used of one is behind len_cap and read by nobody. */
#define ROOM_SMALL (256 - sizeof(struct event_header))
#define ROOM_MEDIUM (1088 - sizeof(struct event_header))

/* At most `room` bytes, without a copy in between. */
static __always_inline void capture_here(struct conn *c, u64 base, u64 n, u32 dir, u32 call, const u64 room)
{
    int k = c->ring & 63;
    u64 pos = c->pos[dir & 1];
    c->pos[dir & 1] += n;
    void *r = rings.lookup(&k);
    if (!r)
        return;
    struct event_header *h = bpf_ringbuf_reserve(r, sizeof(*h) + room, 0);
    if (!h) {
        count(STAT_DROPPED_EVENTS, 1);
        count(STAT_DROPPED_BYTES, n);
        return;
    }
    header(h, c, EVENT_DATA, dir);
    h->call = call;
    h->pos = pos;
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
    bpf_ringbuf_submit(h, 1 /* BPF_RB_NO_WAKEUP */);
}

/*
 * `n` bytes at `base` went through a call. The position moves on before anything is put out: an event that finds no
 * room is a hole that the shard can see.
 */
static __always_inline void capture_chunks(struct conn *c, u64 base, u64 n, u32 dir, u32 call)
{
    struct scratch *s = scratch();
    if (!s)
        return;
    header(&s->h, c, EVENT_DATA, dir);
    s->h.call = call;
    s->h.pos = c->pos[dir & 1];
    c->pos[dir & 1] += n;
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
    for (int i = 0; i < CHUNKS; i++) {
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

static __always_inline void capture(struct conn *c, u64 base, u64 n, u32 dir, u32 call)
{
    if (n <= ROOM_SMALL)
        capture_here(c, base, n, dir, call, ROOM_SMALL);
    else if (n <= ROOM_MEDIUM)
        capture_here(c, base, n, dir, call, ROOM_MEDIUM);
    else
        capture_chunks(c, base, n, dir, call);
}

struct user_iovec {
    u64 base;
    u64 len;
};

/* As capture(), for `count_` buffers: gathered into chunks, so that one writev is one event where it fits. */
static __always_inline void capture_iov(struct conn *c, u64 iov, u64 count_, u64 n, u32 dir, u32 call)
{
    struct scratch *s = scratch();
    if (!s)
        return;
    header(&s->h, c, EVENT_DATA, dir);
    s->h.call = call;
    s->h.pos = c->pos[dir & 1];
    c->pos[dir & 1] += n;
    s->left = n;
    s->iov = iov;
    s->fill = 0;
    s->part = 0;
    s->chunks = 0;
    s->base = 0;
    s->fault = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < IOV_STEPS; i++) {
        if (!s->left)
            break;
        if (!s->part) {
            struct user_iovec v;
            if (!count_ || s->iov >= iov + count_ * sizeof(v))
                break;
            if (bpf_probe_read_user(&v, sizeof(v), (void *)s->iov)) {
                s->fault = 1;
                break;
            }
            s->iov += sizeof(v);
            s->base = v.base;
            s->part = v.len;
            continue;
        }
        u64 fill = s->fill;
        if (fill >= CHUNK) {
            s->h.len_true = CHUNK;
            s->h.len_cap = CHUNK;
            put(c->ring, &s->h, sizeof(s->h) + CHUNK, CHUNK);
            s->h.pos += CHUNK;
            s->fill = 0;
            s->chunks += 1;
            if (s->chunks >= CHUNKS)
                break;
            continue;
        }
        u64 m = s->part;
        if (m > s->left)
            m = s->left;
        if (m > CHUNK - fill)
            m = CHUNK - fill;
        fill &= CHUNK - 1;
        asm volatile("" : "+r"(m));
        if (m > CHUNK)
            break;
        if (bpf_probe_read_user(&s->data[fill], m, (void *)s->base)) {
            s->fault = 1;
            break;
        }
        s->fill += m;
        s->base += m;
        s->part -= m;
        s->left -= m;
    }
    u64 m = s->fill;
    asm volatile("" : "+r"(m));
    if (m && m <= CHUNK) {
        s->h.len_true = m;
        s->h.len_cap = m;
        put(c->ring, &s->h, sizeof(s->h) + m, m);
        s->h.pos += m;
    }
    if (s->left) {
        if (s->fault)
            count(STAT_FAULTS, 1);
        size_only(c, s, s->left, s->fault ? EVENT_F_FAULT : EVENT_F_CUT);
    }
}
