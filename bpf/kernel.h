/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What is read of the kernel's own structures, where sockets are the identity. The offsets (TASK_FILES, ...) come from
 * the running kernel's BTF (collector/loader/btf.py, collector/loader/offsets.py); no kernel header is needed.
 *
 *     task -> files -> fdt -> fd[n] -> file -> private_data: socket -> sk: sock_common, sock, inet_connection_sock,
 * tcp_sock
 *
 * A socket has one struct file as long as it has a descriptor anywhere: dup, fork, SCM_RIGHTS and exec share it. So the
 * file's address is the name by which a connection is found, at the price of one read.
 *
 * Reads fail softly: what is not there reads as 0, and 0 is no socket.
 */
#ifdef IDENTITY_SOCKET

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define SOCK_STREAM 1

enum tcp_state {
    TCP_ESTABLISHED = 1,
    TCP_FIN_WAIT1 = 4,
    TCP_TIME_WAIT = 6, /* from here on, but for LISTEN, the peer's FIN has come, or a reset */
    TCP_CLOSE = 7,
    TCP_LAST_ACK = 9,
    TCP_LISTEN = 10
};

#define KREAD(to, from) bpf_probe_read_kernel(&(to), sizeof(to), (void *)(from))

static __always_inline u64 read_u64(u64 at)
{
    u64 v = 0;
    KREAD(v, at);
    return v;
}

static __always_inline u32 read_u32(u64 at)
{
    u32 v = 0;
    KREAD(v, at);
    return v;
}

static __always_inline u16 read_u16(u64 at)
{
    u16 v = 0;
    KREAD(v, at);
    return v;
}

static __always_inline u8 read_u8(u64 at)
{
    u8 v = 0;
    KREAD(v, at);
    return v;
}

/* The struct file behind a descriptor of the calling task, or 0. */
static __always_inline u64 file_of(u64 fd)
{
#ifdef HOOKS_RAW
    u64 files = read_u64(bpf_get_current_task() + TASK_FILES);
    u64 table = read_u64(files + FILES_FDT);
    u32 most = read_u32(table + FDT_MAX_FDS);
    u64 array = read_u64(table + FDT_FD);
#else
    /* typed by the verifier: plain loads */
    char *task = (char *)bpf_get_current_task_btf();
    char *files = *(char **)(task + TASK_FILES);
    char *table = *(char **)(files + FILES_FDT);
    u32 most = *(u32 *)(table + FDT_MAX_FDS);
    u64 array = *(u64 *)(table + FDT_FD);
#endif
    if ((u32)fd >= most)
        return 0;
    return read_u64(array + (u64)(u32)fd * 8);
}

/* The struct sock behind a file, or 0 when it is no socket: a socket's file points to its struct socket, and that back.
 */
static __always_inline u64 sock_of(u64 file)
{
    u64 both[2] = {}; /* socket.file, socket.sk: neighbours */
    u64 socket = read_u64(file + FILE_PRIVATE_DATA);
    if (!socket || bpf_probe_read_kernel(both, sizeof(both), (void *)(socket + SOCKET_FILE)))
        return 0;
    return both[0] == file ? both[1] : 0;
}

#define KIND_UDP 3

/* 1: TCP with counters of its own; 2: a stream without (MPTCP, kTLS, Unix); KIND_UDP; 0: not for us. */
static __always_inline u32 kind_of_sock(u64 sk, u16 *family)
{
    u16 f = read_u16(sk + SK_FAMILY);
    *family = f;
#ifdef UNIX_SOCKETS
    if (f == AF_UNIX)
        return read_u16(sk + SK_TYPE) == SOCK_STREAM ? 2 : 0;
#endif
    if (f != AF_INET && f != AF_INET6)
        return 0;
    u16 protocol = read_u16(sk + SK_PROTOCOL);
    if (protocol == IPPROTO_MPTCP)
        return 2;
    if (protocol == IPPROTO_UDP)
        return KIND_UDP;
    if (protocol != IPPROTO_TCP || read_u16(sk + SK_TYPE) != SOCK_STREAM) /* raw sockets have protocols too */
        return 0;
    return read_u64(sk + ICSK_ULP_OPS) ? 2 : 1; /* an upper layer (kTLS) makes other bytes of ours */
}

/* Two ends without a name: made by socketpair(), nobody's server and nobody's client. */
static __always_inline bool is_socketpair(u64 sk)
{
#if defined(UNIX_SOCKETS) && defined(UNIX_ADDR)
    u64 peer = read_u64(sk + UNIX_PEER);
    return !read_u64(sk + UNIX_ADDR) && !(peer && read_u64(peer + UNIX_ADDR));
#else
    return false;
#endif
}

static __always_inline u32 counter_of(u64 sk, u32 dir)
{
    return read_u32(sk + (dir == DIR_OUT ? TCP_WRITE_SEQ : TCP_COPIED_SEQ));
}

/* Was the peer's FIN read? It is one more in the counter: often in the very call that read the last bytes before it. */
static __always_inline bool fin_was_read(u64 sk)
{
    u8 state = read_u8(sk + SK_STATE);
    return state >= TCP_TIME_WAIT && state != TCP_LISTEN && counter_of(sk, DIR_IN) == read_u32(sk + TCP_RCV_NXT);
}

/* Is the last descriptor of a file being closed just now? Then nobody uses it any more. */
static __always_inline bool last_close(u64 file)
{
    return (s64)(read_u64(file + FILE_COUNT) - FILE_COUNT_ONE) < 0;
}

/*
 * Bytes that the program had read when the counter stood at `counter` (the peer's FIN counts as one once it was read),
 * 64 bits wide. More may arrive while we look: two looks that agree are a consistent one.
 */
static __always_inline u64 total_in(u64 sk, u32 counter)
{
    u64 received = 0;
    u32 next = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < 3; i++) {
        next = read_u32(sk + TCP_RCV_NXT);
        received = read_u64(sk + TCP_BYTES_RECEIVED);
        if (read_u32(sk + TCP_RCV_NXT) == next)
            break;
    }
    return received - (u32)(next - counter);
}

/* Likewise what was written to it; an active opener's SYN counts as one. */
static __always_inline u64 total_out(u64 sk, u32 counter)
{
    u64 acked = 0;
    u32 una = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < 3; i++) {
        una = read_u32(sk + TCP_SND_UNA);
        acked = read_u64(sk + TCP_BYTES_ACKED);
        if (read_u32(sk + TCP_SND_UNA) == una)
            break;
    }
    return acked + (s64)(s32)(counter - una); /* what was written since then may be acknowledged already */
}

static __always_inline void ends_of(u64 sk, struct conn *c)
{
    c->local_port = swap16(read_u16(sk + INET_SPORT));
    c->remote_port = swap16(read_u16(sk + SK_DPORT));
    if (c->family == AF_INET) {
        u32 v4[2] = {}; /* skc_daddr, skc_rcv_saddr: neighbours since the kernel hashes them as one */
        bpf_probe_read_kernel(v4, sizeof(v4), (void *)(sk + SK_DADDR));
        map4(c->remote, (u8 *)&v4[0]);
        map4(c->local, (u8 *)&v4[1]);
    } else {
        bpf_probe_read_kernel(c->remote, 16, (void *)(sk + SK_V6_DADDR));
        bpf_probe_read_kernel(c->local, 16, (void *)(sk + SK_V6_RCV_SADDR));
    }
}

/* When the calling process began: its leading thread, whoever called. */
static __always_inline u64 start_of_current(void)
{
    u64 leader = read_u64((u64)bpf_get_current_task() + TASK_GROUP_LEADER);
    return read_u64(leader + TASK_START_BOOTTIME);
}

/* Name and start of the calling process, likewise. */
static __always_inline void describe_process(struct event_process *e)
{
    u64 leader = read_u64((u64)bpf_get_current_task() + TASK_GROUP_LEADER);
    e->start_ns = read_u64(leader + TASK_START_BOOTTIME);
    bpf_probe_read_kernel(e->comm, sizeof(e->comm), (void *)(leader + TASK_COMM));
}

#endif
