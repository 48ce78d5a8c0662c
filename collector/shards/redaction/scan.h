/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where in a text a secret may be: one look at 64 bytes, whatever they are. scan.pyx reads what is there.
 *
 *     forms    three bytes with which a secret of a known form may begin, or bytes that hide another text (\u, %xx)
 *     digits   '0' to '9'
 *     gaps     blanks and dashes: between groups of digits
 *     ends     '=', ':' and '>': in front of it may be a name, and behind it its value
 *     word     letters, digits and what else base64 has: a long row may be a text in disguise
 *
 * Three bytes are compared with all beginnings at once: each byte is looked up in two tables by its halves, which have
 * a bit for each of eight groups of beginnings; a group that all six have may begin here. Wrong ones are found out
 * later.
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
#define SCAN_MANY 8
#define SCAN_AHEAD 2 /* read behind them */

typedef struct {
    uint64_t forms, digits, gaps, ends, word;
} scan_t;

typedef struct {
    uint8_t low[3][16], high[3][16]; /* of the three bytes */
    uint8_t any[3][256];             /* the same by whole bytes */
} beginnings_t;

static inline void scan_bytes(const beginnings_t *b, const uint8_t *p, scan_t *out)
{
    uint64_t forms = 0, digits = 0, gaps = 0, ends = 0, word = 0;
    for (unsigned i = 0; i < SCAN_BYTES; i++) {
        uint8_t c = p[i];
        uint64_t bit = (uint64_t)1 << i;
        if (b->any[0][c] & b->any[1][p[i + 1]] & b->any[2][p[i + 2]])
            forms |= bit;
        if (c >= '0' && c <= '9')
            digits |= bit;
        if (c == ' ' || c == '-')
            gaps |= bit;
        if (c == '=' || c == ':' || c == '>')
            ends |= bit;
        if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '+' || c == '/' || c == '_' ||
            c == '-')
            word |= bit;
    }
    out->forms = forms;
    out->digits = digits;
    out->gaps = gaps;
    out->ends = ends;
    out->word = word;
}

#if defined(__x86_64__)
/* A bit for each half above that has characters of base64: 2 + - /, 3 digits, 4 and 6, 5 up to Z and _, 7 up to z. */
#define WORD_LOW 26, 30, 30, 30, 30, 30, 30, 30, 30, 30, 28, 5, 4, 5, 4, 13
#define WORD_HIGH 0, 0, 1, 2, 4, 8, 4, 16, 0, 0, 0, 0, 0, 0, 0, 0

__attribute__((target("ssse3"))) static inline __m128i halves16(__m128i low, __m128i high, __m128i v)
{
    const __m128i nibble = _mm_set1_epi8(15);
    return _mm_and_si128(_mm_shuffle_epi8(low, _mm_and_si128(v, nibble)),
                         _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi16(v, 4), nibble)));
}

#define TABLE16(half, i) _mm_loadu_si128((const __m128i *)b->half[i])
#define BYTES16(i) _mm_loadu_si128((const __m128i *)(p + (i)))

__attribute__((target("ssse3"))) static void scan_ssse3(const beginnings_t *b, const uint8_t *p, scan_t *out,
                                                        unsigned blocks)
{
    const __m128i l0 = TABLE16(low, 0), h0 = TABLE16(high, 0), l1 = TABLE16(low, 1), h1 = TABLE16(high, 1);
    const __m128i l2 = TABLE16(low, 2), h2 = TABLE16(high, 2);
    const __m128i word_low = _mm_setr_epi8(WORD_LOW), word_high = _mm_setr_epi8(WORD_HIGH);
    const __m128i zero = _mm_setzero_si128();
    for (; blocks; blocks--, p += SCAN_BYTES, out++) {
        uint64_t forms = 0, digits = 0, gaps = 0, ends = 0, word = 0;
        for (unsigned i = 0; i < SCAN_BYTES; i += 16) {
            __m128i v = BYTES16(i);
            __m128i f = _mm_and_si128(_mm_and_si128(halves16(l0, h0, v), halves16(l1, h1, BYTES16(i + 1))),
                                      halves16(l2, h2, BYTES16(i + 2)));
            __m128i e =
                _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(':')), _mm_cmpeq_epi8(v, _mm_set1_epi8('='))),
                             _mm_cmpeq_epi8(v, _mm_set1_epi8('>')));
            /* from '0' to '9' and no others become the ten smallest signed numbers */
            __m128i d = _mm_cmplt_epi8(_mm_add_epi8(v, _mm_set1_epi8(0x50)), _mm_set1_epi8(-0x76));
            __m128i g = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
            __m128i w = halves16(word_low, word_high, v);
            forms |= (uint64_t)(uint16_t)~_mm_movemask_epi8(_mm_cmpeq_epi8(f, zero)) << i;
            digits |= (uint64_t)(uint16_t)_mm_movemask_epi8(d) << i;
            gaps |= (uint64_t)(uint16_t)_mm_movemask_epi8(g) << i;
            ends |= (uint64_t)(uint16_t)_mm_movemask_epi8(e) << i;
            word |= (uint64_t)(uint16_t)~_mm_movemask_epi8(_mm_cmpeq_epi8(w, zero)) << i;
        }
        out->forms = forms;
        out->digits = digits;
        out->gaps = gaps;
        out->ends = ends;
        out->word = word;
    }
}

__attribute__((target("avx2"))) static inline __m256i halves32(__m256i low, __m256i high, __m256i v)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    return _mm256_and_si256(_mm256_shuffle_epi8(low, _mm256_and_si256(v, nibble)),
                            _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble)));
}

#define TABLE32(half, i) _mm256_broadcastsi128_si256(TABLE16(half, i))
#define BYTES32(i) _mm256_loadu_si256((const __m256i *)(p + (i)))

__attribute__((target("avx2"))) static void scan_avx2(const beginnings_t *b, const uint8_t *p, scan_t *out,
                                                      unsigned blocks)
{
    const __m256i l0 = TABLE32(low, 0), h0 = TABLE32(high, 0), l1 = TABLE32(low, 1), h1 = TABLE32(high, 1);
    const __m256i l2 = TABLE32(low, 2), h2 = TABLE32(high, 2);
    const __m256i word_low = _mm256_setr_epi8(WORD_LOW, WORD_LOW), word_high = _mm256_setr_epi8(WORD_HIGH, WORD_HIGH);
    const __m256i zero = _mm256_setzero_si256();
    for (; blocks; blocks--, p += SCAN_BYTES, out++) {
        uint64_t forms = 0, digits = 0, gaps = 0, ends = 0, word = 0;
        for (unsigned i = 0; i < SCAN_BYTES; i += 32) {
            __m256i v = BYTES32(i);
            __m256i f = _mm256_and_si256(_mm256_and_si256(halves32(l0, h0, v), halves32(l1, h1, BYTES32(i + 1))),
                                         halves32(l2, h2, BYTES32(i + 2)));
            __m256i e = _mm256_or_si256(_mm256_or_si256(_mm256_cmpeq_epi8(v, _mm256_set1_epi8(':')),
                                                        _mm256_cmpeq_epi8(v, _mm256_set1_epi8('='))),
                                        _mm256_cmpeq_epi8(v, _mm256_set1_epi8('>')));
            __m256i d = _mm256_cmpgt_epi8(_mm256_set1_epi8(-0x76), _mm256_add_epi8(v, _mm256_set1_epi8(0x50)));
            __m256i g = _mm256_or_si256(_mm256_cmpeq_epi8(v, _mm256_set1_epi8(' ')),
                                        _mm256_cmpeq_epi8(v, _mm256_set1_epi8('-')));
            __m256i w = halves32(word_low, word_high, v);
            forms |= (uint64_t)(uint32_t)~_mm256_movemask_epi8(_mm256_cmpeq_epi8(f, zero)) << i;
            digits |= (uint64_t)(uint32_t)_mm256_movemask_epi8(d) << i;
            gaps |= (uint64_t)(uint32_t)_mm256_movemask_epi8(g) << i;
            ends |= (uint64_t)(uint32_t)_mm256_movemask_epi8(e) << i;
            word |= (uint64_t)(uint32_t)~_mm256_movemask_epi8(_mm256_cmpeq_epi8(w, zero)) << i;
        }
        out->forms = forms;
        out->digits = digits;
        out->gaps = gaps;
        out->ends = ends;
        out->word = word;
    }
}
#endif

static int scan_speed; /* 0: any machine, 1: SSSE3, 2: AVX2 */

static inline void scan_prepare(int most)
{
#if defined(__x86_64__)
    scan_speed = most >= 2 && __builtin_cpu_supports("avx2") ? 2 : most >= 1 && __builtin_cpu_supports("ssse3") ? 1 : 0;
#endif
}

/* Blocks of the n bytes at p, as many as there is room for: how many. Reads no further than p + n. Behind a text there
 * are zeros, which are nothing of all this: no bit is set there. */
static inline unsigned scan_blocks(const beginnings_t *b, const uint8_t *p, size_t n, scan_t *out)
{
    uint8_t rest[SCAN_BYTES + 16];
    unsigned blocks = 1;
    if (n < SCAN_BYTES + SCAN_AHEAD) {
        memset(rest, 0, sizeof(rest));
        memcpy(rest, p, n);
        p = rest;
    } else {
        blocks = n < SCAN_MANY * SCAN_BYTES + SCAN_AHEAD ? (unsigned)((n - SCAN_AHEAD) / SCAN_BYTES) : SCAN_MANY;
    }
#if defined(__x86_64__)
    if (scan_speed == 2) {
        scan_avx2(b, p, out, blocks);
        return blocks;
    }
    if (scan_speed == 1) {
        scan_ssse3(b, p, out, blocks);
        return blocks;
    }
#endif
    for (unsigned i = 0; i < blocks; i++)
        scan_bytes(b, p + i * SCAN_BYTES, out + i);
    return blocks;
}

/* Of `word`, the bytes at which eighteen in a row begin. */
static inline uint64_t eighteen(uint64_t word)
{
    uint64_t two = word & word >> 1, four = two & two >> 2, eight = four & four >> 4;
    return eight & eight >> 8 & two >> 16;
}

/* Of `x`, moved down by k bytes; what comes behind the block may be anything. */
static inline uint64_t ahead(uint64_t x, unsigned k)
{
    return x >> k | ~(~(uint64_t)0 >> k);
}

/* Of the digits, the bytes at which a number may begin that has a form (forms.pyx): a row of twelve or more, one of
 * four to seven before a gap and three more, one of eight or more before a colon. `before`: a digit stands in front of
 * them. */
static inline uint64_t numbers(const scan_t *s, unsigned before)
{
    const uint64_t d = s->digits, two = d & ahead(d, 1), four = two & ahead(two, 2), eight = four & ahead(four, 4);
    const uint64_t start = d & ~(d << 1 | before) & four;
    uint64_t gap;
    if (!start)
        return 0;
    gap = s->gaps & four << 4 & ahead(two, 1) & ahead(d, 3);
    return start &
           ((eight & ahead(four, 8)) | gap >> 4 | gap >> 5 | gap >> 6 | gap >> 7 | (s->ends & eight << 8 ? eight : 0));
}

/* Of `digits`, the bytes at which a row of four or more begins, or may, whatever follows. */
static inline uint64_t rows_of_digits(uint64_t digits, unsigned before)
{
    const uint64_t top = (uint64_t)7 << 61;
    return digits & ~(digits << 1 | before) & (digits >> 1 | top) & (digits >> 2 | top) & (digits >> 3 | top);
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
