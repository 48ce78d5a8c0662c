/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where in a text a secret may be: one look at 64 bytes, whatever they are. scan.pyx reads what is there.
 *
 *     forms    three bytes with which a secret of a known form may begin, or bytes that hide another text (\u, %xx)
 *     ends     '=', ':' and '>': in front of it may be a name, and behind it its value
 *     word     letters, digits and what else base64 has: a long run may be a text in disguise
 *
 * Three bytes are compared with all beginnings at once: each byte is looked up in two tables by its halves, which have a bit
 * for each of eight groups of beginnings; a group that all six have may begin here. Wrong ones are found out later.
 */
#ifndef COLLECTOR_REDACTION_SCAN_H
#define COLLECTOR_REDACTION_SCAN_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SCAN_BYTES 64
#define SCAN_AHEAD 2 /* read behind them */

typedef struct {
    uint64_t forms, ends, word;
} scan_t;

typedef struct {
    uint8_t low[3][16], high[3][16]; /* of the three bytes */
    uint8_t any[3][256];             /* the same by whole bytes */
} beginnings_t;

static inline void scan_bytes(const beginnings_t *b, const uint8_t *p, scan_t *out)
{
    uint64_t forms = 0, ends = 0, word = 0;
    for (unsigned i = 0; i < SCAN_BYTES; i++) {
        uint8_t c = p[i];
        uint64_t bit = (uint64_t)1 << i;
        if (b->any[0][c] & b->any[1][p[i + 1]] & b->any[2][p[i + 2]])
            forms |= bit;
        if (c == '=' || c == ':' || c == '>')
            ends |= bit;
        if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '+' || c == '/' || c == '_' ||
            c == '-')
            word |= bit;
    }
    out->forms = forms;
    out->ends = ends;
    out->word = word;
}

#if defined(__x86_64__)
__attribute__((target("ssse3"))) static inline __m128i halves(__m128i low, __m128i high, __m128i v)
{
    const __m128i nibble = _mm_set1_epi8(15);
    return _mm_and_si128(_mm_shuffle_epi8(low, _mm_and_si128(v, nibble)),
                         _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi16(v, 4), nibble)));
}

__attribute__((target("ssse3"))) static void scan_ssse3(const beginnings_t *b, const uint8_t *p, scan_t *out)
{
    const __m128i l0 = _mm_loadu_si128((const __m128i *)b->low[0]), h0 = _mm_loadu_si128((const __m128i *)b->high[0]);
    const __m128i l1 = _mm_loadu_si128((const __m128i *)b->low[1]), h1 = _mm_loadu_si128((const __m128i *)b->high[1]);
    const __m128i l2 = _mm_loadu_si128((const __m128i *)b->low[2]), h2 = _mm_loadu_si128((const __m128i *)b->high[2]);
    /* a bit for each half above that has characters of base64: 2 + - /, 3 digits, 4 and 6, 5 up to Z and _, 7 up to z */
    const __m128i word_low = _mm_setr_epi8(26, 30, 30, 30, 30, 30, 30, 30, 30, 30, 28, 5, 4, 5, 4, 13);
    const __m128i word_high = _mm_setr_epi8(0, 0, 1, 2, 4, 8, 4, 16, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i zero = _mm_setzero_si128();
    uint64_t forms = 0, ends = 0, word = 0;
    for (unsigned i = 0; i < SCAN_BYTES; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(p + i));
        __m128i f = _mm_and_si128(halves(l0, h0, v), halves(l1, h1, _mm_loadu_si128((const __m128i *)(p + i + 1))));
        f = _mm_and_si128(f, halves(l2, h2, _mm_loadu_si128((const __m128i *)(p + i + 2))));
        __m128i e = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(':')), _mm_cmpeq_epi8(v, _mm_set1_epi8('='))),
                                 _mm_cmpeq_epi8(v, _mm_set1_epi8('>')));
        __m128i w = halves(word_low, word_high, v);
        forms |= (uint64_t)(uint16_t)~_mm_movemask_epi8(_mm_cmpeq_epi8(f, zero)) << i;
        ends |= (uint64_t)(uint16_t)_mm_movemask_epi8(e) << i;
        word |= (uint64_t)(uint16_t)~_mm_movemask_epi8(_mm_cmpeq_epi8(w, zero)) << i;
    }
    out->forms = forms;
    out->ends = ends;
    out->word = word;
}
#endif

static int scan_fast;

static inline void scan_prepare(int fast)
{
#if defined(__x86_64__)
    scan_fast = fast && __builtin_cpu_supports("ssse3");
#endif
}

/* The n bytes at p (those behind SCAN_BYTES are not looked at); reads no further than p + n. */
static inline void scan_block(const beginnings_t *b, const uint8_t *p, size_t n, scan_t *out)
{
    uint8_t rest[SCAN_BYTES + 16];
    if (n < SCAN_BYTES + SCAN_AHEAD) {
        memset(rest, 0, sizeof(rest));
        memcpy(rest, p, n);
        p = rest;
    }
#if defined(__x86_64__)
    if (scan_fast) {
        scan_ssse3(b, p, out);
        return;
    }
#endif
    scan_bytes(b, p, out);
}

/* Of `word`, the bytes at which twenty in a row begin. */
static inline uint64_t twenty(uint64_t word)
{
    uint64_t two = word & word >> 1, four = two & two >> 2, eight = four & four >> 4;
    return eight & eight >> 8 & four >> 16;
}

static inline unsigned first_bit(uint64_t x)
{
    return (unsigned)__builtin_ctzll(x);
}

static inline unsigned ones_below(uint64_t x) /* how many of the lowest bits are set in a row */
{
    return ~x == 0 ? 64 : (unsigned)__builtin_ctzll(~x);
}

static inline unsigned ones_above(uint64_t x) /* the same of the highest */
{
    return ~x == 0 ? 64 : (unsigned)__builtin_clzll(~x);
}
#endif
