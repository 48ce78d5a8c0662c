/* SPDX-License-Identifier: Apache-2.0 */
/* Searches over a message head that want vector instructions. */
#ifndef COLLECTOR_SIMD_H
#define COLLECTOR_SIMD_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* What find_line_end saw on its way. */
enum {
    LINE_SPECIAL = 1, /* a byte that wants care in JSON: control character, '"', '\\', 0x7F and up */
    LINE_NUL = 2,
    LINE_BARE_CR = 4, /* a CR that no LF follows */
};

/* The first byte that is no letter, digit or '-', or NULL: the colon, for the names that fields usually have. */
static inline const uint8_t *skip_usual(const uint8_t *p, const uint8_t *end)
{
#if defined(__SSE2__)
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        __m128i lower = _mm_or_si128(v, _mm_set1_epi8(0x20));
        __m128i letter =
            _mm_and_si128(_mm_cmpgt_epi8(lower, _mm_set1_epi8('a' - 1)), _mm_cmplt_epi8(lower, _mm_set1_epi8('z' + 1)));
        __m128i digit =
            _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8('0' - 1)), _mm_cmplt_epi8(v, _mm_set1_epi8('9' + 1)));
        unsigned usual = (unsigned)_mm_movemask_epi8(
            _mm_or_si128(_mm_or_si128(letter, digit), _mm_cmpeq_epi8(v, _mm_set1_epi8('-'))));
        if (usual != 0xffff)
            return p + __builtin_ctz(~usual);
    }
#endif
    for (; p < end; p++) {
        uint8_t c = *p | 0x20;
        if (!((c >= 'a' && c <= 'z') || (*p >= '0' && *p <= '9') || *p == '-'))
            return p;
    }
    return NULL;
}

/* The LF that ends the line, or NULL; `facts` gets what lies before it, a CR right before it aside. */
static inline const uint8_t *find_line_end(const uint8_t *p, const uint8_t *end, unsigned *facts)
{
    unsigned carry = 0; /* the byte before p is a CR */
#if defined(__SSE2__)
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        unsigned special = (unsigned)_mm_movemask_epi8(
            _mm_or_si128(_mm_cmplt_epi8(_mm_add_epi8(v, _mm_set1_epi8(1)), _mm_set1_epi8(0x21)),
                         _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')))));
        unsigned lf, cr, nul, before, last;
        if (!(special | carry))
            continue;
        lf = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\n')));
        cr = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\r')));
        before = lf ? (lf & (0 - lf)) - 1 : 0xffff; /* the bytes of this line */
        last = lf ? (before + 1) >> 1 : 0x8000;     /* the one whose CR is no bare one, or not yet known to be one */
        if (carry && !(lf & 1))
            *facts |= LINE_BARE_CR | LINE_SPECIAL;
        carry = !lf && cr & 0x8000;
        special &= before & ~(cr & last);
        if (special) {
            nul = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128()));
            *facts |= LINE_SPECIAL | (nul & before ? LINE_NUL : 0) | (cr & before & ~last ? LINE_BARE_CR : 0);
        }
        if (lf)
            return p + __builtin_ctz(lf);
    }
#endif
    for (; p < end; p++) {
        if (*p == '\n')
            return p;
        if (carry)
            *facts |= LINE_BARE_CR | LINE_SPECIAL;
        carry = *p == '\r';
        if (!carry && (*p < 0x20 || *p >= 0x7f || *p == '"' || *p == '\\'))
            *facts |= LINE_SPECIAL | (*p == 0 ? LINE_NUL : 0);
    }
    return NULL;
}

/*
 * The first and the last eight bytes of a name in lower case (as far as setting bit 5 does that: exact for names of
 * letters, digits and '-'); a name shorter than eight bytes gives the same word twice, filled up with 'a'.
 * `readable` bytes may be read from p.
 */
static inline void name_words(const uint8_t *p, uint32_t n, size_t readable, uint64_t *first, uint64_t *last)
{
    const uint64_t ones = 0x0101010101010101ULL;
    if (n >= 8) {
        memcpy(first, p, 8);
        memcpy(last, p + n - 8, 8);
        *last |= ones * 0x20;
    } else {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        if (readable >= 8) {
            uint64_t beyond = n ? ~0ULL << 8 * n : ~0ULL;
            memcpy(first, p, 8);
            *first = (*first & ~beyond) | (ones * 'a' & beyond);
        } else
#endif
        {
            uint8_t few[8];
            memset(few, 'a', 8);
            for (uint32_t i = 0; i < n; i++)
                few[i] = p[i];
            memcpy(first, few, 8);
        }
        *last = *first | ones * 0x20;
    }
    *first |= ones * 0x20;
}

static inline uint64_t word8(const char *s)
{
    uint64_t w;
    memcpy(&w, s, 8);
    return w;
}

/* Copy n plain bytes, 16 at a time where that many may be read; writes up to 15 bytes more. */
static inline char *copy_plain(char *out, const uint8_t *p, uint32_t n, const uint8_t *readable_end)
{
    if ((size_t)(readable_end - p) >= ((size_t)n + 15) / 16 * 16) {
        for (uint32_t i = 0; i < n; i += 16)
            memcpy(out + i, p + i, 16);
    } else {
        memcpy(out, p, n);
    }
    return out + n;
}

/* Is there a byte in `w` that wants care? Those of records/escape.h, eight bytes in a register. */
static inline int special8(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101ULL, high = 0x8080808080808080ULL;
    uint64_t quote = w ^ (ones * '"'), slash = w ^ (ones * '\\');
    return (((w - ones * 0x20) | (quote - ones) | (slash - ones) | (w + ones) | w) & high) != 0;
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

#endif
