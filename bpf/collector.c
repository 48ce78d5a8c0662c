/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The one translation unit. collector/loader/compiler.py joins the parts in this order and defines:
 *   CHUNK, CHUNKS        bytes of one data event, events of one call
 *   IOV_STEPS            steps over the buffers of one vectored call
 *   RINGS                rings in use
 *   MAX_CONNS, MAX_SHARED, MAX_PIDS, CPUS, EXIT_FDS, CLOSE_RANGE_FDS, RING_TEMPLATE_PAGES
 *   SELECT_PIDS          only chosen processes
 *   UNIX_SOCKETS         Unix stream sockets too
 *   HOOKS_RAW            one raw sys_exit tracepoint instead of one tracepoint a call
 */
#define COLLECTOR_BPF 1
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#include <linux/ptrace.h>

#include "abi/event.h"
#include "maps.h"
#include "selection.h"
#include "recognise.h"
#include "capture.h"
#include "syscalls.h"
#include "addresses.h"

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

/* At enter for close and connect: at the exit another thread may own the number already. */
int tp_enter_close(struct tp_enter *ctx)
{
    return on_close(ctx->args[0]);
}
int tp_enter_connect(struct tp_enter *ctx)
{
    return on_connect_enter(ctx->args[0], ctx->args[1]);
}

struct tp_exit_process {
    u64 common;
};

int tp_process_exit(void *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    if ((u32)id != id >> 32)
        return 0; /* a thread; the leader speaks for the process */
    return on_process_end(id >> 32);
}

int tp_process_exec(void *ctx)
{
    return on_process_end(bpf_get_current_pid_tgid() >> 32);
}

int tp_io_uring(void *ctx)
{
    if (traced(bpf_get_current_pid_tgid() >> 32))
        count(STAT_IO_URING, 1);
    return 0;
}

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

/* ret, arguments -> what the call means. One table for both hook variants. A process that is left alone comes no
 * further than its bit: its registers are not even fetched. */
#define FOR_EACH_CALL(X)                                                                                   \
    X(read, 0, on_buffer(ret, A0(r), A1(r), A2(r), DIR_IN, CALL_READ))                                     \
    X(write, 1, on_buffer(ret, A0(r), A1(r), A2(r), DIR_OUT, CALL_WRITE))                                  \
    X(readv, 19, on_iov(ret, A0(r), A1(r), A2(r), DIR_IN, CALL_READV))                                     \
    X(writev, 20, on_iov(ret, A0(r), A1(r), A2(r), DIR_OUT, CALL_WRITEV))                                  \
    X(preadv2, 327, on_iov(ret, A0(r), A1(r), A2(r), DIR_IN, CALL_PREADV2))                                \
    X(pwritev2, 328, on_iov(ret, A0(r), A1(r), A2(r), DIR_OUT, CALL_PWRITEV2))                             \
    X(recvfrom, 45, A3(r) & MSG_NOT_DATA ? 0 : on_buffer(ret, A0(r), A1(r), A2(r), DIR_IN, CALL_RECVFROM)) \
    X(sendto, 44, on_buffer(ret, A0(r), A1(r), A2(r), DIR_OUT, CALL_SENDTO))                               \
    X(recvmsg, 47, on_msg(ret, A0(r), A1(r), A2(r), DIR_IN, CALL_RECVMSG))                                 \
    X(sendmsg, 46, on_msg(ret, A0(r), A1(r), A2(r), DIR_OUT, CALL_SENDMSG))                                \
    X(recvmmsg, 299, on_mmsg(ret, A0(r), A1(r), A3(r), DIR_IN, CALL_RECVMMSG))                             \
    X(sendmmsg, 307, on_mmsg(ret, A0(r), A1(r), A3(r), DIR_OUT, CALL_SENDMMSG))                            \
    X(sendfile64, 40, on_size(ret, A0(r), DIR_OUT, CALL_SENDFILE, EVENT_F_SIZE_ONLY))                      \
    X(splice, 275,                                                                                         \
      (on_size(ret, A0(r), DIR_IN, CALL_SPLICE, EVENT_F_SIZE_ONLY),                                        \
       on_size(ret, A2(r), DIR_OUT, CALL_SPLICE, EVENT_F_SIZE_ONLY)))                                      \
    X(accept, 43, on_accept(ret, A1(r)))                                                                   \
    X(accept4, 288, on_accept(ret, A1(r)))                                                                 \
    X(dup, 32, on_dup(ret, A0(r)))                                                                         \
    X(dup2, 33, on_dup(ret, A0(r)))                                                                        \
    X(dup3, 292, on_dup(ret, A0(r)))                                                                       \
    X(fcntl, 72, A1(r) == F_DUPFD || A1(r) == F_DUPFD_CLOEXEC ? on_dup(ret, A0(r)) : 0)                    \
    X(close_range, 436, on_close_range(ret, A0(r), A1(r), A2(r)))

#ifndef HOOKS_RAW
/* Kernel >= 5.15: the arguments from the saved user registers, at the exit of the covered calls only. */
#define ONE_CALL(name, number, what)                                                                \
    int tp_exit_##name(struct tp_exit *ctx)                                                         \
    {                                                                                               \
        s64 ret = ctx->ret;                                                                         \
        if (ret < 0 || !traced(bpf_get_current_pid_tgid() >> 32))                                   \
            return 0;                                                                               \
        struct pt_regs *r = (struct pt_regs *)bpf_task_pt_regs((void *)bpf_get_current_task_btf()); \
        what;                                                                                       \
        return 0;                                                                                   \
    }
FOR_EACH_CALL(ONE_CALL)
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

#define ONE_CALL(name, number, what)                            \
    int raw_exit_##name(struct bpf_raw_tracepoint_args *ctx)    \
    {                                                           \
        s64 ret = ctx->args[1];                                 \
        struct argument_regs copy = {}, *r = &copy;             \
        struct pt_regs *regs = (struct pt_regs *)ctx->args[0];  \
        bpf_probe_read_kernel(&copy, sizeof(copy), &regs->r10); \
        what;                                                   \
        return 0;                                               \
    }
FOR_EACH_CALL(ONE_CALL)

int raw_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 tail[3] = {}; /* orig_ax, ip, cs */
    struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
    if ((s64)ctx->args[1] < 0 || !traced(bpf_get_current_pid_tgid() >> 32))
        return 0;
    bpf_probe_read_kernel(tail, sizeof(tail), &regs->orig_ax);
    if (tail[0] > 511 || tail[2] != 0x33)
        return 0;
    calls.call(ctx, (int)tail[0]);
    return 0;
}
#endif
