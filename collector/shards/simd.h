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

static inline size_t count_byte(const void *data, size_t n, int c)
{
    const uint8_t *p = (const uint8_t *)data;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) /* the compiler makes this a vector loop */
        count += p[i] == (uint8_t)c;
    return count;
}

static inline unsigned ctz32(unsigned x) { return (unsigned)__builtin_ctz(x); }
static inline int is_unlikely(int x) { return (int)__builtin_expect(x, 0); }
#endif
