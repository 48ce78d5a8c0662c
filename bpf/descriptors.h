/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Identity by descriptor: for kernels without BTF, or that do not let kernel memory be read. dup, close, close_range,
 * exec and exit are followed; both ends of a connection come from the state changes of TCP sockets:
 *
 *   accepting   SYN_RECV -> ESTABLISHED: {peer -> local end}, taken by accept, which knows the peer
 *   connecting  CLOSE -> SYN_SENT on the connecting thread: {socket -> descriptor};
 *               SYN_SENT -> ESTABLISHED of that socket, wherever: local and remote end
 */
#ifndef IDENTITY_SOCKET

#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030
#define CLOSE_RANGE_CLOEXEC 4

static __always_inline u64 key_of(u32 tgid, u64 fd)
{
    return (u64)tgid << 32 | (u32)fd;
}

/* ---- entries ---------------------------------------------------------------------------------------------------- */

/* The shared state behind an entry, or the entry itself. */
static __always_inline struct conn *resolve(struct conn *c)
{
    if (c->state != CONN_SHARED)
        return c;
    u64 id = c->shared_id;
    return shared.lookup(&id);
}

static __always_inline void note_descriptor(u32 tgid, u32 fd, u32 want_address)
{
    struct process *p = processes.lookup(&tgid);
    if (!p)
        return;
    if (fd > p->max_fd)
        p->max_fd = fd;
    if (want_address)
        p->want_address = 1;
}

/* The address of a server that did not ask for it: the socket that this very call has read from. */
static __always_inline void late_address(struct conn *c)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct ends *e = last_read.lookup(&thread);
    if (!e)
        return;
    if (bpf_ktime_get_ns() - e->ts_ns < 50000) {
        __builtin_memcpy(c->local, e->local, 16);
        __builtin_memcpy(c->remote, e->remote, 16);
        c->local_port = e->local_port;
        c->remote_port = e->remote_port;
        c->family = e->family;
    }
    last_read.delete(&thread);
}

#endif
