/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * First bytes -> is it HTTP? No helpers, no maps: also compiled natively by the tests.
 *
 * A connection whose opening was seen is judged by grammar (any method token, a blank, something like a target), with
 * "undecided" for senders that write byte by byte. One that begins with a preamble of the PROXY protocol is let through
 * as soon as that is certain: what follows the preamble is for the shard to judge. A descriptor we know nothing of is
 * judged by a list of usual starts; a preamble is none of them, for it only stands at the beginning of a connection.
 */

enum verdict { VERDICT_NO = 0, VERDICT_YES = 1, VERDICT_MORE = 2, VERDICT_TLS = 3 };

#define SNIFF_BYTES 64 /* a power of two; some empty lines, the longest method, its blank and a byte of the target */
#define TOKEN_LIMIT 32
#define TOKEN_BLANK 255

#define FOUR(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)

static __always_inline bool usual_method(u32 w)
{
    return w == FOUR('G', 'E', 'T', ' ') || w == FOUR('P', 'O', 'S', 'T') || w == FOUR('P', 'U', 'T', ' ') ||
           w == FOUR('H', 'E', 'A', 'D') || w == FOUR('D', 'E', 'L', 'E') || w == FOUR('O', 'P', 'T', 'I') ||
           w == FOUR('P', 'A', 'T', 'C') || w == FOUR('C', 'O', 'N', 'N') || w == FOUR('T', 'R', 'A', 'C') ||
           w == FOUR('P', 'R', 'O', 'P');
}

/* A descriptor of unknown history: its first four bytes. */
static __always_inline bool usual_start(u32 w)
{
    return usual_method(w) || w == FOUR('H', 'T', 'T', 'P');
}

/* The first nine bytes of frames of HTTP/2 (RFC 9113 section 6). What must be zero is put together, and asked once:
 * each comparison would double what the verifier looks at. Zero: SETTINGS of at most 21 settings, with no flag but
 * `flags`; a server may begin with them before it has seen anything of its client. */
static __always_inline u32 no_settings(const u8 *b, u8 flags)
{
    u32 length = (u32)b[1] << 8 | b[2];
    return b[0] | b[5] | b[6] | b[7] | b[8] | (b[3] ^ 4) | (b[4] & ~flags) | length >> 7;
}

/* What calls of older connections begin with, DATA aside, which is too much like anything: a whole head, SETTINGS,
 * PING, WINDOW_UPDATE, on a stream below 2^24. */
static __always_inline bool usual_frame(const u8 *b)
{
    u32 length = (u32)b[1] << 8 | b[2];
    u32 stream = b[6] | b[7] | b[8];
    u32 wrong = b[0] | b[5];
    u64 headers =
        wrong | (b[3] ^ 1) | ((b[4] & ~0x29) ^ 4) | (0x4000 - length) >> 31 | (length - 1) >> 31 | (stream - 1) >> 31;
    u64 ping = wrong | (b[3] ^ 6) | (b[4] & ~1) | (length ^ 8) | stream;
    u64 window = wrong | (b[3] ^ 8) | b[4] | (length ^ 4);
    /* factors of 8, 9, 16 and 16 bits */
    return !(headers * no_settings(b, 1) * ping * window);
}

/* Does a client of HTTP/2 begin so (RFC 9113 section 3.4)? */
static __always_inline bool http2_preface(const u8 *b)
{
    return FOUR(b[0], b[1], b[2], b[3]) == FOUR('P', 'R', 'I', ' ') &&
           FOUR(b[4], b[5], b[6], b[7]) == FOUR('*', ' ', 'H', 'T');
}

/* What a datagram of QUIC begins with, as far as it matters for the beginning of a connection (quic.h). */
enum quic_packet { QUIC_OTHER = 0, QUIC_INITIAL = 1, QUIC_RETRY = 2 };
#define QUIC_ID_BYTES 20   /* the longest connection id (RFC 9000 section 17.2) */
#define QUIC_DATAGRAM 1200 /* the shortest datagram with a client's Initial packet (section 14.1) */
#define QUIC_V1 0x00000001
#define QUIC_V2 0x6b3343cf
#define QUIC_DRAFT_22 0xff000016 /* since this draft of RFC 9000 the header has its form */
#define QUIC_DRAFT_34 0xff000022 /* the last one */

/* The first six bytes: flags, version, length of the destination's id (RFC 9000 section 17.2). Of other versions than
 * these nobody knows what the flags mean (RFC 8999 section 5.1). */
static __always_inline u32 quic_packet(const u8 *b)
{
    u32 version = (u32)b[1] << 24 | (u32)b[2] << 16 | (u32)b[3] << 8 | b[4];
    u32 type = b[0] >> 4; /* header form and fixed bit are set, else it is below 12 */
    if (type < 12 || b[5] > QUIC_ID_BYTES)
        return QUIC_OTHER;
    if (version == QUIC_V2)
        type -= 1; /* all types are one higher, and Retry is 0 (RFC 9369 section 3.2) */
    else if (version != QUIC_V1 && (version < QUIC_DRAFT_22 || version > QUIC_DRAFT_34))
        return QUIC_OTHER;
    type &= 3;
    return type == 0 ? QUIC_INITIAL : type == 3 ? QUIC_RETRY : QUIC_OTHER;
}

/* Of a descriptor that nobody knows: do its first four bytes begin such a header? */
static __always_inline bool quic_start(u32 first4)
{
    u32 version = first4 >> 8; /* its first three bytes, the last of them highest */
    return (first4 & 0xc0) == 0xc0 && (version == 0x000000 || version == 0x43336b || version == 0x0000ff);
}

/* tchar of RFC 9110 section 5.6.2 */
static __always_inline bool is_tchar(u8 c)
{
    u64 low = 0x03ff6cfa00000000ULL;  /* 0x00 - 0x3f: ! # $ % & ' * + - . 0-9 */
    u64 high = 0x57ffffffc7fffffeULL; /* 0x40 - 0x7f: A-Z ^ _ ` a-z | ~ */
    if (c >= 0x80)
        return false;
    return ((c & 0x40) ? (high >> (c & 63)) : (low >> (c & 63))) & 1;
}

/*
 * One byte of the request side. `token` is the number of method bytes so far (TOKEN_BLANK once its blank was seen),
 * `first4` the first four bytes of the method; before it, the last four line breaks.
 *
 * Preambles of the PROXY protocol: version 1 is known by `PROXY ` and version 2 by CR LF CR LF NUL, for no request
 * has a NUL behind empty lines. Some more is let through (`PROX` and anything up to a blank; more line breaks), because
 * each comparison here costs the verifier 10,000 instructions and more: the shard reads the preamble by the letter.
 */
static __always_inline u32 judge_byte(u8 c, u8 *token, u32 *first4)
{
    if (*token == TOKEN_BLANK) {
        if (usual_method(*first4) || c == '/' || c == '*' || c == 'h' || c == 'H')
            return VERDICT_YES;
        return VERDICT_NO;
    }
    if (*token == 0) {
        if (c == '\r' || c == '\n') { /* empty lines before a request are to be ignored (RFC 9112 section 2.2) */
            *first4 = *first4 << 8 | c;
            return VERDICT_MORE;
        }
        if (c == 0 && *first4 == FOUR('\n', '\r', '\n', '\r'))
            return VERDICT_YES;
        if (c == 0x16)
            return VERDICT_TLS;
        *first4 = 0;
    }
    if (*token < 4)
        *first4 |= (u32)c << (*token * 8);
    if (c == ' ' && *token > 0) {
        *token = TOKEN_BLANK;
        return *first4 == FOUR('P', 'R', 'O', 'X') ? VERDICT_YES : VERDICT_MORE;
    }
    if (!is_tchar(c) || *token >= TOKEN_LIMIT)
        return VERDICT_NO;
    *token += 1;
    return VERDICT_MORE;
}
