/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* System calls: accept, connect, close, the read and write families, sendfile, splice, dup, exit. */

enum call_id {
    CALL_READ = 1,
    CALL_WRITE,
    CALL_READV,
    CALL_WRITEV,
    CALL_PREADV2,
    CALL_PWRITEV2,
    CALL_RECVFROM,
    CALL_SENDTO,
    CALL_RECVMSG,
    CALL_SENDMSG,
    CALL_RECVMMSG,
    CALL_SENDMMSG,
    CALL_SENDFILE,
    CALL_SPLICE
};

#define MMSG_MESSAGES 64 /* whose lengths are added up; the kernel takes up to 1024 */
#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000
#define MSG_NOT_DATA (MSG_PEEK | MSG_ERRQUEUE)
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030
#define CLOSE_RANGE_CLOEXEC 4

static __always_inline u64 key_of(u32 tgid, u64 fd)
{
    return (u64)tgid << 32 | (u32)fd;
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static __always_inline void note_process(u32 tgid, u32 fd, u32 want_address)
{
    struct process *p = processes.lookup(&tgid);
    if (p) {
        if (fd > p->max_fd)
            p->max_fd = fd;
        if (want_address)
            p->want_address = 1;
        return;
    }
    struct process fresh = {.max_fd = fd, .want_address = want_address};
    processes.update(&tgid, &fresh);
}

static __always_inline void blank(struct conn *c, u32 tgid, u32 fd, u32 role)
{
    c->tgid = tgid;
    c->fd = fd;
    c->gen = next_generation();
    c->ring = ring_of(tgid, fd);
    c->role = role;
}

static __always_inline void remember(u64 key, struct conn *c, u32 want_address)
{
    if (conns.update(&key, c)) {
        count(STAT_MAP_FULL, 1);
        return;
    }
    note_process(key >> 32, (u32)key, want_address);
}

/* The shared state behind an entry, or the entry itself. */
static __always_inline struct conn *resolve(struct conn *c)
{
    if (c->state != CONN_SHARED)
        return c;
    u64 id = c->shared_id;
    return shared.lookup(&id);
}

/* A descriptor goes away: close, close_range, dup2 over it. */
static __always_inline void forget(u64 key)
{
    struct conn *c = conns.lookup(&key);
    if (!c)
        return;
    if (c->state == CONN_SHARED) {
        u64 id = c->shared_id;
        struct conn *s = shared.lookup(&id);
        if (s) {
            if (s->refs > 1) {
                s->refs -= 1;
            } else {
                if (s->opened)
                    send_close(s, CLOSE_NORMAL);
                shared.delete(&id);
            }
        }
    } else if (c->opened) {
        send_close(c, CLOSE_NORMAL);
    }
    conns.delete(&key);
}

/* ---- data ------------------------------------------------------------------------------------------------------- */

/* A descriptor without an entry. Nothing is stored on a miss: files, pipes and eventfds never fill the map. */
static __always_inline struct conn *sniff(u64 key, u64 base, s64 n, u32 call)
{
    u32 w = 0;
    if (n < 8 || bpf_probe_read_user(&w, sizeof(w), (void *)base) || !usual_start(w))
        return 0;
    struct conn c = {};
    blank(&c, key >> 32, (u32)key, ROLE_UNKNOWN);
    c.state = CONN_HTTP;
    /* these calls work on sockets only; read and write on anything */
    c.start = call >= CALL_RECVFROM ? START_MID : START_UNCONFIRMED;
    remember(key, &c, 1);
    return conns.lookup(&key);
}

static __always_inline void reject(struct conn *c, u32 why)
{
    c->state = CONN_IGNORED;
    count(why, 1);
    if (c->opened)
        send_close(c, CLOSE_NOT_HTTP);
    c->opened = 0;
}

/* The first bytes of a connection whose opening was seen. May the data be captured? */
static __always_inline bool decide(struct conn *c, u64 base, u64 n, u64 whole, u32 dir)
{
    u8 b[SNIFF_BYTES] = {};
    u32 first = c->role == ROLE_CLIENT ? DIR_OUT : DIR_IN;
    u64 m = n > SNIFF_BYTES ? SNIFF_BYTES : n;
    asm volatile("" : "+r"(m));
    if (m > SNIFF_BYTES)
        return false;
    if (bpf_probe_read_user(b, m, (void *)base)) {
        count(STAT_FAULTS, 1);
        c->pos[dir & 1] += whole; /* a hole that the shard sees at the next event */
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
    u8 token = c->token;
    u32 first4 = c->first4;
#pragma clang loop unroll(disable)
    for (int i = 0; i < SNIFF_BYTES; i++) {
        if (i >= m)
            break;
        u32 v = judge_byte(b[i], &token, &first4);
        if (v == VERDICT_YES) {
            c->state = CONN_HTTP;
            return true;
        }
        if (v != VERDICT_MORE) {
            reject(c, v == VERDICT_TLS ? STAT_TLS : v == VERDICT_HTTP2 ? STAT_HTTP2 : STAT_NOT_HTTP);
            return false;
        }
    }
    c->token = token;
    c->first4 = first4;
    if (whole > m) {
        /* A vectored call: the bytes after the first buffer were not judged, so there is no going on from here. */
        if (!usual_method(first4))
            reject(c, STAT_NOT_HTTP);
        else
            c->state = CONN_HTTP;
        return c->state == CONN_HTTP;
    }
    return true;
}

/* The connection whose `n` bytes at `base` are to be captured now, or NULL. */
static __always_inline struct conn *wanted(u64 fd, u64 base, s64 n, s64 whole, u32 dir, u32 call)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u64 key = key_of(tgid, fd);
    struct conn *c = conns.lookup(&key);
    if (!c) {
        c = sniff(key, base, n, call);
        if (!c)
            return 0;
    } else {
        c = resolve(c);
        if (!c || c->state == CONN_IGNORED)
            return 0;
        if (c->state == CONN_UNDECIDED && !decide(c, base, n, whole, dir))
            return 0;
    }
    open_if_needed(c, dir);
    return c;
}

static __always_inline void end_of_stream(u64 fd)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u64 key = key_of(tgid, fd);
    struct conn *c = conns.lookup(&key);
    if (c)
        c = resolve(c);
    if (!c || c->state != CONN_HTTP || !c->opened)
        return;
    struct event_header h;
    header(&h, c, EVENT_EOF, DIR_IN);
    h.pos = c->pos[DIR_IN];
    put(c->ring, &h, sizeof(h), 0);
}

static __always_inline int on_buffer(s64 ret, u64 fd, u64 base, u64 want, u32 dir, u32 call)
{
    if (ret <= 0) {
        if (ret == 0 && dir == DIR_IN && want)
            end_of_stream(fd);
        return 0;
    }
    struct conn *c = wanted(fd, base, ret, ret, dir, call);
    if (c)
        capture(c, base, ret, dir, call);
    return 0;
}

/* Bytes that went through and cannot be copied: sendfile and splice (never in user memory), or a fault. */
static __always_inline int on_size(s64 ret, u64 fd, u32 dir, u32 call, u32 flags)
{
    if (ret <= 0)
        return 0;
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u64 key = key_of(tgid, fd);
    struct conn *c = conns.lookup(&key);
    if (c)
        c = resolve(c);
    if (!c || c->state != CONN_HTTP)
        return 0;
    struct scratch *s = scratch();
    if (!s)
        return 0;
    header(&s->h, c, EVENT_DATA, dir);
    s->h.call = call;
    s->h.pos = c->pos[dir & 1];
    c->pos[dir & 1] += ret;
    size_only(c, s, ret, flags);
    return 0;
}

static __always_inline int on_iov(s64 ret, u64 fd, u64 iov, u64 n, u32 dir, u32 call)
{
    struct user_iovec first = {};
    if (ret <= 0) {
        if (ret == 0 && dir == DIR_IN && n)
            end_of_stream(fd);
        return 0;
    }
    if (!n)
        return 0;
    if (bpf_probe_read_user(&first, sizeof(first), (void *)iov) ||
        (!first.len && n > 1 && bpf_probe_read_user(&first, sizeof(first), (void *)(iov + sizeof(first)))))
        return on_size(ret, fd, dir, call, EVENT_F_FAULT);
    s64 have = ret;
    if (first.len < (u64)ret)
        have = first.len;
    struct conn *c = wanted(fd, first.base, have, ret, dir, call);
    if (c)
        capture_iov(c, iov, n, ret, dir, call);
    return 0;
}

static __always_inline int on_msg(s64 ret, u64 fd, u64 msg, u64 flags, u32 dir, u32 call)
{
    u64 v[2] = {}; /* msg_iov, msg_iovlen of struct user_msghdr */
    if (ret < 0 || (dir == DIR_IN && flags & MSG_NOT_DATA))
        return 0;
    if (bpf_probe_read_user(v, sizeof(v), (void *)(msg + 16)))
        return on_size(ret, fd, dir, call, EVENT_F_FAULT);
    return on_iov(ret, fd, v[0], v[1], dir, call);
}

/* Of the first message the bytes of the first buffer; what else there is, as a size. Nobody was seen to use these calls
 * on TCP. */
static __always_inline int on_mmsg(s64 ret, u64 fd, u64 vec, u64 flags, u32 dir, u32 call)
{
    u64 v[2] = {};
    struct user_iovec first = {};
    if (ret <= 0 || (dir == DIR_IN && flags & MSG_NOT_DATA))
        return 0;
    struct scratch *s = scratch();
    if (!s)
        return 0;
    s->left = ret; /* in memory, or each number of messages is a state of its own for the verifier */
    s->part = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < MMSG_MESSAGES; i++) {
        u32 len = 0;
        u64 messages = s->left;
        if (i >= messages)
            break;
        if (!bpf_probe_read_user(&len, 4, (void *)(vec + i * 64 + 56)))
            s->part += len;
    }
    s64 whole = s->part;
    if (whole <= 0)
        return 0;
    if (ret > MMSG_MESSAGES)
        whole += 1 << 20; /* nobody knows how many: a hole that no message bridges */
    if (bpf_probe_read_user(v, sizeof(v), (void *)(vec + 16)) || !v[1] ||
        bpf_probe_read_user(&first, sizeof(first), (void *)v[0]))
        return on_size(whole, fd, dir, call, EVENT_F_FAULT);
    s64 have = whole;
    if (first.len < (u64)whole)
        have = first.len;
    u32 len = 0;
    if (bpf_probe_read_user(&len, 4, (void *)(vec + 56)))
        return on_size(whole, fd, dir, call, EVENT_F_FAULT);
    if (len < have)
        have = len;
    if (have <= 0)
        return on_size(whole, fd, dir, call, EVENT_F_FAULT);
    struct conn *c = wanted(fd, first.base, have, whole, dir, call);
    if (!c)
        return 0;
    capture_chunks(c, first.base, have, dir, call);
    if (whole > have) {
        header(&s->h, c, EVENT_DATA, dir);
        s->h.pos = c->pos[dir & 1];
        c->pos[dir & 1] += whole - have;
        size_only(c, s, whole - have, EVENT_F_FAULT);
    }
    return 0;
}

/* ---- openings --------------------------------------------------------------------------------------------------- */

struct user_sockaddr {
    u16 family;
    u16 port; /* network order */
    u8 rest[24];
};

static __always_inline u16 swap16(u16 v)
{
    return (u16)(v << 8 | v >> 8);
}

static __always_inline void map4(u8 *out, const u8 *v4)
{
    out[10] = 0xff;
    out[11] = 0xff;
    __builtin_memcpy(out + 12, v4, 4);
}

static __always_inline int on_accept(s64 ret, u64 address)
{
    if (ret < 0)
        return 0;
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u64 key = key_of(tgid, ret);
    forget(key); /* a close was missed: its CLOSE says so */
    struct conn c = {};
    blank(&c, tgid, ret, ROLE_SERVER);
    if (address) {
        struct user_sockaddr a = {};
        if (bpf_probe_read_user(&a.family, 2, (void *)address))
            return 0;
        if (a.family == AF_INET) {
            if (bpf_probe_read_user(&a, 16, (void *)address))
                return 0;
            map4(c.remote, a.rest);
        } else if (a.family == AF_INET6) {
            if (bpf_probe_read_user(&a, 28, (void *)address))
                return 0;
            __builtin_memcpy(c.remote, a.rest + 4, 16);
        } else {
#ifndef UNIX_SOCKETS
            return 0;
#else
            if (a.family != AF_UNIX)
                return 0;
#endif
        }
        c.family = a.family;
        c.remote_port = swap16(a.port);
        if (a.family != AF_UNIX) {
            struct peer p = {};
            __builtin_memcpy(p.addr, c.remote, 16);
            p.port = c.remote_port;
            struct local_end *l = accepted.lookup(&p);
            if (l) {
                if (l->count == 1) {
                    __builtin_memcpy(c.local, l->addr, 16);
                    c.local_port = l->port;
                }
                accepted.delete(&p);
            }
        } else {
            c.remote_port = 0;
        }
    } else {
        count(STAT_NULL_ACCEPTS, 1);
    }
    remember(key, &c, !address);
    return 0;
}

/* Here, not at the exit: at SYN_SENT, inside the call, the descriptor must be known. */
static __always_inline int on_connect_enter(u64 fd, u64 address)
{
    u64 thread = bpf_get_current_pid_tgid();
    u32 tgid = thread >> 32;
    u16 family = 0;
    if (!traced(tgid) || bpf_probe_read_user(&family, 2, (void *)address))
        return 0;
    u64 key = key_of(tgid, fd);
    if (family == AF_INET || family == AF_INET6) {
        connecting.update(&thread, &key);
        return 0;
    }
#ifdef UNIX_SOCKETS
    if (family == AF_UNIX) {
        struct conn c = {};
        blank(&c, tgid, fd, ROLE_CLIENT);
        c.family = AF_UNIX;
        remember(key, &c, 0);
    }
#endif
    return 0;
}

static __always_inline int on_close(u64 fd)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    if (traced(tgid))
        forget(key_of(tgid, fd));
    return 0;
}

/* Tell every ring: connections of a process with descriptors from `first` to `last` are over. */
static __always_inline void send_exit(u32 tgid)
{
    struct event_header h = {};
    h.ts_ns = bpf_ktime_get_ns();
    h.tgid = tgid;
    h.fd = -1;
    h.type = EVENT_EXIT;
#pragma clang loop unroll(disable)
    for (int i = 0; i < RINGS; i++) {
        h.spare = i;
        put(i, &h, sizeof(h), 0);
    }
}

static __always_inline int on_close_range(s64 ret, u64 first, u64 last, u64 flags)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    if (ret || flags & CLOSE_RANGE_CLOEXEC)
        return 0;
    struct process *p = processes.lookup(&tgid);
    if (!p)
        return 0;
    u64 end = p->max_fd;
    if (last < end)
        end = last;
#pragma clang loop unroll(disable)
    for (int i = 0; i < CLOSE_RANGE_FDS; i++) {
        if (first + i > end)
            break;
        forget(key_of(tgid, first + i));
    }
    return 0;
}

/* The process is gone, or has become another program: nothing of it may be taken for the old connections. */
static __always_inline int on_process_end(u32 tgid)
{
    struct process *p = processes.lookup(&tgid);
    if (!p)
        return 0;
    u32 end = p->max_fd;
    processes.delete(&tgid);
#pragma clang loop unroll(disable)
    for (int i = 0; i < EXIT_FDS; i++) {
        if (i > end)
            break;
        u64 key = key_of(tgid, i);
        conns.delete(&key);
    }
    send_exit(tgid);
    return 0;
}

/* ---- several descriptors for one connection --------------------------------------------------------------------- */

static __always_inline int on_dup(s64 ret, u64 old)
{
    if (ret < 0 || (u64)ret == old)
        return 0;
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u64 to = key_of(tgid, ret), from = key_of(tgid, old);
    forget(to); /* dup2 over it closed it silently */
    struct conn *c = conns.lookup(&from);
    if (!c)
        return 0;
    struct conn alias = {};
    if (c->state == CONN_SHARED) {
        u64 id = c->shared_id;
        struct conn *s = shared.lookup(&id);
        if (!s)
            return 0;
        s->refs += 1;
        alias.shared_id = id;
    } else {
        u64 id = (u64)c->tgid << 32 | c->gen;
        c->refs = 2;
        if (shared.update(&id, c)) {
            count(STAT_MAP_FULL, 1);
            return 0;
        }
        c->shared_id = id;
        c->state = CONN_SHARED;
        alias.shared_id = id;
    }
    alias.state = CONN_SHARED;
    alias.tgid = tgid;
    alias.fd = ret;
    remember(to, &alias, 0);
    return 0;
}
