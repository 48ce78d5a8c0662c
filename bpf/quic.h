/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * QUIC (HTTP/3, DNS over QUIC) is not read. Its connections are counted by process, so that nobody takes them for seen.
 *
 * A connection begins with an Initial packet of the client, in a datagram of at least 1,200 bytes, for a connection id
 * that the client has made up (RFC 9000 sections 7.2 and 14.1). Who sends it is counted as a client, who receives it as
 * a server. It repeats that id until it has heard of the server, and then uses the one that the server has chosen. So
 * the ids that a socket has seen are kept for a while, and an Initial packet for one of them begins nothing:
 *
 *     client -> server   Initial   to D, from C       D is new: counted, at either end
 *     server -> client   Initial   to C, from S       C is known; S is from now on
 *     client -> server   Initial   to S, from C       S is known
 *
 * Retry (section 17.2.5) gives another S. A client that is known by its own id C may use any.
 *
 * Only the first packet of a datagram is looked at, and of it what lies in the first buffer: no implementation is known
 * that puts another packet before an Initial, or cuts its header. No call on TCP comes here: see traffic.h meet_call
 * and syscalls.h on_mmsg for who does.
 */

#define QUIC_ID_CHOSEN 8   /* the least length of an id that a client makes up */
#define QUIC_HEADER 48     /* the most that is read: up to the first byte of the token's length behind both ids */
#define QUIC_HEADER_REST 8 /* of it, what is no id */
#define QUIC_DATAGRAMS 32  /* of one call that are looked at */
#define CONTROL_MESSAGES 4 /* of one message that are looked at */

#define SOL_UDP 17
#define UDP_SEGMENT 103
#define UDP_GRO 104

/* struct cmsghdr and what follows it, which is padded to eight bytes. */
#define CONTROL_LEAST 18 /* without the padding, of UDP_SEGMENT */
struct control_message {
    u64 length;
    u32 level;
    u32 type;
    u64 value; /* UDP_SEGMENT: of 16 bits; UDP_GRO: an int */
};

static __always_inline void note_quic(u32 tgid, u32 dir, u64 connections)
{
    count(STAT_QUIC, connections);
    struct unseen *u = unseen_process(tgid);
    if (u)
        lock_xadd(dir == DIR_OUT ? &u->quic_client : &u->quic_server, connections);
}

/* May the bytes of a call be QUIC that matters here? The one look that every call on UDP pays for. */
static __always_inline bool begins_as_quic(u64 base, u64 buffers, u64 n)
{
    struct user_iovec v = {.base = base};
    u8 b[8] = {};
    if (n < QUIC_HEADER_REST || (buffers && bpf_probe_read_user(&v, sizeof(v), (void *)base)))
        return false;
    return !bpf_probe_read_user(b, sizeof(b), (void *)v.base) && quic_packet(b);
}

/* A datagram of `n` bytes, the first `room` of which lie at `base`. False: it is no packet that matters. */
static __always_inline bool on_datagram(struct scratch *s, u64 name, u64 base, u64 room, u64 n)
{
    struct datagrams *d = &s->datagrams;
    u8 *b = s->sniff.bytes, one = 1;
    u64 m = room < n ? room : n;
    if (m > QUIC_HEADER)
        m = QUIC_HEADER;
    asm volatile("" : "+r"(m));
    if (m < QUIC_HEADER_REST || m > QUIC_HEADER || bpf_probe_read_user(b, m, (void *)base))
        return false;
    u64 to_bytes = b[5];
    asm volatile("" : "+r"(to_bytes));
    if (!quic_packet(b) || to_bytes > QUIC_ID_BYTES)
        return false;
    u64 from_bytes = b[6 + to_bytes];
    asm volatile("" : "+r"(from_bytes));
    if (from_bytes > QUIC_ID_BYTES || QUIC_HEADER_REST + to_bytes + from_bytes > m)
        return false;
    bool token = b[7 + to_bytes + from_bytes];
    struct quic_id to = {.name = name, .length = to_bytes}, from = {.name = name, .length = from_bytes};
    bpf_probe_read_kernel(to.bytes, to_bytes, b + 6);
    bpf_probe_read_kernel(from.bytes, from_bytes, b + 7 + to_bytes);
    d->known = 0; /* in memory, for the verifier's sake: each combination would be a state of its own */
    if (from_bytes && quic_ids.lookup(&from))
        d->known = token | (from_bytes >= QUIC_ID_CHOSEN); /* shorter ids of two clients may well be equal */
    asm volatile("" ::: "memory");
    if (quic_packet(b) == QUIC_INITIAL && n >= QUIC_DATAGRAM && to_bytes >= QUIC_ID_CHOSEN &&
        !quic_ids.insert(&to, &one))
        d->begun += !d->known;
    if (from_bytes)
        quic_ids.update(&from, &one);
    return true;
}

/* The length of the datagrams that a message is cut into, or was put together of, by its control messages (udp(7)). */
static __always_inline void find_segment(struct datagrams *d)
{
    d->segment = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < CONTROL_MESSAGES; i++) {
        struct control_message m = {};
        if (d->control_left < CONTROL_LEAST || bpf_probe_read_user(&m, sizeof(m), (void *)d->control))
            return;
        if (m.level == SOL_UDP && (m.type == UDP_SEGMENT || m.type == UDP_GRO)) {
            d->segment = (u16)m.value;
            return;
        }
        u64 next = (m.length + 7) & ~7ULL;
        if (next < 16 || next > d->control_left)
            return;
        d->control += next;
        d->control_left -= next;
    }
}

/* `n` bytes at `base`, or in the buffers of the vector there. */
static __always_inline void take_message(struct datagrams *d, u64 base, u64 buffers, u64 n)
{
    struct user_iovec v = {.base = base, .len = n};
    if (buffers && bpf_probe_read_user(&v, sizeof(v), (void *)base))
        n = 0;
    d->base = v.base;
    d->room = v.len;
    d->left = n;
    d->segment = 0;
}

/* The next message of those that read_headers has read; of calls of one, `n` is its length. */
static __always_inline void next_message(struct scratch *s, struct datagrams *d, bool many, u64 n)
{
    struct user_mmsghdr *m = message_header(s, d->message);
    take_message(d, m->iov, m->buffers, !m->buffers ? 0 : many ? m->length : n);
    d->control = m->control;
    d->control_left = m->control_bytes;
    find_segment(d);
    d->message += 1;
}

/* A call on a UDP socket, as `stash` has left it. `header`: its second argument; `ret`: its result. */
static __always_inline int quic_call(u64 header, s64 ret)
{
    struct scratch *s = scratch();
    if (!s)
        return 0;
    struct datagrams *d = &s->datagrams;
    u32 call = s->k.call;
    u64 name = name_of(s->k.id, s->k.fd);
#ifdef IDENTITY_SOCKET
    u16 family = 0;
    if (!name || kind_of_sock(sock_of(name), &family) != KIND_UDP)
        return 0;
#endif
    bool many = call == CALL_RECVMMSG || call == CALL_SENDMMSG;
    bool one = call == CALL_RECVMSG || call == CALL_SENDMSG;
    d->message = 0;
    d->messages = many ? ret : one;
    d->left = 0;
    d->begun = 0;
    if (!many && !one)
        take_message(d, s->call_base, s->call_buffers, ret);
    else if (!read_headers(s, header, many ? ret * sizeof(struct user_mmsghdr) : MSGHDR_BYTES))
        return 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < QUIC_DATAGRAMS; i++) {
        if (!d->left) {
            if (d->message >= d->messages || d->message >= MMSG_MESSAGES)
                break;
            next_message(s, d, many, ret);
        }
        asm volatile("" ::: "memory");
        u64 n = d->left, room = d->room;
        if (d->segment && n > d->segment)
            n = d->segment;
        if (!on_datagram(s, name, d->base, room, n))
            n = d->left; /* those behind it are of the same sender, and of the same kind */
        d->base += n;
        d->left -= n;
        d->room = room > n ? room - n : 0;
    }
    if (d->begun)
        note_quic(s->k.id >> 32, s->k.dir, d->begun);
    return 0;
}
