/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Entries of connections: how a call finds one, how it is made, how it ends.
 *
 * socket identity (IDENTITY_SOCKET)   name: the socket's struct file. Made at the first call that moves bytes, with
 * both ends and positions from the socket itself; ends with the socket (sockets.h). descriptor identity name: tgid <<
 * 32 | fd. Made at accept, connect or the first HTTP-looking data; dup, close, exec and exit are followed
 * (descriptors.h).
 */

#define UNPLACED (~0ULL) /* a position that nobody knows */

#define PROCESS_CONNECTIONS (s32)(MAX_CONNS / 2) /* of one process: it cannot push all others out of the table */

static __always_inline struct process *process_of(u32 tgid)
{
    struct process *p = processes.lookup(&tgid);
    if (p)
        return p;
    struct process fresh = {};
    processes.insert(&tgid, &fresh); /* not update: another thread may have counted in its own meanwhile */
    return processes.lookup(&tgid);
}

static __always_inline bool send_process(u32 tgid, u32 ring, u32 own)
{
    struct event_process e = {};
    e.h.ts_ns = bpf_ktime_get_ns();
    e.h.tgid = tgid;
    e.h.type = EVENT_PROCESS;
    e.h.ring = ring;
    e.h.fd = -1;
#ifdef IDENTITY_SOCKET
    describe_process(&e);
#else
    /* the calling thread's name: the loader mends it when that is not the leader (a question with conn_id 0) */
    bpf_get_current_comm(e.comm, sizeof(e.comm));
    if (!own) {
        struct question q = {.tgid = tgid, .fd = -1, .ring = ring};
        questions.ringbuf_output(&q, sizeof(q), 1);
    }
#endif
    e.cgroup_id = bpf_get_current_cgroup_id();
    return ask_owner(&e) && put(ring, &e, sizeof(e), 0);
}

#define TOLD_NS 10000000000ULL /* a name that was told longer ago is told again with the next connection */

/* The ring of a connection learns the name of a process before the first event that the process makes on it. */
static __always_inline void introduce(struct conn *c, u64 id)
{
    u32 tgid = id >> 32;
    if (c->told == tgid)
        return;
    struct process *p = process_of(tgid);
    u64 bit = 1ULL << (c->ring & 63);
    if (!p)
        return;
    u64 now = bpf_ktime_get_ns();
    if (now - p->told_ns > TOLD_NS) {
        p->told_ns = now;
        p->rings = 0;
    }
    if (!(p->rings & bit)) {
        if (!send_process(tgid, c->ring, tgid == (u32)id))
            return; /* no room: with its next call */
        p->rings |= bit;
    }
    c->told = tgid;
}

static __always_inline void blank(struct conn *c, u32 tgid, u32 fd, u32 role)
{
    c->tgid = tgid;
    c->fd = fd;
    c->conn_id = next_conn_id();
    c->ring = ring_of(c->conn_id);
    c->role = role;
}

static __always_inline bool remember(u64 name, struct conn *c)
{
    struct process *p = process_of(c->tgid);
    if (p && (s32)p->connections >= PROCESS_CONNECTIONS) {
        count(STAT_PROCESS_FULL, 1);
        return false;
    }
#ifdef IDENTITY_SOCKET
    /* Not update: two threads may come with the first calls of a socket at the same moment, and an entry that is
     * replaced is another connection's at once, while the first thread still writes to it. */
    if (conns.insert(&name, c)) {
        if (!conns.lookup(&name))
            count(STAT_MAP_FULL, 1);
        return false;
    }
#else
    if (conns.update(&name, c)) {
        count(STAT_MAP_FULL, 1);
        return false;
    }
#endif
    count(STAT_ENTRIES_MADE, 1);
    if (p)
        lock_xadd(&p->connections, 1);
    return true;
}

/* The entry goes; what the shard knows of it is closed. */
static __always_inline void end_connection(u64 name, struct conn *c, u32 reason)
{
    u32 tgid = c->tgid;
    struct process *p = processes.lookup(&tgid);
    if (p && (s32)p->connections > 0) /* it may be a younger entry than the connection */
        lock_xadd(&p->connections, -1);
    count(STAT_ENTRIES_ENDED, 1);
    if (c->opened || c->bound)
        send_close(c, reason);
#ifdef IDENTITY_SOCKET
    u64 sk = c->sk;
    u64 *named = names.lookup(&sk);
    if (named && *named == name) /* else its memory is another socket's already, which must not lose its own end */
        names.delete(&sk);
#endif
    conns.delete(&name);
}

static __always_inline void reject(struct conn *c, u32 why)
{
    c->state = CONN_IGNORED;
    count(why, 1);
    if (c->opened)
        send_close(c, CLOSE_NOT_HTTP);
    c->opened = 0;
}

#ifdef IDENTITY_SOCKET

static __always_inline u64 name_of(u64 id, u64 fd)
{
    return file_of(fd);
}

/* Is the entry's socket still the one behind its name, connected to the same peer? */
static __always_inline bool same_socket(u64 name, struct conn *c)
{
    u64 sk = c->sk;
    u8 peer[16] = {};
    if (sock_of(name) != sk)
        return false;
    if (c->family == AF_UNIX)
        return true;
    if (read_u16(sk + INET_SPORT) != swap16(c->local_port) || read_u16(sk + SK_DPORT) != swap16(c->remote_port))
        return false;
    if (c->family == AF_INET) {
        u32 v4 = read_u32(sk + SK_DADDR);
        map4(peer, (u8 *)&v4);
    } else {
        bpf_probe_read_kernel(peer, 16, (void *)(sk + SK_V6_DADDR));
    }
    u64 *x = (u64 *)peer, *y = (u64 *)c->remote;
    return x[0] == y[0] && x[1] == y[1];
}

/* Likewise, and not connected anew since it was reset? */
static __always_inline bool still(u64 name, struct conn *c)
{
    return same_socket(name, c) && (!c->reset || read_u8(c->sk + SK_STATE) == TCP_CLOSE);
}

/*
 * The first call of a connection that we are told of may be the second one: both sides of HTTP/2 speak first, and a
 * program may do so in one thread while another one reads; and an answer may be read before the call that writes the
 * request returns. The kernel has counted the bytes of that call, and they are still to be reported. Our role where `m`
 * of the bytes of a call say that it was the first of its direction; `in` and `out`: what went by before it.
 */
static __always_inline u32 begins_in_two_calls(const u8 *b, u64 m, u32 dir, u64 in, u64 out)
{
    u32 first4 = FOUR(b[0], b[1], b[2], b[3]);
    bool preface = m >= 8 && http2_preface(b);
    bool of_client = m >= 4 && (dir == DIR_IN ? first4 == FOUR('H', 'T', 'T', 'P') : usual_method(first4));
    if (!preface && !of_client && (m < 9 || no_settings(b, 0)))
        return ROLE_UNKNOWN;
    bool client = of_client || preface == (dir == DIR_OUT);
    if (dir == DIR_OUT ? out != client : in) /* its SYN counts */
        return ROLE_UNKNOWN;
    return client ? ROLE_CLIENT : ROLE_SERVER;
}

/*
 * A file without an entry that `n` bytes have just gone through: the entry of its socket, or NULL when it is no stream
 * socket (`udp`: but one of UDP). Whether bytes went by before, and who opened it, is in the socket's own counters;
 * `sniffed` of the bytes are in scratch memory.
 */
static __always_inline struct conn *meet(u64 name, u64 id, u64 fd, u32 dir, u64 n, u64 sniffed, u32 role, bool *udp)
{
    u16 family = 0;
    u64 sk = sock_of(name);
    if (!sk)
        return 0;
    u32 kind = kind_of_sock(sk, &family);
    *udp = kind == KIND_UDP;
    if (!kind || kind == KIND_UDP || (family == AF_UNIX && !role && is_socketpair(sk)))
        return 0;
    struct scratch *s = scratch();
    if (!s)
        return 0;
    struct conn *c = &s->fresh;
    __builtin_memset(c, 0, sizeof(*c));
    blank(c, id >> 32, fd, role);
    c->sk = sk;
    c->family = family;
    c->start = START_MID;
    if (family != AF_UNIX) {
        u8 state = read_u8(sk + SK_STATE);
        ends_of(sk, c);
        c->reset = state == TCP_CLOSE;
    }
    if (kind == 1) {
        /* looked at once: what another thread moves meanwhile is for its own call to report */
        u32 read = counter_of(sk, DIR_IN), written = counter_of(sk, DIR_OUT);
        u64 in = total_in(sk, read), out = total_out(sk, written);
        if ((dir == DIR_IN ? in : out) < n)
            return 0; /* these bytes are not of this socket: the descriptor was given away while the call waited */
        if (dir == DIR_IN)
            in -= n;
        else
            out -= n;
        c->counted = 1;
        c->counter[DIR_IN] = read - (dir == DIR_IN ? (u32)n : 0);
        c->counter[DIR_OUT] = written - (dir == DIR_OUT ? (u32)n : 0);
        if (in == 1 && fin_was_read(sk))
            in = 0;
        if (!in && out <= 1) {
            c->start = START_SEEN;
            c->role = out ? ROLE_CLIENT : ROLE_SERVER;
            out = 0;
        } else {
            u32 begins = begins_in_two_calls(s->sniff.bytes, sniffed, dir, in, out);
            if (begins) { /* what nobody reports after all is a hole */
                c->start = START_SEEN;
                c->role = begins;
                if (dir == DIR_IN)
                    c->counter[DIR_OUT] -= (u32)out - (begins == ROLE_CLIENT);
                else
                    c->counter[DIR_IN] -= (u32)in;
                in = out = 0;
            }
        }
        c->pos[DIR_IN] = in;
        c->pos[DIR_OUT] = out;
    } else if (role) {
        c->start = START_SEEN; /* from accept or connect */
    }
    c->state = c->start == START_SEEN ? CONN_UNDECIDED : CONN_WAITING;
    if (!remember(name, c))
        return 0;
    names.update(&sk, &name);
    return conns.lookup(&name);
}

/*
 * `n` bytes have gone through: the position of the first of them. The kernel's counter says whether others went by
 * unseen before (then there is a hole) or are still to be reported (another thread's: then this one overlaps). False:
 * the name belongs to another socket.
 */
static __always_inline bool move_on(u64 name, struct conn *c, u32 dir, u64 n, u64 *at)
{
    u32 d = dir & 1;
    u64 from = c->pos[d];
    if (!c->counted) {
        if (!same_socket(name, c))
            return false;
        *at = from;
        c->pos[d] = from + n;
        return true;
    }
    u32 now = counter_of(c->sk, dir);
    u32 went = now - c->counter[d];
    if (went != (u32)n) {
        if (!still(name, c))
            return false;
        if (!went && c->early[d] < (u32)n) {
            /* another thread's call has counted these bytes already, or they are of a socket whose descriptor was
             * closed and given away while the call waited: nobody can say where they belong */
            count(STAT_UNPLACED_BYTES, n);
            *at = UNPLACED;
            return true;
        }
        c->early[d] -= c->early[d] < (u32)n ? c->early[d] : (u32)n;
        if (dir == DIR_IN && went && !(c->ended & 1) && fin_was_read(c->sk)) {
            c->ended |= 1;
            went -= 1;
        }
        if (went > (u32)n && went < 0x80000000)
            count(STAT_UNSEEN_BYTES, went - (u32)n);
    }
    c->counter[d] = now;
    c->pos[d] = from + (s64)(s32)went;
    *at = c->pos[d] >= n ? c->pos[d] - n : from;
    return true;
}

#else

static __always_inline void remember_descriptor(u64 key, struct conn *c, u32 want_address)
{
    if (remember(key, c))
        note_descriptor(key >> 32, (u32)key, want_address);
}

static __always_inline u64 name_of(u64 id, u64 fd)
{
    return (id >> 32) << 32 | (u32)fd;
}

static __always_inline bool move_on(u64 name, struct conn *c, u32 dir, u64 n, u64 *at)
{
    *at = c->pos[dir & 1];
    c->pos[dir & 1] += n;
    return true;
}

#endif
