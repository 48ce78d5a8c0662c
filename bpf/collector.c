/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The one translation unit. collector/loader/compiler.py joins the parts in this order and defines:
 *   IDENTITY_SOCKET      a connection is known by its socket (offsets of kernel.h are defined too), else by descriptor
 *   CHUNK, CHUNKS        bytes of one data event, events of one call
 *   IOV_STEPS            steps over the buffers of one vectored call in one program
 *   RINGS                rings in use
 *   WAKE_BYTES           of a ring: the loader is waked when it holds as many
 *   RUN_BYTES, WINDOW_BYTES, UNWANTED_WORDS    what is copied of one connection (capture.h)
 *   MAX_CONNS, MAX_SHARED, MAX_PIDS, CPUS, EXIT_FDS, CLOSE_RANGE_FDS, RING_TEMPLATE_PAGES
 *   UNIX_SOCKETS         Unix stream sockets too
 *   ONLY_LIBRARIES       nothing of connections that no library's object stands for
 *   HOOKS_RAW            one raw sys_exit tracepoint instead of one tracepoint a call
 */
#define COLLECTOR_BPF 1
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#include <linux/ptrace.h>

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10

#include "abi/event.h"
#include "recognise.h"
#include "maps.h"
#include "selection.h"
#include "newcomers.h"
#include "addresses.h"
#include "kernel.h"
#include "owners.h"
#include "capture.h"
#include "descriptors.h"
#include "connections.h"
#include "frames.h"
#include "unseen.h"
#include "gate.h"
#include "quic.h"
#include "traffic.h"
#include "syscalls.h"
#include "sockets.h"
#include "lifetimes.h"
#include "objects.h"
#include "tls.h"
#include "go.h"

struct tp_exit {
    u64 common;
    s64 nr;
    s64 ret;
};

struct tp_enter {
    u64 common;
    s64 nr;
    u64 args[6];
};

/* At enter: at the exit another thread may own the number already. */
int tp_enter_close(struct tp_enter *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    if (!traced(id >> 32))
        return 0;
    return on_close(id, ctx->args[0]);
}

#ifndef IDENTITY_SOCKET
/* At enter: inside the call, at SYN_SENT, the descriptor must be known. */
int tp_enter_connect(struct tp_enter *ctx)
{
    return on_connect_enter(ctx->args[0], ctx->args[1]);
}
#endif

int tp_process_exit(void *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    leave_all(id);
    return on_process_exit(id >> 32);
}

/* ---- processes whose traffic the hooked calls do not show ----------------------------------------------------------
 */

/* A 32-bit program began: the system call tracepoints do not report its calls. */
static __always_inline void note_compat(u32 tgid)
{
#if !defined(HOOKS_RAW) && (defined(__x86_64__) || defined(__TARGET_ARCH_x86))
    struct pt_regs *r = (struct pt_regs *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
    if (r->cs != 0x23 || !traced(tgid)) /* __USER32_CS */
        return;
    struct unseen *u = unseen_process(tgid);
    if (u)
        lock_xadd(&u->compat, 1);
#endif
}

int tp_process_exec(void *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    u32 tgid = id >> 32;
    leave_all(id);
    note_compat(tgid);
    ask_selection(tgid);
    on_program(tgid);
    return on_process_exec(tgid);
}

/* io_uring: no system call moves its bytes. Its users are counted by process; where sockets are the identity, what it
 * moves shows as holes on connections that system calls use too. */
int tp_io_uring(void *ctx)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    if (!traced(tgid))
        return 0;
    count(STAT_IO_URING, 1);
    struct unseen *u = unseen_process(tgid);
    if (u)
        lock_xadd(&u->rings, 1);
    return 0;
}

struct tp_submit {
    u64 common;
    u64 ring;
    u64 req;
    u64 user_data;
    u8 opcode;
};

/* sendmsg, recvmsg, accept, connect, send, recv, send_zc, sendmsg_zc (enum io_uring_op) */
#define SOCKET_OPERATIONS \
    (1ULL << 9 | 1ULL << 10 | 1ULL << 13 | 1ULL << 16 | 1ULL << 26 | 1ULL << 27 | 1ULL << 47 | 1ULL << 48)

int tp_io_uring_submit(struct tp_submit *ctx)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u8 opcode = ctx->opcode;
    if (opcode > 63 || !(SOCKET_OPERATIONS >> opcode & 1) || !traced(tgid))
        return 0;
    struct unseen *u = unseen_process(tgid);
    if (u)
        lock_xadd(&u->operations, 1);
    return 0;
}

/* ---- system calls ----------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) || defined(__TARGET_ARCH_x86)
#define A0(r) ((r)->di)
#define A1(r) ((r)->si)
#define A2(r) ((r)->dx)
#define A3(r) ((r)->r10)
#else
#define A0(r) ((r)->orig_x0)
#define A1(r) ((r)->regs[1])
#define A2(r) ((r)->regs[2])
#define A3(r) ((r)->regs[3])
#endif

static __always_inline struct call call_of(u64 id, u64 fd, u32 dir, u32 number)
{
    struct call k = {.id = id, .fd = fd, .dir = dir, .call = number};
    return k;
}

/* ret, arguments -> what the call means. One table for both hook variants. A process that is left alone comes no
 * further than its bit: its registers are not even fetched. */
#define FOR_EACH_DATA_CALL(X)                                                       \
    X(read, 0, DIR_IN, CALL_READ, on_buffer(ret, A1(r), A2(r), 0, &k))              \
    X(write, 1, DIR_OUT, CALL_WRITE, on_buffer(ret, A1(r), A2(r), 0, &k))           \
    X(readv, 19, DIR_IN, CALL_READV, on_iov(ret, A1(r), A2(r), &k))                 \
    X(writev, 20, DIR_OUT, CALL_WRITEV, on_iov(ret, A1(r), A2(r), &k))              \
    X(preadv2, 327, DIR_IN, CALL_PREADV2, on_rare_iov(ret, A1(r), A2(r), &k))       \
    X(pwritev2, 328, DIR_OUT, CALL_PWRITEV2, on_rare_iov(ret, A1(r), A2(r), &k))    \
    X(recvfrom, 45, DIR_IN, CALL_RECVFROM, on_buffer(ret, A1(r), A2(r), A3(r), &k)) \
    X(sendto, 44, DIR_OUT, CALL_SENDTO, on_buffer(ret, A1(r), A2(r), 0, &k))        \
    X(recvmsg, 47, DIR_IN, CALL_RECVMSG, on_msg(ret, A1(r), A2(r), &k))             \
    X(sendmsg, 46, DIR_OUT, CALL_SENDMSG, on_msg(ret, A1(r), A2(r), &k))            \
    X(recvmmsg, 299, DIR_IN, CALL_RECVMMSG, on_mmsg(ret, A1(r), A3(r), &k))         \
    X(sendmmsg, 307, DIR_OUT, CALL_SENDMMSG, on_mmsg(ret, A1(r), A3(r), &k))        \
    X(sendfile64, 40, DIR_OUT, CALL_SENDFILE, on_size(ret, &k, EVENT_F_SIZE_ONLY))  \
    X(splice, 275, DIR_IN, CALL_SPLICE, on_splice(ret, A2(r), &k))

#ifdef IDENTITY_SOCKET
#define FOR_EACH_OTHER_CALL(X)                                      \
    X(accept, 43, 0, CALL_NONE, on_opened(id, ret, ROLE_SERVER))    \
    X(accept4, 288, 0, CALL_NONE, on_opened(id, ret, ROLE_SERVER))  \
    X(connect, 42, 0, CALL_NONE, on_opened(id, A0(r), ROLE_CLIENT)) \
    X(mmap, 9, 0, CALL_NONE, on_mmap(id >> 32, A2(r), A3(r)))
#else
#define FOR_EACH_OTHER_CALL(X)                                                                            \
    X(accept, 43, 0, CALL_NONE, on_accept(id, ret, A1(r)))                                                \
    X(accept4, 288, 0, CALL_NONE, on_accept(id, ret, A1(r)))                                              \
    X(dup, 32, 0, CALL_NONE, on_dup(id, ret, A0(r)))                                                      \
    X(dup2, 33, 0, CALL_NONE, on_dup(id, ret, A0(r)))                                                     \
    X(dup3, 292, 0, CALL_NONE, on_dup(id, ret, A0(r)))                                                    \
    X(fcntl, 72, 0, CALL_NONE, A1(r) == F_DUPFD || A1(r) == F_DUPFD_CLOEXEC ? on_dup(id, ret, A0(r)) : 0) \
    X(close_range, 436, 0, CALL_NONE, on_close_range(id, ret, A0(r), A1(r), A2(r)))                       \
    X(mmap, 9, 0, CALL_NONE, on_mmap(id >> 32, A2(r), A3(r)))
#endif

#define FOR_EACH_CALL(X)  \
    FOR_EACH_DATA_CALL(X) \
    FOR_EACH_OTHER_CALL(X)

/* Nothing to see: but a connect that goes on in the background is one. */
#define EINPROGRESS 115
#define FAILED(number, ret) ((ret) < 0 && !((number) == 42 && (ret) == -EINPROGRESS))

/* The programs that go on with a call, by enum further. Filled in by the loader. */
BPF_PROG_ARRAY(further, 8);

static __always_inline void jump(void *ctx, u32 to)
{
    further.call(ctx, to);
}

/* GATHER. A call of IOV_MAX buffers takes 16 of the 33 jumps that the kernel allows. */
static __always_inline u32 gather_call(void)
{
    struct scratch *s = scratch();
    if (!s)
        return DONE;
    u64 name = s->key;
    struct conn *c = conns.lookup(&name);
#ifndef IDENTITY_SOCKET
    if (c)
        c = resolve(c);
#endif
    if (!c)
        return DONE;
    if (!gather_steps(c, s))
        return GATHER;
    gather_end(c, s);
    return DONE;
}

#ifndef HOOKS_RAW
/* Kernel >= 5.15: the arguments from the saved user registers, at the exit of the covered calls only. */
#define ONE_CALL(name, number, dir_, call_, what)                                                   \
    int tp_exit_##name(struct tp_exit *ctx)                                                         \
    {                                                                                               \
        s64 ret = ctx->ret;                                                                         \
        u64 id = bpf_get_current_pid_tgid();                                                        \
        if (FAILED(number, ret) || !traced(id >> 32))                                               \
            return 0;                                                                               \
        struct pt_regs *r = (struct pt_regs *)bpf_task_pt_regs((void *)bpf_get_current_task_btf()); \
        const struct call k = call_of(id, A0(r), dir_, call_);                                      \
        u32 next = what;                                                                            \
        if (next)                                                                                   \
            jump(ctx, next);                                                                        \
        return 0;                                                                                   \
    }
FOR_EACH_CALL(ONE_CALL)

int tp_gather(struct tp_exit *ctx)
{
    u32 next = gather_call();
    if (next)
        jump(ctx, next);
    return 0;
}

int tp_meet(struct tp_exit *ctx)
{
    u32 next = meet_call();
    if (next)
        jump(ctx, next);
    return 0;
}

int tp_bind(struct tp_exit *ctx)
{
    return carried_by();
}

int tp_quic(struct tp_exit *ctx)
{
    struct pt_regs *r = (struct pt_regs *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
    return quic_call(A1(r), ctx->ret);
}
#else
/*
 * Kernel >= 5.8: one raw tracepoint for every call of the node, which jumps to the covered call's program (filled in by
 * the loader; one program for all would need more stack than there is). 32-bit programs are left out: their numbers
 * mean other calls.
 */
BPF_PROG_ARRAY(calls, 512);

/* The argument registers of struct pt_regs, r10 to di: what is read of it. */
struct argument_regs {
    unsigned long r10, r9, r8, ax, cx, dx, si, di;
};

#define ONE_CALL(name, number, dir_, call_, what)               \
    int raw_exit_##name(struct bpf_raw_tracepoint_args *ctx)    \
    {                                                           \
        s64 ret = ctx->args[1];                                 \
        u64 id = bpf_get_current_pid_tgid();                    \
        struct argument_regs copy = {}, *r = &copy;             \
        struct pt_regs *regs = (struct pt_regs *)ctx->args[0];  \
        bpf_probe_read_kernel(&copy, sizeof(copy), &regs->r10); \
        const struct call k = call_of(id, A0(r), dir_, call_);  \
        u32 next = what;                                        \
        if (next)                                               \
            jump(ctx, next);                                    \
        return 0;                                               \
    }
FOR_EACH_CALL(ONE_CALL)

int raw_gather(struct bpf_raw_tracepoint_args *ctx)
{
    u32 next = gather_call();
    if (next)
        jump(ctx, next);
    return 0;
}

int raw_meet(struct bpf_raw_tracepoint_args *ctx)
{
    u32 next = meet_call();
    if (next)
        jump(ctx, next);
    return 0;
}

int raw_bind(struct bpf_raw_tracepoint_args *ctx)
{
    return carried_by();
}

int raw_quic(struct bpf_raw_tracepoint_args *ctx)
{
    struct argument_regs copy = {}, *r = &copy;
    struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
    bpf_probe_read_kernel(&copy, sizeof(copy), &regs->r10);
    return quic_call(A1(r), ctx->args[1]);
}

int raw_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 tail[3] = {}; /* orig_ax, ip, cs */
    struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
    s64 ret = ctx->args[1];
    if ((ret < 0 && ret != -EINPROGRESS) || !traced(bpf_get_current_pid_tgid() >> 32))
        return 0;
    bpf_probe_read_kernel(tail, sizeof(tail), &regs->orig_ax);
    if (tail[2] == 0x23) { /* __USER32_CS */
        struct unseen *u = unseen_process(bpf_get_current_pid_tgid() >> 32);
        if (u)
            lock_xadd(&u->compat, 1);
    }
    if (tail[0] > 511 || tail[2] != 0x33)
        return 0;
    calls.call(ctx, (int)tail[0]);
    return 0;
}
#endif
