/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one step of JSON escaping that wants vector instructions: copy 16 bytes and say which of them need care,
 * that is control characters, '"', '\\' and everything from 0x80 on (UTF-8 to be checked).
 * One signed comparison with 0x20 finds control characters and high bytes alike.
 */
#ifndef COLLECTOR_SIMD_H
#define COLLECTOR_SIMD_H
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
static inline unsigned copy16_special(void *out, const void *in)
{
    __m128i v = _mm_loadu_si128((const __m128i *)in);
    __m128i m = _mm_cmplt_epi8(v, _mm_set1_epi8(0x20));
    m = _mm_or_si128(m, _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
    m = _mm_or_si128(m, _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    _mm_storeu_si128((__m128i *)out, v);
    return (unsigned)_mm_movemask_epi8(m);
}
#else
static inline unsigned copy16_special(void *out, const void *in)
{
    const uint8_t *p = (const uint8_t *)in;
    unsigned m = 0;
    memcpy(out, in, 16);
    for (unsigned i = 0; i < 16; i++)
        m |= (unsigned)(p[i] < 0x20 || p[i] >= 0x80 || p[i] == '"' || p[i] == '\\') << i;
    return m;
}
#endif

/* Is there a byte in `w` that JSON wants care for? The same four conditions as above, eight bytes in a register. */
static inline int special8(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101ULL, high = 0x8080808080808080ULL;
    uint64_t quote = w ^ (ones * '"'), slash = w ^ (ones * '\\');
    return (((w - ones * 0x20) | (quote - ones) | (slash - ones) | w) & high) != 0;
}

/*
 * The last bytes of a text, fewer than 16, in one or two overlapping words. Returns 0 and has copied nothing when any
 * of them needs care (or might: the test may err on that side), or when there are fewer than four.
 */
static inline int copy_tail(void *out, const void *in, size_t n)
{
    uint64_t a, b;
    if (n >= 8) {
        memcpy(&a, in, 8);
        memcpy(&b, (const char *)in + n - 8, 8);
        if (special8(a) | special8(b))
            return 0;
        memcpy(out, &a, 8);
        memcpy((char *)out + n - 8, &b, 8);
        return 1;
    }
    if (n >= 4) {
        uint32_t c, d;
        memcpy(&c, in, 4);
        memcpy(&d, (const char *)in + n - 4, 4);
        if (special8((uint64_t)d << 32 | c))
            return 0;
        memcpy(out, &c, 4);
        memcpy((char *)out + n - 4, &d, 4);
        return 1;
    }
    return 0;
}

/* A CR that no LF follows, anywhere in a head. */
static inline int has_bare_cr(const void *data, size_t n)
{
    const uint8_t *p = (const uint8_t *)data;
    size_t i = 0;
#if defined(__SSE2__)
    unsigned carry = 0;
    for (; i + 16 <= n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(p + i));
        unsigned cr = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\r')));
        unsigned lf = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\n')));
        if ((cr << 1 | carry) & 0xffff & ~lf)
            return 1;
        carry = cr >> 15;
    }
    if (carry && (i >= n || p[i] != '\n'))
        return 1;
#endif
    for (; i < n; i++)
        if (p[i] == '\r' && (i + 1 >= n || p[i + 1] != '\n'))
            return 1;
    return 0;
}

static inline unsigned ctz32(unsigned x) { return (unsigned)__builtin_ctz(x); }
static inline int is_unlikely(int x) { return (int)__builtin_expect(x, 0); }
#endif
