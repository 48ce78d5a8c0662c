/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Whose is a process? Asked of the loader (collector/loader/owning.py) right before its name is told to a ring: whoever
 * reads that ring up to there, and then looks here, finds the question.
 */
struct owner_question {
    u64 cgroup_id; /* of version 2; 0 unknown */
    u64 start_ns;  /* CLOCK_BOOTTIME when it began; 0 unknown */
    u32 tgid;
    u32 ring;
};

/* To the loader, which looks often enough: nobody is waked. It may be full, where nobody has looked for long. */
BPF_RINGBUF_OUTPUT(owners, 64);
BPF_ARRAY(owners_wanted, u32, 1); /* written by the loader: does it answer at all? */

static __always_inline bool ask(struct owner_question *q, u64 flags)
{
    u32 zero = 0;
    u32 *wanted = owners_wanted.lookup(&zero);
    if (!wanted || !*wanted || !owners.ringbuf_output(q, sizeof(*q), flags))
        return true;
    count(STAT_OWNERS_LOST, 1);
    return false;
}

/* False when there is no room: its name must not be told either, so that it is tried again. */
static __always_inline bool ask_owner(struct event_process *e)
{
    struct owner_question q = {};
    q.cgroup_id = e->cgroup_id;
    q.start_ns = e->start_ns;
    q.tgid = e->h.tgid;
    q.ring = e->h.ring;
    return ask(&q, 1 /* BPF_RB_NO_WAKEUP */);
}

#define NO_RING 0xffffffff

/*
 * Number of a control group (version 2) -> what becomes of a process that begins a program in it: GROUP_CAPTURED,
 * GROUP_LEFT_ALONE, or GROUP_AS_IT_IS, as its parent. Written by the loader, where owners decide who is captured.
 */
BPF_TABLE("lru_hash", u64, u8, groups, 4096);

enum group_verdict { GROUP_CAPTURED = 0, GROUP_LEFT_ALONE = 1, GROUP_AS_IT_IS = 2 };

/*
 * Set the bit of a process that makes no call at this moment. Nobody else changes it now: so adding or subtracting it
 * changes no other one of the word (kernels before 5.12 have no other atomic operation).
 */
static __always_inline void leave_alone(u32 tgid, bool alone)
{
    u32 word = (tgid & (MAX_PIDS - 1)) >> 6;
    u64 bit = 1ULL << (tgid & 63);
    u64 *bits = pid_bits.lookup(&word);
    if (!bits || !!(*bits & bit) == alone)
        return;
    if (alone)
        __sync_fetch_and_add(bits, bit);
    else
        __sync_fetch_and_add(bits, -bit);
}

/* A process begins a program: is it captured? The loader is waked for a group that it does not know. */
static __always_inline void ask_selection(u32 tgid)
{
    struct owner_question q = {};
    q.cgroup_id = bpf_get_current_cgroup_id();
    u8 *verdict = groups.lookup(&q.cgroup_id);
    u64 wake = verdict ? 1 /* BPF_RB_NO_WAKEUP */ : 2 /* BPF_RB_FORCE_WAKEUP */;
    if (verdict && *verdict != GROUP_AS_IT_IS)
        leave_alone(tgid, *verdict == GROUP_LEFT_ALONE);
#ifdef IDENTITY_SOCKET
    q.start_ns = start_of_current();
#endif
    q.tgid = tgid;
    q.ring = NO_RING;
    if (!ask(&q, wake) && !verdict)
        leave_alone(tgid, true); /* nobody was asked, so nobody has chosen it: until all are looked at again */
}

#ifdef IDENTITY_SOCKET

/* A new process is captured if its parent is, until it begins a program. Threads have no bit of their own. */
int raw_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = ctx->args[1];
    u32 child = read_u32(task + TASK_TGID);
    if (read_u32(task + TASK_PID) == child)
        leave_alone(child, !traced(bpf_get_current_pid_tgid() >> 32));
    return 0;
}

#endif
