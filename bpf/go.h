/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Go's crypto/tls (collector/loader/probes/go.py says where, docs/decisions/0017-tls-probes.md why).
 *
 * Nothing is kept from one probe to another: goroutines change threads, and their stacks move. What is needed is in the
 * registers of a call (ABIInternal: rax, rbx, rcx, rdi, rsi, r8), or in the frame of the function, where rbp points to:
 *
 *   rbp + 24   its second argument    where it keeps them; the source has checked that it does, and that nothing else
 *   rbp + 16   the *Conn              is ever stored there
 *   rbp + 8    return address
 *   rbp        rbp of the caller
 *
 * Both places where data is taken are under the connection's lock of that direction: events have the order of the
 * bytes.
 */
#if defined(__x86_64__) || defined(__TARGET_ARCH_x86)

/* `values` of the library, beside those of enum library_value (collector/loader/probes/go.py _values). */
enum go_value {
    GO_FALLBACKS = 3, /* nothing counts references to a Conn */
    GO_FD_WRITE = 5,  /* how far the probe in FD.Write is behind the one in FD.Read */
    GO_SPANS = 6,     /* functions whose frames have the *Conn: place relative to the probe in FD.Read, size above */
    GO_SPANS_END = 8
};
#define GO_READ_RETURNS 1 /* of GO_FALLBACKS: go_read is on the returns of (*Conn).Read */
#define GO_WHOLE_WRITES 2 /* go_record is on the calls in (*Conn).Write */
#define GO_SPAN_BITS 40
#define GO_SPAN_MASK ((1ULL << GO_SPAN_BITS) - 1)
#define GO_CALLERS 24 /* frames between FD.Read and (*Conn).Read that are looked at */
#define GO_APPLICATION_DATA 23

/* The beginning of crypto/tls.Conn, the same since Go 1.17. */
struct go_conn {
    u64 type; /* of the net.Conn under it */
    u64 data; /* and its value: a pointer */
    u8 client;
};

/* net.netFD, with internal/poll.FD at its beginning; the same since Go 1.17. */
struct go_netfd {
    u64 lock[2];
    s64 fd;
    u64 other[3];
    u8 stream;
    u8 zero_is_end;
    u8 file;
    u8 pad[5];
    s64 family;
    s64 type;
    u64 connected; /* by this process */
    u64 net;       /* string: "tcp", "tcp4", "unix" */
    u64 net_bytes;
};
_Static_assert(__builtin_offsetof(struct go_netfd, family) == 56, "family");
_Static_assert(__builtin_offsetof(struct go_netfd, net) == 80, "net");
#define GO_SOCK_STREAM 1

/*
 * The descriptor under a connection; -1: it is not over a socket of package net itself, but over a type of the program
 * that may wrap one. That it is one is not known from its type, whose number differs from program to program, but from
 * what is in the structures: *net.TCPConn -> *netFD, which says of itself what kind of socket it is.
 */
static __always_inline s32 go_socket(u64 value)
{
    struct go_netfd n;
    u64 netfd = 0;
    u32 net = 0;
    if (bpf_probe_read_user(&netfd, sizeof(netfd), (void *)value) ||
        bpf_probe_read_user(&n, sizeof(n), (void *)netfd) || bpf_probe_read_user(&net, 3, (void *)n.net))
        return -1;
    if (n.type != GO_SOCK_STREAM || n.stream != 1 || n.zero_is_end != 1 || n.file || n.fd < 0 || n.fd > 0x7fffffff)
        return -1;
    if (n.family == AF_UNIX)
        return n.net_bytes == 4 && net == ('u' | 'n' << 8 | 'i' << 16) ? n.fd : -1;
    if (n.family != AF_INET && n.family != AF_INET6)
        return -1;
    return (n.net_bytes == 3 || n.net_bytes == 4) && net == ('t' | 'c' << 8 | 'p' << 16) ? n.fd : -1;
}

/* The object of a connection, with its socket if that can be known. */
static __always_inline struct object *go_object(u64 id, u64 address)
{
    struct object_key key = {.address = address, .tgid = id >> 32};
    struct object *o = objects.lookup(&key);
    struct go_conn c;
    if (o && o->socket)
        return o;
    if (bpf_probe_read_user(&c, sizeof(c), (void *)address)) {
        count(STAT_FAULTS, 1);
        return o;
    }
    if (!o)
        o = object_at(id, address, SOURCE_GO, c.client ? ROLE_CLIENT : ROLE_SERVER);
    if (!o)
        return 0;
    s32 fd = go_socket(c.data);
    struct object_key under = {.address = c.data, .tgid = id >> 32};
    struct object *inner = fd < 0 ? objects.lookup(&under) : 0;
    if (inner && inner->socket)
        fd = inner->c.fd; /* TLS inside TLS */
    o->wrapped = fd < 0;
    bind_object(o, id, fd);
    return o;
}

static __always_inline void go_bytes(struct pt_regs *ctx, u64 id, u64 address, u32 dir, u64 base, u64 n)
{
    if (!traced(id >> 32)) { /* nobody counts what goes through (tls.h) */
        end_object(id, address, CLOSE_REPLACED);
        return;
    }
    struct object *o = go_object(id, address);
    if (!o)
        return;
    const struct call k = {.id = id, .fd = (u32)o->c.fd, .dir = dir, .call = CALL_NONE};
    object_bytes(o, &k, base, n);
    if (!o->socket && o->wrapped && o->c.state == CONN_HTTP)
        want(id >> 32); /* go_fd_read, go_fd_write */
    if (o->c.opened && !tls_is_told(o))
        send_tls(o, address, bpf_get_attach_cookie(ctx));
    note_bound(o, id);
}

/* Entry of (*Conn).clientHandshake and serverHandshake: nothing has gone through it yet, unless this is a
 * renegotiation. */
int go_handshake(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), address = ctx->ax;
    u32 number = bpf_get_attach_cookie(ctx);
    struct library *l = libraries.lookup(&number);
    struct go_conn c;
    u64 version = 0;
    u8 again = 0;
    if (!traced(id >> 32) || !l || bpf_probe_read_user(&c, sizeof(c), (void *)address) || !c.data)
        return 0; /* without a net.Conn it is one of QUIC, which carries nothing itself */
    offset_of(l, VERSION_AT, &version);
    if (bpf_probe_read_user(&again, 1, (void *)(address + version + 2)) || again) /* haveVers is behind vers */
        return 0;
    object_made(id, address, SOURCE_GO, c.client ? ROLE_CLIENT : ROLE_SERVER);
    return 0;
}

/* Entry of (*Conn).Close. */
int go_close(struct pt_regs *ctx)
{
    end_object(bpf_get_current_pid_tgid(), ctx->ax, CLOSE_NORMAL);
    return 0;
}

/*
 * `call runtime.memmove` in (*Conn).Read: plaintext goes to the caller's buffer. Or, where it is not the only call of
 * that kind, the returns of the function: rsp is there what it was at the entry.
 */
int go_read(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), kept[2] = {}, at = ctx->bp + 16, base = ctx->bx, n = ctx->cx;
    u32 number = bpf_get_attach_cookie(ctx);
    struct library *l = libraries.lookup(&number);
    if (!l)
        return 0;
    bool returns = l->values[GO_FALLBACKS] & GO_READ_RETURNS;
    if (returns) {
        at = ctx->sp + 8;
        n = ctx->ax;
    }
    if ((s64)n <= 0)
        return 0;
    if (bpf_probe_read_user(kept, sizeof(kept), (void *)at) || (!returns && kept[1] != ctx->ax)) {
        count(STAT_FAULTS, 1);
        return 0;
    }
    if (returns)
        base = kept[1];
    go_bytes(ctx, id, kept[0], DIR_IN, base, n);
    return 0;
}

/*
 * `call (*halfConn).encrypt` in (*Conn).writeRecordLocked: a record is made, and then goes to the socket. By now the
 * handshake is complete and no write has failed before. Should this one fail in the socket, it is the last one. The
 * record is in rbx, and its first byte says what it is; the plaintext is in rsi, and how long it is in r8. Or, where
 * that place is not found, the calls of writeRecordLocked in (*Conn).Write: all records of one call at once.
 */
int go_record(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), address = ctx->ax, base = ctx->cx, n = ctx->di;
    u32 number = bpf_get_attach_cookie(ctx);
    struct library *l = libraries.lookup(&number);
    u8 type = ctx->bx;
    if (!l)
        return 0;
    if (!(l->values[GO_FALLBACKS] & GO_WHOLE_WRITES)) {
        base = ctx->si;
        n = ctx->r8;
        if (bpf_probe_read_user(&type, 1, (void *)ctx->bx) ||
            bpf_probe_read_user(&address, sizeof(address), (void *)(ctx->bp + 16))) {
            count(STAT_FAULTS, 1);
            return 0;
        }
    }
    if (type == GO_APPLICATION_DATA && n)
        go_bytes(ctx, id, address, DIR_OUT, base, n);
    return 0;
}

/*
 * Entry of internal/poll.(*FD).Read or Write: on demand, in processes with a connection whose net.Conn is a type of
 * their own. If a call of (*Conn).Read stands on this very stack, the socket is that of its connection. `fd_read`:
 * where the probe in FD.Read is in this process.
 */
static __always_inline int go_fd(struct pt_regs *ctx, u64 id, const struct library *l, u64 fd_read)
{
    u64 frame[2], at = ctx->bp;
    struct object_key key = {.tgid = id >> 32};
#pragma clang loop unroll(disable)
    for (int i = 0; i < GO_CALLERS; i++) {
        if (bpf_probe_read_user(frame, sizeof(frame), (void *)at) || frame[0] <= at)
            return 0;
        u64 place = frame[1] - fd_read;
#pragma unroll
        for (int span = GO_SPANS; span < GO_SPANS_END; span++) {
            u64 value = l->values[span];
            if (((place - value) & GO_SPAN_MASK) < value >> GO_SPAN_BITS) {
                s64 fd = -1;
                if (bpf_probe_read_user(&key.address, 8, (void *)(frame[0] + 16)) ||
                    bpf_probe_read_user(&fd, 8, (void *)(ctx->ax + 16)))
                    return 0;
                struct object *o = objects.lookup(&key);
                if (o && fd >= 0)
                    bind_object(o, id, fd);
                return 0;
            }
        }
        at = frame[0];
    }
    return 0;
}

int go_fd_read(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    u32 number = bpf_get_attach_cookie(ctx);
    struct library *l = libraries.lookup(&number);
    return l && traced(id >> 32) ? go_fd(ctx, id, l, ctx->ip) : 0;
}

int go_fd_write(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    u32 number = bpf_get_attach_cookie(ctx);
    struct library *l = libraries.lookup(&number);
    return l && traced(id >> 32) ? go_fd(ctx, id, l, ctx->ip - l->values[GO_FD_WRITE]) : 0;
}

#endif
