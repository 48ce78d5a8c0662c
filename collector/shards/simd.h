/* SPDX-License-Identifier: Apache-2.0 */
/* Searches over a message head that want vector instructions. */
#ifndef COLLECTOR_SIMD_H
#define COLLECTOR_SIMD_H
#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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

#endif
