/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The calls that move bytes: what their arguments and results mean. Each returns which program goes on (enum further).
 */

#define IOV_MAX 1024
#define MSG_OOB 1
#define MSG_PEEK 2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000
#define MSG_NOT_DATA (MSG_OOB | MSG_PEEK | MSG_ERRQUEUE) /* of a read: the stream does not move on */

/* One buffer. `want`: what was asked for; `flags`: of recvfrom, else 0. */
static __always_inline int on_buffer(s64 ret, u64 base, u64 want, u64 flags, const struct call *k)
{
    if (flags & MSG_NOT_DATA)
        return 0;
    if (ret <= 0) {
        if (ret == 0 && k->dir == DIR_IN && want)
            end_of_stream(k);
        return 0;
    }
    if (flags & MSG_TRUNC) /* thrown away: the buffer is as it was */
        return on_size(ret, k, EVENT_F_SIZE_ONLY);
    return on_bytes(k, base, 0, ret);
}

/* A vector of `n` buffers at `iov`. */
static __always_inline int on_iov(s64 ret, u64 iov, u64 n, const struct call *k)
{
    if (ret <= 0) {
        if (ret == 0 && k->dir == DIR_IN && n)
            end_of_stream(k);
        return 0;
    }
    if (!n || n > IOV_MAX)
        return 0;
    return on_bytes(k, iov, n, ret);
}

/* As on_iov, for calls that few programs use on sockets: the program that can do all goes on, so that there is less to
 * compile and to verify. */
static __always_inline int on_rare_iov(s64 ret, u64 iov, u64 n, const struct call *k)
{
    if (ret <= 0) {
        if (ret == 0 && k->dir == DIR_IN && n)
            end_of_stream(k);
        return 0;
    }
    if (!n || n > IOV_MAX)
        return 0;
    return stash(k, iov, n, ret);
}

static __always_inline int on_msg(s64 ret, u64 msg, u64 flags, const struct call *k)
{
    u64 v[2] = {}; /* msg_iov, msg_iovlen of struct user_msghdr */
    if (ret < 0)
        return 0;
    if (k->dir == DIR_IN) {
        if (flags & MSG_NOT_DATA)
            return 0;
        if (flags & MSG_TRUNC)
            return on_size(ret, k, EVENT_F_SIZE_ONLY);
    }
    if (bpf_probe_read_user(v, sizeof(v), (void *)(msg + 16)))
        return on_size(ret, k, EVENT_F_FAULT);
    return on_iov(ret, v[0], v[1], k);
}

static __always_inline int on_splice(s64 ret, u64 to, const struct call *k)
{
    const struct call out = {.id = k->id, .fd = to, .dir = DIR_OUT, .call = k->call};
    on_size(ret, k, EVENT_F_SIZE_ONLY);
    return on_size(ret, &out, EVENT_F_SIZE_ONLY);
}

/* The one message of a vector: bytes that went through it, and its buffers. */
static __always_inline int on_first_message(u64 vec, const struct call *k)
{
    u64 v[2] = {};
    u32 len = 0;
    if (bpf_probe_read_user(&len, 4, (void *)(vec + 56)) || bpf_probe_read_user(v, sizeof(v), (void *)(vec + 16)))
        return 0; /* the positions show the hole */
    return on_rare_iov(len, v[0], v[1], k);
}

/* Of several messages only the lengths: nobody was seen to use these calls on TCP. On UDP they may be QUIC, if one is
 * long enough to begin a connection: batches of small ones, as of DNS, cost nothing more. */
static __always_inline int on_mmsg(s64 ret, u64 vec, u64 flags, const struct call *k)
{
    if (ret <= 0 || (k->dir == DIR_IN && flags & MSG_NOT_DATA))
        return 0;
    if (ret == 1 && !(k->dir == DIR_IN && flags & MSG_TRUNC)) /* as recvmsg and sendmsg */
        return on_first_message(vec, k);
    struct scratch *s = scratch();
    if (!s)
        return 0;
    if (!read_headers(s, vec, ret * sizeof(struct user_mmsghdr)))
        return DONE; /* the positions show the hole */
    s->left = ret;   /* in memory, or each number of messages is a state of its own for the verifier */
    s->part = 0;
    s->fill = 0; /* is one as long? */
#pragma clang loop unroll(disable)
    for (u64 i = 0; i < MMSG_MESSAGES; i++) {
        if (i >= s->left)
            break;
        u32 len = message_header(s, i)->length;
        s->part += len;
        s->fill |= len >= QUIC_DATAGRAM;
    }
    s64 whole = s->part;
    if (ret > MMSG_MESSAGES)
        whole += 1 << 20; /* unknown length: a gap larger than any message */
    on_size(whole, k, EVENT_F_FAULT);
    return s->fill && stash(k, vec, ret, whole) ? QUIC : DONE;
}
