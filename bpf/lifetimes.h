/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Identity by descriptor, second part: what makes and ends entries. See descriptors.h. */
#ifndef IDENTITY_SOCKET

/* A descriptor goes away: close, close_range, dup2 over it. */
static __always_inline void forget(u64 key, u32 reason)
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
                if (s->opened || s->bound)
                    send_close(s, reason);
                shared.delete(&id);
            }
        }
    }
    if (c->state == CONN_SHARED)
        c->opened = c->bound = 0; /* the other descriptors go on */
    end_connection(key, c, reason);
}

struct user_sockaddr {
    u16 family;
    u16 port; /* network order */
    u8 rest[24];
};

static __always_inline int on_accept(u64 id, s64 ret, u64 address)
{
    if (ret < 0)
        return 0;
    u32 tgid = id >> 32;
    u64 key = key_of(tgid, ret);
    forget(key, CLOSE_REPLACED);
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
    remember_descriptor(key, &c, !address);
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
        remember_descriptor(key, &c, 0);
    }
#endif
    return 0;
}

static __always_inline int on_close(u64 id, u64 fd)
{
    u32 tgid = id >> 32;
    forget(key_of(tgid, fd), CLOSE_NORMAL);
    return 0;
}

/* Tell every ring that the connections of a process are over, behind the data that they have in it. */
static __always_inline void send_exit(u32 tgid, u32 reason)
{
    struct event_exit e = {};
    e.h.ts_ns = bpf_ktime_get_ns();
    e.h.tgid = tgid;
    e.h.fd = -1;
    e.h.type = EVENT_EXIT;
    e.h.reason = reason;
#pragma clang loop unroll(disable)
    for (int i = 0; i < RINGS; i++) {
        e.h.ring = i;
        put(i, &e, sizeof(e), 0);
    }
}

static __always_inline int on_close_range(u64 id, s64 ret, u64 first, u64 last, u64 flags)
{
    u32 tgid = id >> 32;
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
        forget(key_of(tgid, first + i), CLOSE_NORMAL);
    }
    return 0;
}

/* The process is gone, or has become another program: nothing of it may be taken for the old connections. */
static __always_inline int on_process_end(u32 tgid, u32 reason)
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
    send_exit(tgid, reason);
    return 0;
}

/* ---- several descriptors for one connection --------------------------------------------------------------------- */

static __always_inline int on_dup(u64 id, s64 ret, u64 old)
{
    if (ret < 0 || (u64)ret == old)
        return 0;
    u32 tgid = id >> 32;
    u64 to = key_of(tgid, ret), from = key_of(tgid, old);
    forget(to, CLOSE_NORMAL); /* dup2 over it closed it silently */
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
        u64 id = c->conn_id;
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
    remember_descriptor(to, &alias, 0);
    return 0;
}

/* ---- state changes of sockets --------------------------------------------------------------------------------------
 */

enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_SYN_RECV = 3, TCP_CLOSE = 7 };

struct tp_set_state {
    u64 common;
    u64 sk;
    s32 old_state;
    s32 new_state;
    u16 sport; /* host order */
    u16 dport;
    u16 family;
    u16 protocol;
    u8 saddr[4];
    u8 daddr[4];
    u8 saddr6[16];
    u8 daddr6[16];
};

static __always_inline bool same_address(const u8 *a, const u8 *b)
{
    const u32 *x = (const u32 *)a, *y = (const u32 *)b;
    return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

/* Both families come as 16 bytes: the kernel fills the v6 fields with mapped addresses for IPv4. */
int tp_set_state(struct tp_set_state *ctx)
{
    if (ctx->old_state == TCP_SYN_RECV && ctx->new_state == TCP_ESTABLISHED) {
        struct peer p = {};
        __builtin_memcpy(p.addr, ctx->daddr6, 16);
        p.port = ctx->dport;
        struct local_end fresh = {};
        __builtin_memcpy(fresh.addr, ctx->saddr6, 16);
        fresh.port = ctx->sport;
        fresh.count = 1;
        struct local_end *l = accepted.lookup(&p);
        if (l && (l->port != fresh.port || !same_address(l->addr, fresh.addr)))
            fresh.count = l->count + 1;
        accepted.update(&p, &fresh);
    } else if (ctx->new_state == TCP_SYN_SENT) {
        u64 thread = bpf_get_current_pid_tgid();
        u64 sk = ctx->sk;
        u64 *parked = connecting.lookup(&thread);
        if (!parked)
            return 0;
        u64 key = *parked;
        connecting.delete(&thread);
        forget(key, CLOSE_REPLACED);
        struct conn c = {};
        blank(&c, key >> 32, (u32)key, ROLE_CLIENT);
        c.family = ctx->family;
        __builtin_memcpy(c.remote, ctx->daddr6, 16);
        c.remote_port = ctx->dport;
        remember_descriptor(key, &c, 0);
        syn_sent.update(&sk, &key);
    } else if (ctx->old_state == TCP_SYN_SENT) {
        u64 sk = ctx->sk;
        u64 *found = syn_sent.lookup(&sk);
        if (!found)
            return 0;
        u64 key = *found;
        syn_sent.delete(&sk);
        struct conn *c = conns.lookup(&key);
        if (c && c->role == ROLE_CLIENT && ctx->new_state == TCP_ESTABLISHED && c->remote_port == ctx->dport) {
            __builtin_memcpy(c->local, ctx->saddr6, 16);
            __builtin_memcpy(c->remote, ctx->daddr6, 16);
            c->local_port = ctx->sport;
        }
    }
    return 0;
}

struct tp_tcp_recv {
    u64 common;
    u64 sk;
    u16 sport;
    u16 dport;
    u16 family;
    u8 saddr[4];
    u8 daddr[4];
    u8 saddr6[16];
    u8 daddr6[16];
    u8 pad[2];
    u64 cookie;
};

/* tcp_rcv_space_adjust fires inside every read of a TCP socket. Attached only once somebody accepts with NULL. */
int tp_tcp_recv(struct tp_tcp_recv *ctx)
{
    u64 thread = bpf_get_current_pid_tgid();
    u32 tgid = thread >> 32;
    struct process *p = processes.lookup(&tgid);
    if (!p || !p->want_address)
        return 0;
    struct ends e = {};
    e.ts_ns = bpf_ktime_get_ns();
    __builtin_memcpy(e.local, ctx->saddr6, 16);
    __builtin_memcpy(e.remote, ctx->daddr6, 16);
    e.local_port = ctx->sport;
    e.remote_port = ctx->dport;
    e.family = ctx->family;
    last_read.update(&thread, &e);
    return 0;
}

/* Of the leading thread, which speaks for the process. */
static __always_inline int on_process_exit(u32 tgid)
{
    if ((u32)bpf_get_current_pid_tgid() != tgid)
        return 0;
    return on_process_end(tgid, EXIT_PROCESS);
}

static __always_inline int on_process_exec(u32 tgid)
{
    return on_process_end(tgid, EXIT_EXEC);
}

#endif
