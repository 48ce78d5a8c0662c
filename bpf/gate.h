/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The gate: may the bytes of a connection pass? Its first ones decide, by the rules of recognise.h. */

#define SNIFF_IOVS 80 /* buffers that are looked at: each may hold one byte, some none */

/* The first bytes of a call into scratch memory; how many there are. `buffers` 0: one buffer of `n` bytes at `base`. */
static __always_inline u64 first_bytes(struct scratch *s, u64 base, u64 buffers, u64 n)
{
    if (!buffers) {
        u64 m = n;
        asm volatile("" : "+r"(m));
        if (m > SNIFF_BYTES)
            m = SNIFF_BYTES;
        return bpf_probe_read_user(s->sniff.bytes, m, (void *)base) ? 0 : m;
    }
    s->fill = 0;
    s->left = n;
    s->iov = base;
    s->iov_end = base + buffers * sizeof(struct user_iovec);
#pragma clang loop unroll(disable)
    for (int i = 0; i < SNIFF_IOVS; i++) {
        struct user_iovec v = {};
        u64 fill = s->fill;
        if (fill >= SNIFF_BYTES || !s->left || s->iov >= s->iov_end ||
            bpf_probe_read_user(&v, sizeof(v), (void *)s->iov))
            break;
        s->iov += sizeof(v);
        u64 m = v.len;
        if (m > s->left)
            m = s->left;
        if (m > SNIFF_BYTES - fill)
            m = SNIFF_BYTES - fill;
        if (!m)
            continue;
        fill &= SNIFF_BYTES - 1;
        asm volatile("" : "+r"(m));
        if (m > SNIFF_BYTES || bpf_probe_read_user(&s->sniff.bytes[fill], m, (void *)v.base))
            break;
        s->fill += m;
        s->left -= m;
    }
    return s->fill;
}

/* Does TLS often come behind this beginning: a preamble of the PROXY protocol, a CONNECT? */
static __always_inline bool leads_to_tls(u32 first4)
{
    return first4 == FOUR('P', 'R', 'O', 'X') || first4 == FOUR('C', 'O', 'N', 'N') ||
           first4 == FOUR('\n', '\r', '\n', '\r');
}

/* Does a client greet a SOCKS proxy: version 5 and its methods (RFC 1928 section 3), or version 4 and CONNECT? */
static __always_inline bool greets_socks(const u8 *b, u64 m)
{
    return m >= 3 && ((b[0] == 5 && m == 2 + b[1]) || (b[0] == 4 && b[1] == 1 && m >= 9));
}

static __always_inline bool judge(struct conn *c, struct sniff *s, u64 m, u64 n, u32 dir)
{
    u8 *b = s->bytes;
    /* who has no role, a library's object without a socket, is asked or asks by what comes first */
    u32 first = c->role == ROLE_CLIENT ? DIR_OUT : c->role == ROLE_SERVER ? DIR_IN : dir;
    if (!m) {
        count(STAT_FAULTS, 1); /* a hole that the shard sees at the next event */
        return false;
    }
    if (dir != first || c->role == ROLE_UNKNOWN) {
        /* the answering side speaks first: only an early HTTP answer and the settings of HTTP/2 are ours */
        u32 first4 = (u32)b[0] | (u32)b[1] << 8 | (u32)b[2] << 16 | (u32)b[3] << 24;
        /* of 32 and 10 bits: zero if either is; and asked once, for the verifier's sake */
        if (m >= 4 && !((u64)(first4 ^ FOUR('H', 'T', 'T', 'P')) * (no_settings(b, 0) | (u32)((m - 9) >> 63)))) {
            c->state = CONN_HTTP;
            return true;
        }
        if (dir != first) {
            reject(c, STAT_NOT_HTTP);
            return false;
        }
    }
    /* the state stays in the entry: in registers it would multiply the verifier's states by the loop's turns */
    s->count = m;
#pragma clang loop unroll(disable)
    for (int i = 0; i < SNIFF_BYTES; i++) {
        if (i >= s->count)
            break;
        u8 token = c->token;
        u32 first4 = c->first4;
        u32 v = judge_byte(b[i], &token, &first4);
        c->token = token;
        c->first4 = first4;
        if (v == VERDICT_YES) {
            c->state = CONN_HTTP;
            c->tls = leads_to_tls(first4);
            return true;
        }
        if (v != VERDICT_MORE) {
            c->tls = v == VERDICT_TLS;
            reject(c, v == VERDICT_TLS ? STAT_TLS : STAT_NOT_HTTP);
            return false;
        }
    }
    if (n > m) {
        /* the bytes behind these were not judged, so there is no going on from here */
        if (!usual_method(c->first4))
            reject(c, STAT_NOT_HTTP);
        else
            c->state = CONN_HTTP;
        return c->state == CONN_HTTP;
    }
    return true;
}

/* The first bytes of a connection whose opening was seen. May the data be captured? */
static __always_inline bool decide(struct conn *c, struct sniff *s, u64 m, u64 n, u32 dir)
{
    if (judge(c, s, m, n, dir))
        return true;
    if (c->state == CONN_IGNORED) { /* here and not in the loop, whose turns would multiply it */
        if (!c->tls && greets_socks(s->bytes, m))
            c->tls = TLS_LATER;
        note_left_out(c);
    }
    return false;
}

/* Do four bytes begin a TLS record (RFC 8446 section 5.1)? */
static __always_inline bool record_start(u32 first4)
{
    return (first4 & 0xff) >= 20 && (first4 & 0xff) <= 23 && (first4 >> 8 & 0xff) == 3;
}

static __always_inline bool like_a_record(struct sniff *s, u64 m)
{
    u8 *b = s->bytes;
    return m >= 5 && record_start((u32)b[0] | (u32)b[1] << 8);
}

static __always_inline bool like_a_record_key(struct record_key *k)
{
    return record_start((u32)k->bytes[0] | (u32)k->bytes[1] << 8);
}

static __always_inline bool starts_usually(struct sniff *s, u64 m)
{
    u8 *b = s->bytes;
    return m >= 8 &&
           (usual_start((u32)b[0] | (u32)b[1] << 8 | (u32)b[2] << 16 | (u32)b[3] << 24) || (m >= 9 && usual_frame(b)));
}
