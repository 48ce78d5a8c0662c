/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From a call that moved bytes to the events of its connection: what every hook comes to in the end. */

/* OPEN and PROCESS before the first data. False when there was no room for them: then the data may not be put out
 * either, for nobody would know where in its stream it stands; the next call tries again. */
static __always_inline bool open_if_needed(struct conn *c, u64 id, u32 dir, u64 n)
{
    introduce(c, id);
    if (c->opened)
        return true;
#ifndef IDENTITY_SOCKET
    if (!c->family && dir == DIR_IN)
        late_address(c);
#endif
    u64 in = c->pos[DIR_IN] - (dir == DIR_IN ? n : 0), out = c->pos[DIR_OUT] - (dir == DIR_OUT ? n : 0);
    if (c->start == START_SEEN) /* from the beginning, also when an earlier OPEN found no room: a hole shows that */
        in = out = 0;
    if (!send_open(c, id, in, out))
        return false;
    c->opened = 1;
#ifndef IDENTITY_SOCKET
    if (!c->family || c->start != START_SEEN) {
        struct question q = {.conn_id = c->conn_id, .tgid = c->tgid, .fd = c->fd, .ring = c->ring};
        questions.ringbuf_output(&q, sizeof(q), 1);
    }
#endif
    return true;
}

/* Which program goes on with a call (collector.c): each is verified by itself, and few calls need another one. */
enum further { DONE = 0, GATHER = 1, MEET = 2, BIND = 3, QUIC = 4 };

static __always_inline u32 stash(const struct call *k, u64 base, u64 buffers, u64 n)
{
    struct scratch *s = scratch();
    if (!s)
        return DONE;
    s->k = *k;
    s->call_base = base;
    s->call_buffers = buffers;
    s->call_bytes = n;
    return MEET;
}

static __always_inline bool begins_a_record(u64 base, u64 buffers)
{
    struct user_iovec v = {.base = base};
    u32 first4 = 0;
    if (buffers && bpf_probe_read_user(&v, sizeof(v), (void *)base))
        return false;
    return !bpf_probe_read_user(&first4, sizeof(first4), (void *)v.base) && record_start(first4);
}

/* Bytes have gone through a connection that may be what a library's object is carried by. BIND: it was no call inside
 * the library, and the library writes its records into memory. */
static __always_inline u32 claimed(struct conn *c, const struct call *k, u64 base, u64 buffers, u64 n)
{
    if (!unclaimed(c, k->id) || nested(k) || k->dir != DIR_OUT)
        return DONE;
    u32 tgid = k->id >> 32;
    u32 *how = wanting.lookup(&tgid);
    if (!how || *how != WATCHED || !begins_a_record(base, buffers))
        return DONE; /* it may be clear text, behind a preamble or a CONNECT */
    return stash(k, base, buffers, n) ? BIND : DONE;
}

static __always_inline u32 capture_call(struct conn *c, const struct call *k, u64 name, u64 at, u64 base, u64 buffers,
                                        u64 n)
{
    if (buffers)
        return capture_iov(c, k, name, at, base, buffers, n) ? DONE : GATHER;
    capture(c, k, at, base, n);
    return DONE;
}

/* Do these calls work on sockets only? read and write do on anything. */
static __always_inline bool on_socket(const struct call *k)
{
    return k->call >= CALL_RECVFROM && k->call <= CALL_SENDMMSG;
}

/* Is this an answer, and the call that writes the request has not returned? So it is not one that nobody asked for. */
static __always_inline bool answered_ahead(const struct conn *c, u32 dir)
{
#ifdef IDENTITY_SOCKET
    return dir == DIR_IN && c->role == ROLE_CLIENT && c->counted && !(c->ended & 2) &&
           counter_of(c->sk, DIR_OUT) != c->counter[DIR_OUT];
#else
    return false;
#endif
}

/*
 * `n` bytes have gone through a call. They lie at `base` (`buffers` 0), or in the `buffers` buffers of the vector
 * there. The common case is settled here: a connection that is captured already, or no socket. All else is for MEET.
 */
static __always_inline u32 on_bytes(const struct call *k, u64 base, u64 buffers, u64 n)
{
    u64 at = 0, name = name_of(k->id, k->fd);
    if (!name)
        return DONE;
    struct conn *c = conns.lookup(&name);
#ifdef IDENTITY_SOCKET
    if (!c) {
        u16 family = 0;
        u64 sk = sock_of(name);
        u32 kind = sk ? kind_of_sock(sk, &family) : 0;
        if (!kind || (kind == KIND_UDP && !begins_as_quic(base, buffers, n)))
            return DONE; /* here and not in MEET: they come with each call */
        u32 next = stash(k, base, buffers, n);
        return next && kind == KIND_UDP ? QUIC : next;
    }
#else
    if (c) {
        c = resolve(c);
        if (!c)
            return DONE;
    } else {
        u32 first4 = 0;
        if (n < 8 ||
            (!buffers && (bpf_probe_read_user(&first4, 4, (void *)base) ||
                          !(usual_start(first4) || record_start(first4) || (on_socket(k) && quic_start(first4))))))
            return DONE;
        return stash(k, base, buffers, n);
    }
#endif
    if (c->state == CONN_IGNORED) {
#ifdef IDENTITY_SOCKET
        /* was its end not seen? Nobody closes what was reset when its process is killed, and no counter tells */
        if ((!c->counted || c->reset) && !still(name, c))
            return stash(k, base, buffers, n);
#endif
        return claimed(c, k, base, buffers, n);
    }
    if (c->state != CONN_HTTP || !c->opened || c->told != (u32)(k->id >> 32) || !move_on(name, c, k->dir, n, &at))
        return stash(k, base, buffers, n);
    if (at == UNPLACED)
        return DONE;
    if (answered_ahead(c, k->dir))
        send_ahead(c, k->id);
    if (c->tls) {
        u32 next = claimed(c, k, base, buffers, n);
        if (next)
            return next;
    }
    if (left_out(c, k->dir, n))
        return DONE;
    return capture_call(c, k, name, at, base, buffers, n);
}

/* The rest of on_bytes: connections that are new, undecided, waiting for a message, or not the ones they were. */
static __always_inline u32 meet_call(void)
{
    struct scratch *s = scratch();
    if (!s)
        return DONE;
    struct call k = s->k;
    u64 base = s->call_base, buffers = s->call_buffers, n = s->call_bytes, at = 0;
    u64 name = name_of(k.id, k.fd);
    if (!name)
        return DONE;
    struct conn *c = conns.lookup(&name);
    u64 m = first_bytes(s, base, buffers, n);
#ifdef IDENTITY_SOCKET
    bool moved = false;
    if (c) {
        moved = move_on(name, c, k.dir, n, &at);
        if (!moved) {
            count(STAT_STALE, 1);
            end_connection(name, c, CLOSE_REPLACED);
        }
    }
    if (!moved) {
        bool udp = false;
        c = meet(name, k.id, k.fd, k.dir, n, m, 0, &udp);
        if (udp)
            return begins_as_quic(base, buffers, n) ? QUIC : DONE;
        if (c) {
            /* its positions are those before this call */
            at = c->pos[k.dir & 1];
            c->pos[k.dir & 1] += n;
            c->counter[k.dir & 1] += (u32)n;
        } else {
            c = conns.lookup(&name); /* another thread has made it meanwhile */
            if (!c || !move_on(name, c, k.dir, n, &at))
                return DONE;
        }
    }
#else
    if (c) {
        c = resolve(c);
        if (!c)
            return DONE;
    } else {
        /* nothing is stored on a miss: files, pipes and eventfds never fill the map */
        bool record = like_a_record(&s->sniff, m) && inside_library(k.id);
        if (!record && !starts_usually(&s->sniff, m)) /* whether it is of UDP nobody can say: by its content only */
            return on_socket(&k) && m >= QUIC_HEADER_REST && quic_packet(s->sniff.bytes) ? QUIC : DONE;
        struct conn *fresh = &s->fresh;
        __builtin_memset(fresh, 0, sizeof(*fresh));
        blank(fresh, k.id >> 32, k.fd, ROLE_UNKNOWN);
        fresh->state = record ? CONN_IGNORED : CONN_HTTP;
        fresh->tls = record;
        fresh->start = on_socket(&k) ? START_MID : START_UNCONFIRMED;
        remember_descriptor(name, fresh, 1);
        c = conns.lookup(&name);
        if (!c)
            return DONE;
    }
    move_on(name, c, k.dir, n, &at);
#endif
    if (at == UNPLACED)
        return DONE;
    if (c->state == CONN_WAITING) {
        if (!starts_usually(&s->sniff, m)) {
            c->tls |= like_a_record(&s->sniff, m);
            return claimed(c, &k, base, buffers, n);
        }
        c->state = CONN_HTTP;
    } else if (c->state == CONN_UNDECIDED) {
        if (!decide(c, &s->sniff, m, n, k.dir))
            return claimed(c, &k, base, buffers, n);
    } else if (c->state == CONN_IGNORED) {
        return claimed(c, &k, base, buffers, n);
    } else if (c->state != CONN_HTTP) {
        return DONE;
    }
#ifdef ONLY_LIBRARIES
    return claimed(c, &k, base, buffers, n);
#endif
    if (left_out(c, k.dir, n))
        return DONE;
    if (!open_if_needed(c, k.id, k.dir, n)) {
        count(STAT_DROPPED_BYTES, n);
        return DONE;
    }
    if (answered_ahead(c, k.dir))
        send_ahead(c, k.id);
    return capture_call(c, &k, name, at, base, buffers, n);
}

/* An entry that is captured already, or NULL: for what cannot be judged by its bytes. */
static __always_inline struct conn *known(const struct call *k, u64 *name)
{
    *name = name_of(k->id, k->fd);
    if (!*name)
        return 0;
    struct conn *c = conns.lookup(name);
#ifndef IDENTITY_SOCKET
    if (c)
        c = resolve(c);
#endif
    return c && c->state == CONN_HTTP ? c : 0;
}

/* `n` bytes went through and cannot be copied: sendfile, splice (never in user memory), MSG_TRUNC, or a fault. Where
 * the kernel's counters are known, those of a connection without an entry show in its first positions. */
static __always_inline int on_size(s64 n, const struct call *k, u32 flags)
{
    u64 name = 0, at = 0;
    if (n <= 0)
        return 0;
    struct conn *c = known(k, &name);
    if (!c)
        return 0;
    u64 from = c->pos[k->dir & 1];
    if (!move_on(name, c, k->dir, n, &at) || !c->opened)
        return 0;
    if (c->counted) { /* whatever the call says: all that went by */
        at = from;
        n = c->pos[k->dir & 1] - from;
        if (n <= 0)
            return 0;
    }
    introduce(c, k->id);
    send_size(c, k, at, n, flags);
    return 0;
}

/* A read returned 0: the peer's FIN was read (it counts as one in the kernel's counter), or our own shutdown. */
static __always_inline void end_of_stream(const struct call *k)
{
    u64 name = 0;
    struct conn *c = known(k, &name);
    if (!c || !c->opened)
        return;
#ifdef IDENTITY_SOCKET
    if (c->counted) {
        u32 now = counter_of(c->sk, DIR_IN);
        u32 went = now - c->counter[DIR_IN];
        if (went && !same_socket(name, c))
            return;
        c->counter[DIR_IN] = now;
        if (went && !(c->ended & 1) && fin_was_read(c->sk)) {
            c->ended |= 1;
            went -= 1;
        }
        if (went < 0x80000000)
            c->pos[DIR_IN] += went;
        if (!(c->ended & 1))
            return; /* no end: buffers without room, or our own side was shut down */
    }
#endif
    introduce(c, k->id);
    send_eof(c, k->id, DIR_IN, k->call);
}
