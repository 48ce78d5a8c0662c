/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Entries of connections: how a call finds one, how it is made, how it ends.
 *
 * socket identity (IDENTITY_SOCKET)   name: the socket's struct file. Made at the first call that moves bytes, with
 * both ends and positions from the socket itself; ends with the socket (sockets.h). descriptor identity name: tgid <<
 * 32 | fd. Made at accept, connect or the first HTTP-looking data; dup, close, exec and exit are followed
 * (descriptors.h).
 */

#define UNPLACED (~0ULL) /* a position that nobody knows */

#define PROCESS_CONNECTIONS (MAX_CONNS / 2) /* of one process: it cannot push all others out of the table */

static __always_inline struct process *process_of(u32 tgid)
{
    struct process *p = processes.lookup(&tgid);
    if (p)
        return p;
    struct process fresh = {};
    processes.update(&tgid, &fresh);
    return processes.lookup(&tgid);
}

static __always_inline bool send_process(u32 tgid, u32 ring, u32 own)
{
    struct event_process e = {};
    e.h.ts_ns = bpf_ktime_get_ns();
    e.h.tgid = tgid;
    e.h.type = EVENT_PROCESS;
    e.h.ring = ring;
    e.h.fd = -1;
#ifdef IDENTITY_SOCKET
    describe_process(&e);
#else
    /* the calling thread's name: the loader mends it when that is not the leader (a question with conn_id 0) */
    bpf_get_current_comm(e.comm, sizeof(e.comm));
    if (!own) {
        struct question q = {.tgid = tgid, .fd = -1, .ring = ring};
        questions.ringbuf_output(&q, sizeof(q), 1);
    }
#endif
    e.cgroup_id = bpf_get_current_cgroup_id();
    return put(ring, &e, sizeof(e), 0);
}

#define TOLD_NS 10000000000ULL /* a name that was told longer ago is told again with the next connection */

/* The ring of a connection learns the name of a process before the first event that the process makes on it. */
static __always_inline void introduce(struct conn *c, u64 id)
{
    u32 tgid = id >> 32;
    if (c->told == tgid)
        return;
    struct process *p = process_of(tgid);
    u64 bit = 1ULL << (c->ring & 63);
    if (!p)
        return;
    u64 now = bpf_ktime_get_ns();
    if (now - p->told_ns > TOLD_NS) {
        p->told_ns = now;
        p->rings = 0;
    }
    if (!(p->rings & bit)) {
        if (!send_process(tgid, c->ring, tgid == (u32)id))
            return; /* no room: with its next call */
        p->rings |= bit;
    }
    c->told = tgid;
}

static __always_inline void blank(struct conn *c, u32 tgid, u32 fd, u32 role)
{
    c->tgid = tgid;
    c->fd = fd;
    c->conn_id = next_conn_id();
    c->ring = ring_of(c->conn_id);
    c->role = role;
}

static __always_inline bool remember(u64 name, struct conn *c)
{
    struct process *p = process_of(c->tgid);
    if (p && p->connections >= PROCESS_CONNECTIONS) {
        count(STAT_PROCESS_FULL, 1);
        return false;
    }
    if (conns.update(&name, c)) {
        count(STAT_MAP_FULL, 1);
        return false;
    }
    count(STAT_ENTRIES_MADE, 1);
    if (p)
        p->connections += 1;
    return true;
}

/* The entry goes; what the shard knows of it is closed. */
static __always_inline void end_connection(u64 name, struct conn *c, u32 reason)
{
    u32 tgid = c->tgid;
    struct process *p = processes.lookup(&tgid);
    if (p && p->connections)
        p->connections -= 1;
    count(STAT_ENTRIES_ENDED, 1);
    if (c->opened)
        send_close(c, reason);
#ifdef IDENTITY_SOCKET
    u64 sk = c->sk;
    u64 *named = names.lookup(&sk);
    if (named && *named == name) /* else its memory is another socket's already, which must not lose its own end */
        names.delete(&sk);
#endif
    conns.delete(&name);
}

static __always_inline void reject(struct conn *c, u32 why)
{
    c->state = CONN_IGNORED;
    count(why, 1);
    if (c->opened)
        send_close(c, CLOSE_NOT_HTTP);
    c->opened = 0;
}

#ifdef IDENTITY_SOCKET

static __always_inline u64 name_of(u64 id, u64 fd)
{
    return file_of(fd);
}

/* Is the entry's socket still the one behind its name, connected to the same peer? */
static __always_inline bool same_socket(u64 name, struct conn *c)
{
    u64 sk = c->sk;
    u8 peer[16] = {};
    if (sock_of(name) != sk)
        return false;
    if (c->family == AF_UNIX)
        return true;
    if (read_u16(sk + INET_SPORT) != swap16(c->local_port) || read_u16(sk + SK_DPORT) != swap16(c->remote_port))
        return false;
    if (c->family == AF_INET) {
        u32 v4 = read_u32(sk + SK_DADDR);
        map4(peer, (u8 *)&v4);
    } else {
        bpf_probe_read_kernel(peer, 16, (void *)(sk + SK_V6_DADDR));
    }
    u64 *x = (u64 *)peer, *y = (u64 *)c->remote;
    return x[0] == y[0] && x[1] == y[1];
}

/*
 * A file without an entry that `n` bytes have just gone through: the entry of its socket, or NULL when it is no stream
 * socket. Whether bytes went by before, and who opened it, is in the socket's own counters.
 */
static __always_inline struct conn *meet(u64 name, u64 id, u64 fd, u32 dir, u64 n, u32 role)
{
    u16 family = 0;
    u64 sk = sock_of(name);
    if (!sk)
        return 0;
    u32 kind = kind_of_sock(sk, &family);
    if (!kind || (family == AF_UNIX && !role && is_socketpair(sk)))
        return 0; /* here UDP could be counted by process: HTTP/3 */
    struct scratch *s = scratch();
    if (!s)
        return 0;
    struct conn *c = &s->fresh;
    __builtin_memset(c, 0, sizeof(*c));
    blank(c, id >> 32, fd, role);
    c->sk = sk;
    c->family = family;
    c->start = START_MID;
    if (family != AF_UNIX) {
        u8 state = read_u8(sk + SK_STATE);
        ends_of(sk, c);
        c->reset = state == TCP_CLOSE;
    }
    if (kind == 1) {
        u64 in = total_in(sk), out = total_out(sk);
        if ((dir == DIR_IN ? in : out) < n)
            return 0; /* these bytes are not of this socket: the descriptor was given away while the call waited */
        if (dir == DIR_IN)
            in -= n;
        else
            out -= n;
        c->counted = 1;
        c->counter[DIR_IN] = counter_of(sk, DIR_IN) - (dir == DIR_IN ? (u32)n : 0);
        c->counter[DIR_OUT] = counter_of(sk, DIR_OUT) - (dir == DIR_OUT ? (u32)n : 0);
        if (in == 1 && fin_was_read(sk))
            in = 0;
        if (!in && out <= 1) {
            c->start = START_SEEN;
            c->role = out ? ROLE_CLIENT : ROLE_SERVER;
            out = 0;
        }
        c->pos[DIR_IN] = in;
        c->pos[DIR_OUT] = out;
    } else if (role) {
        c->start = START_SEEN; /* from accept or connect */
    }
    c->state = c->start == START_SEEN ? CONN_UNDECIDED : CONN_WAITING;
    if (!remember(name, c))
        return 0;
    names.update(&sk, &name);
    return conns.lookup(&name);
}

/*
 * `n` bytes have gone through: the position of the first of them. The kernel's counter says whether others went by
 * unseen before (then there is a hole) or are still to be reported (another thread's: then this one overlaps). False:
 * the name belongs to another socket.
 */
static __always_inline bool move_on(u64 name, struct conn *c, u32 dir, u64 n, u64 *at)
{
    u32 d = dir & 1;
    u64 from = c->pos[d];
    if (!c->counted) {
        if (!same_socket(name, c))
            return false;
        *at = from;
        c->pos[d] = from + n;
        return true;
    }
    u32 now = counter_of(c->sk, dir);
    u32 went = now - c->counter[d];
    if (went != (u32)n) {
        if (!same_socket(name, c) || (c->reset && read_u8(c->sk + SK_STATE) != TCP_CLOSE)) /* or connected anew */
            return false;
        if (!went && c->early[d] < (u32)n) {
            /* another thread's call has counted these bytes already, or they are of a socket whose descriptor was
             * closed and given away while the call waited: nobody can say where they belong */
            count(STAT_UNPLACED_BYTES, n);
            *at = UNPLACED;
            return true;
        }
        c->early[d] -= c->early[d] < (u32)n ? c->early[d] : (u32)n;
        if (dir == DIR_IN && went && !(c->ended & 1) && fin_was_read(c->sk)) {
            c->ended |= 1;
            went -= 1;
        }
        if (went > (u32)n && went < 0x80000000)
            count(STAT_UNSEEN_BYTES, went - (u32)n);
    }
    c->counter[d] = now;
    c->pos[d] = from + (s64)(s32)went;
    *at = c->pos[d] >= n ? c->pos[d] - n : from;
    return true;
}

#else

static __always_inline void remember_descriptor(u64 key, struct conn *c, u32 want_address)
{
    if (remember(key, c))
        note_descriptor(key >> 32, (u32)key, want_address);
}

static __always_inline u64 name_of(u64 id, u64 fd)
{
    return (id >> 32) << 32 | (u32)fd;
}

static __always_inline bool move_on(u64 name, struct conn *c, u32 dir, u64 n, u64 *at)
{
    *at = c->pos[dir & 1];
    c->pos[dir & 1] += n;
    return true;
}

#endif

/* ---- recognition ------------------------------------------------------------------------------------------------ */

#define SNIFF_IOVS 80 /* buffers that are looked at: each may hold one byte, some none */

/* The first bytes of a call into scratch memory; how many there are. `buffers` 0: one buffer of `n` bytes at `base`. */
static __always_inline u64 first_bytes(struct scratch *s, u64 base, u64 buffers, u64 n)
{
    if (!buffers) {
        u64 m = n;
        asm volatile("" : "+r"(m));
        if (m > SNIFF_BYTES)
            m = SNIFF_BYTES;
        return bpf_probe_read_user(s->sniffed, m, (void *)base) ? 0 : m;
    }
    s->fill = 0;
    s->left = n;
    s->iov = base;
    s->iov_end = base + buffers * sizeof(struct user_iovec);
#pragma clang loop unroll(disable)
    for (int i = 0; i < SNIFF_IOVS; i++) {
        struct user_iovec v = {};
        u64 fill = s->fill;
        if (fill >= SNIFF_BYTES || !s->left || s->iov >= s->iov_end ||
            bpf_probe_read_user(&v, sizeof(v), (void *)s->iov))
            break;
        s->iov += sizeof(v);
        u64 m = v.len;
        if (m > s->left)
            m = s->left;
        if (m > SNIFF_BYTES - fill)
            m = SNIFF_BYTES - fill;
        if (!m)
            continue;
        fill &= SNIFF_BYTES - 1;
        asm volatile("" : "+r"(m));
        if (m > SNIFF_BYTES || bpf_probe_read_user(&s->sniffed[fill], m, (void *)v.base))
            break;
        s->fill += m;
        s->left -= m;
    }
    return s->fill;
}

/* The first bytes of a connection whose opening was seen. May the data be captured? */
static __always_inline bool decide(struct conn *c, struct scratch *s, u64 m, u64 n, u32 dir)
{
    u8 *b = s->sniffed;
    u32 first = c->role == ROLE_CLIENT ? DIR_OUT : DIR_IN;
    if (!m) {
        count(STAT_FAULTS, 1); /* a hole that the shard sees at the next event */
        return false;
    }
    if (dir != first) {
        /* the answering side speaks first: only an early HTTP answer is ours */
        if (m >= 4 && b[0] == 'H' && b[1] == 'T' && b[2] == 'T' && b[3] == 'P') {
            c->state = CONN_HTTP;
            return true;
        }
        reject(c, STAT_NOT_HTTP);
        return false;
    }
    /* the state stays in the entry: in registers it would multiply the verifier's states by the loop's turns */
    s->fill = m;
#pragma clang loop unroll(disable)
    for (int i = 0; i < SNIFF_BYTES; i++) {
        if (i >= s->fill)
            break;
        u8 token = c->token;
        u32 first4 = c->first4;
        u32 v = judge_byte(b[i], &token, &first4);
        c->token = token;
        c->first4 = first4;
        if (v == VERDICT_YES) {
            c->state = CONN_HTTP;
            return true;
        }
        if (v != VERDICT_MORE) {
            reject(c, v == VERDICT_TLS ? STAT_TLS : v == VERDICT_HTTP2 ? STAT_HTTP2 : STAT_NOT_HTTP);
            return false;
        }
    }
    if (n > m) {
        /* the bytes behind these were not judged, so there is no going on from here */
        if (!usual_method(c->first4))
            reject(c, STAT_NOT_HTTP);
        else
            c->state = CONN_HTTP;
        return c->state == CONN_HTTP;
    }
    return true;
}

static __always_inline bool starts_usually(struct scratch *s, u64 m)
{
    u8 *b = s->sniffed;
    return m >= 8 && usual_start((u32)b[0] | (u32)b[1] << 8 | (u32)b[2] << 16 | (u32)b[3] << 24);
}

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
enum further { DONE = 0, GATHER = 1, MEET = 2 };

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

static __always_inline u32 capture_call(struct conn *c, const struct call *k, u64 name, u64 at, u64 base, u64 buffers,
                                        u64 n)
{
    if (buffers)
        return capture_iov(c, k, name, at, base, buffers, n) ? DONE : GATHER;
    capture(c, k, at, base, n);
    return DONE;
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
    if (!c)
        return sock_of(name) ? stash(k, base, buffers, n) : DONE;
#else
    if (c) {
        c = resolve(c);
        if (!c)
            return DONE;
    } else {
        u32 first4 = 0;
        if (n < 8 || (!buffers && (bpf_probe_read_user(&first4, 4, (void *)base) || !usual_start(first4))))
            return DONE;
        return stash(k, base, buffers, n);
    }
#endif
    if (c->state == CONN_IGNORED) {
#ifdef IDENTITY_SOCKET
        if (!c->counted && !same_socket(name, c)) /* its end was not seen: nothing else would show that */
            return stash(k, base, buffers, n);
#endif
        return DONE;
    }
    if (c->state != CONN_HTTP || !c->opened || c->told != (u32)(k->id >> 32) || !move_on(name, c, k->dir, n, &at))
        return stash(k, base, buffers, n);
    if (at == UNPLACED)
        return DONE;
#ifdef IDENTITY_SOCKET
    /* the answer is not one that nobody asked for, although the request's event comes behind it */
    if (k->dir == DIR_IN && c->role == ROLE_CLIENT && c->counted && !(c->ended & 2) &&
        counter_of(c->sk, DIR_OUT) != c->counter[DIR_OUT])
        send_ahead(c, k->id);
#endif
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
        c = meet(name, k.id, k.fd, k.dir, n, 0);
        if (!c)
            return DONE;
        /* its positions are those before this call */
        at = c->pos[k.dir & 1];
        c->pos[k.dir & 1] += n;
        c->counter[k.dir & 1] += (u32)n;
    }
#else
    if (c) {
        c = resolve(c);
        if (!c)
            return DONE;
    } else {
        /* nothing is stored on a miss: files, pipes and eventfds never fill the map */
        if (!starts_usually(s, first_bytes(s, base, buffers, n)))
            return DONE;
        struct conn *fresh = &s->fresh;
        __builtin_memset(fresh, 0, sizeof(*fresh));
        blank(fresh, k.id >> 32, k.fd, ROLE_UNKNOWN);
        fresh->state = CONN_HTTP;
        /* these calls work on sockets only; read and write on anything */
        fresh->start = k.call >= CALL_RECVFROM && k.call <= CALL_SENDMMSG ? START_MID : START_UNCONFIRMED;
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
        if (!starts_usually(s, first_bytes(s, base, buffers, n)))
            return DONE;
        c->state = CONN_HTTP;
    } else if (c->state == CONN_UNDECIDED) {
        u64 m = first_bytes(s, base, buffers, n);
        if (!decide(c, s, m, n, k.dir))
            return DONE;
    } else if (c->state != CONN_HTTP) {
        return DONE;
    }
    if (!open_if_needed(c, k.id, k.dir, n)) {
        count(STAT_DROPPED_BYTES, n);
        return DONE;
    }
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
