/* SPDX-License-Identifier: Apache-2.0 */
/* Where a string of JSON ends. */
#ifndef COLLECTOR_STRING_END_H
#define COLLECTOR_STRING_END_H
#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/*
 * The quote that ends the string whose text begins at p, or NULL when none does before `end`. Of a payload of JSON every
 * eighth byte or so is an escaped quote, so all escapes of sixteen bytes are found in one step: of a run of backslashes
 * every second one, from the first on, escapes the byte behind it.
 */
static inline const uint8_t *string_end(const uint8_t *p, const uint8_t *end)
{
#if defined(__SSE2__)
    unsigned escaped_first = 0; /* the byte at p is escaped by the one before */
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        unsigned quotes = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
        unsigned slashes = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
        unsigned escaped = escaped_first;
        if (slashes & (slashes << 1 | escaped_first)) { /* a run: one after the other */
            unsigned left = slashes & ~escaped_first;
            while (left) {
                unsigned next = (left & (0 - left)) << 1;
                escaped |= next;
                left &= left - 1;
                left &= ~next;
            }
        } else {
            escaped |= slashes << 1;
        }
        quotes &= ~escaped;
        if (quotes)
            return p + __builtin_ctz(quotes);
        escaped_first = escaped >> 16 & 1;
    }
    if (escaped_first && p < end)
        p++;
#endif
    while (p < end) {
        if (*p == '"')
            return p;
        p += *p == '\\' && end - p > 1 ? 2 : 1;
    }
    return NULL;
}

#endif
