/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Processes with traffic that is not captured: the counts by which the loader names them. */

static __always_inline struct unseen *unseen_process(u32 tgid)
{
    struct unseen *u = unseen_processes.lookup(&tgid);
    if (u)
        return u;
    struct unseen fresh = {};
#ifdef IDENTITY_SOCKET
    u64 leader = read_u64((u64)bpf_get_current_task() + TASK_GROUP_LEADER);
    bpf_probe_read_kernel(fresh.comm, sizeof(fresh.comm), (void *)(leader + TASK_COMM));
#else
    bpf_get_current_comm(fresh.comm, sizeof(fresh.comm)); /* the thread's: the loader asks for the process's */
#endif
    unseen_processes.insert(&tgid, &fresh); /* not update: another thread may have counted in its own meanwhile */
    return unseen_processes.lookup(&tgid);
}

/* A connection was left out. Is it TLS? Libraries' programs come here too: the sum is atomic. */
static __always_inline void note_left_out(struct conn *c)
{
    if (!(c->tls & TLS_LIKELY))
        return;
    struct unseen *u = unseen_process(bpf_get_current_pid_tgid() >> 32);
    if (!u)
        return;
    c->tls |= TLS_COUNTED;
    lock_xadd(&u->tls, 1);
}

/* An object may have been bound to its socket: if that was counted as TLS, it is seen now. To be called last: what
 * comes behind it would be verified twice. */
static __always_inline void note_bound(struct object *o, u64 id)
{
    u32 tgid = id >> 32;
    u64 name = o->name;
    if (!o->socket || o->noted)
        return;
    o->noted = 1;
    struct unseen *u = unseen_processes.lookup(&tgid);
    struct conn *s = conns.lookup(&name);
#ifndef IDENTITY_SOCKET
    if (s)
        s = resolve(s);
#endif
    if (!u || !s || s->conn_id != o->socket || !(s->tls & TLS_COUNTED))
        return;
    s->tls &= ~TLS_COUNTED;
    lock_xadd(&u->tls_bound, 1);
}
