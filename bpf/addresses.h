/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Both ends of a connection without touching the traced program: the state changes of TCP sockets carry them.
 *
 *   accepting   SYN_RECV -> ESTABLISHED: {peer -> local end}, taken by accept, which knows the peer
 *   connecting  CLOSE -> SYN_SENT on the connecting thread: {socket -> descriptor};
 *               SYN_SENT -> ESTABLISHED of that socket, wherever: local and remote end
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
        forget(key);
        struct conn c = {};
        blank(&c, key >> 32, (u32)key, ROLE_CLIENT);
        c.family = ctx->family;
        __builtin_memcpy(c.remote, ctx->daddr6, 16);
        c.remote_port = ctx->dport;
        remember(key, &c, 0);
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
