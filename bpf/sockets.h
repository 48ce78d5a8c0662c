/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Ends of sockets, where sockets are the identity.
 *
 *   last close(), kill, exit     -> FIN_WAIT1 or LAST_ACK or CLOSE while the last descriptor is being closed: the end
 *   shutdown(SHUT_WR)            -> FIN_WAIT1 or LAST_ACK while descriptors are left: EOF of what we send
 *   a reset, or both FINs        -> CLOSE while descriptors are left: what was received can still be read; the end
 * comes with close() what nobody saw              a sweep asks each entry whether its socket is still there
 *
 * inet_sock_set_state can fire in a softirq inside another of these programs. So it is a raw tracepoint program (a perf
 * tracepoint would be skipped in silence) and touches no scratch memory. It fires before the new state is in force.
 */
#ifdef IDENTITY_SOCKET

int raw_set_state(struct bpf_raw_tracepoint_args *ctx)
{
    u64 sk = ctx->args[0];
    u32 now = ctx->args[2];
    if (now != TCP_CLOSE && now != TCP_FIN_WAIT1 && now != TCP_LAST_ACK)
        return 0;
    u64 *found = names.lookup(&sk);
    if (!found)
        return 0;
    u64 name = *found;
    struct conn *c = conns.lookup(&name);
    if (!c || c->sk != sk) {
        names.delete(&sk);
        return 0;
    }
    /* whose bytes nobody takes; those of a library's object go on: a call of it may be under way */
    bool idle = (c->state == CONN_IGNORED || c->state == CONN_WAITING) && !(c->bound & BOUND);
    bool gone = !read_u64(sk + SK_SOCKET) || last_close(name) || (now == TCP_CLOSE && idle);
    if (c->counted && c->opened) {
        u32 out = counter_of(sk, DIR_OUT), in = counter_of(sk, DIR_IN);
        u32 went_out = out - c->counter[DIR_OUT], went_in = in - c->counter[DIR_IN];
        /* our FIN, and the peer's once it was read, are one in the counter, once */
        if (went_out && c->ended & 2 && !(c->ended & 4)) {
            c->ended |= 4;
            went_out -= 1;
        }
        if (went_in && !(c->ended & 1) && fin_was_read(sk)) {
            c->ended |= 1;
            went_in -= 1;
        }
        /* what a call that has not returned yet has moved: it will find its bytes counted (connections.h move_on) */
        if (went_out < 0x80000000) {
            c->pos[DIR_OUT] += went_out;
            c->early[DIR_OUT] += went_out;
        }
        if (went_in < 0x80000000) {
            c->pos[DIR_IN] += went_in;
            c->early[DIR_IN] += went_in;
        }
        c->counter[DIR_OUT] = out;
        c->counter[DIR_IN] = in;
    }
    if (gone) {
        end_connection(name, c, CLOSE_NORMAL);
    } else if (now == TCP_CLOSE) {
        c->reset = 1;
    } else if (!(c->ended & 2)) {
        c->ended |= 2;
        if (c->opened)
            send_eof(c, 0, DIR_OUT, CALL_SHUTDOWN);
    }
    return 0;
}

/* For the loader's sweep (BPF_PROG_TEST_RUN): args[0] is a name. 1 when its socket was gone, and now is its entry. */
int raw_sweep(struct bpf_raw_tracepoint_args *ctx)
{
    u64 name = ctx->args[0];
    struct conn *c = conns.lookup(&name);
    if (!c || same_socket(name, c))
        return 0;
    count(STAT_SWEPT, 1);
    end_connection(name, c, CLOSE_SWEPT);
    return 1;
}

static __always_inline int on_close(u64 id, u64 fd)
{
    u64 name = file_of(fd);
    if (!name)
        return 0;
    struct conn *c = conns.lookup(&name);
    if (!c)
        return 0;
    /* no further tracepoint tells the end of these: their last descriptor does, or the sweep */
    if ((c->reset || c->family == AF_UNIX) && read_u64(name + FILE_COUNT) == FILE_COUNT_ONE)
        end_connection(name, c, c->reset ? CLOSE_RESET : CLOSE_NORMAL);
    return 0;
}

/* accept and connect: only streams without counters of their own need them, to know their role and beginning. */
static __always_inline int on_opened(u64 id, u64 fd, u32 role)
{
    u16 family = 0;
    u64 name = file_of(fd);
    if (!name)
        return 0;
    u64 sk = sock_of(name);
    if (!sk || kind_of_sock(sk, &family) != 2)
        return 0;
    /* it is new, whatever was known under its name: memory of files and sockets is used again at once */
    struct conn *old = conns.lookup(&name);
    if (old)
        end_connection(name, old, CLOSE_REPLACED);
    bool udp = false;
    meet(name, id, fd, DIR_IN, 0, 0, role, &udp);
    return 0;
}

/* A thread ended: the process has if it was the last one (exec in a thread ends the leading one as well). */
static __always_inline int on_process_exit(u32 tgid)
{
    if (!read_u32(read_u64((u64)bpf_get_current_task() + TASK_SIGNAL) + SIGNAL_LIVE))
        processes.delete(&tgid);
    return 0;
}

static __always_inline int on_process_exec(u32 tgid)
{
    return 0; /* its new name comes with task_rename, a moment before */
}

/* Another name, by exec or prctl(PR_SET_NAME): told where the old one was told, if it is that of the leading thread. */
int raw_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = ctx->args[0];
    u32 tgid = read_u32(task + TASK_TGID);
    if (read_u32(task + TASK_PID) != tgid)
        return 0;
    struct process *p = processes.lookup(&tgid);
    if (!p)
        return 0;
    u64 told = p->rings;
    struct event_process e = {};
    e.h.ts_ns = bpf_ktime_get_ns();
    e.h.tgid = tgid;
    e.h.type = EVENT_PROCESS;
    e.h.fd = -1;
    e.start_ns = read_u64(task + TASK_START_BOOTTIME);
    e.cgroup_id = bpf_get_current_cgroup_id();
    bpf_probe_read_kernel_str(e.comm, sizeof(e.comm), (void *)ctx->args[1]);
#pragma clang loop unroll(disable)
    for (int i = 0; i < RINGS; i++) {
        e.h.ring = i;
        if (told >> i & 1 && !put(i, &e, sizeof(e), 0))
            p->rings &= ~(1ULL << i); /* no room: told with its next connection */
    }
    return 0;
}

#endif
