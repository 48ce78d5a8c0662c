/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON string escaping (RFC 8259 section 7), the vector part. records/text.pyx has the loops around it and the cases
 * that are rare.
 *
 * A byte needs care when it is a control character (0x7F is one), '"', '\\' or from 0x80 on (UTF-8 to be checked; and
 * U+0080 to U+009F, the bytes C2 80 to C2 9F, are control characters too).
 * Nothing here reads outside the text it is given; everything may write up to 24 bytes behind what it produced.
 */
#ifndef COLLECTOR_ESCAPE_H
#define COLLECTOR_ESCAPE_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "simd.h"

/* ---- every machine: copy 16 bytes and say which of them need care ---------------------------------------------- */

/* Plus one, a signed comparison with 0x21 finds control characters, 0x7F and high bytes alike (0xFF becomes 0). */
#if defined(__SSE2__)
#include <emmintrin.h>
static inline unsigned copy16_special(void *out, const void *in)
{
    __m128i v = _mm_loadu_si128((const __m128i *)in);
    __m128i m = _mm_cmplt_epi8(_mm_add_epi8(v, _mm_set1_epi8(1)), _mm_set1_epi8(0x21));
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
        m |= (unsigned)(p[i] < 0x20 || p[i] >= 0x7f || p[i] == '"' || p[i] == '\\') << i;
    return m;
}
#endif

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

static inline unsigned ctz32(unsigned x)
{
    return (unsigned)__builtin_ctz(x);
}

/* ---- x86-64 with SSSE3: whole texts -------------------------------------------------------------------------------
 *
 * Eight bytes a step without a branch that depends on where the quotes are: a table gives, for each pattern of special
 * bytes, the shuffle that opens a gap for the backslash in front of each. In JSON a quote comes every few bytes, and a
 * loop that stops at each of them mispredicts all the time.
 *
 * The instruction set is asked for once, at start (prepare_escape); without it escape_plain does nothing and the
 * 16-byte steps above do it all.
 */
#if defined(__x86_64__)
#include <tmmintrin.h>
#define SSSE3 __attribute__((target("ssse3,popcnt")))

static int have_ssse3;
static uint8_t escape_shuffle[256][16];

static inline void prepare_escape(void)
{
    for (unsigned mask = 0; mask < 256; mask++) {
        unsigned to = 0;
        memset(escape_shuffle[mask], 0, 16);
        for (unsigned i = 0; i < 8; i++) {
            if (mask >> i & 1)
                escape_shuffle[mask][to++] = 0x80; /* pshufb gives 0 here: room for the backslash */
            escape_shuffle[mask][to++] = (uint8_t)i;
        }
    }
    __builtin_cpu_init();
    have_ssse3 = __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("popcnt");
}

SSSE3 static inline char *put8_escaped(char *out, __m128i v, unsigned mask)
{
    __m128i shuffle = _mm_loadu_si128((const __m128i *)escape_shuffle[mask]);
    __m128i gaps = _mm_and_si128(_mm_cmplt_epi8(shuffle, _mm_setzero_si128()), _mm_set1_epi8('\\'));
    _mm_storeu_si128((__m128i *)out, _mm_or_si128(_mm_shuffle_epi8(v, shuffle), gaps));
    return out + 8 + __builtin_popcount(mask);
}

/* Up to 16 bytes of the text as a vector, 'x' behind its end. */
static inline __m128i load_up_to_16(const uint8_t *p, size_t left)
{
    uint8_t few[16];
    uint64_t a, b;
    if (left >= 16)
        return _mm_loadu_si128((const __m128i *)p);
    memset(few, 'x', 16);
    if (left >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + left - 8, 8);
        memcpy(few, &a, 8);
        memcpy(few + left - 8, &b, 8);
    } else {
        for (size_t i = 0; i < left; i++)
            few[i] = p[i];
    }
    return _mm_loadu_si128((const __m128i *)few);
}

/*
 * Escape for as long as no character wants a \u escape - or, unless `high` says that the text is known to be UTF-8, is
 * from 0x80 on. *at is where it stopped: at `end`, or at most 15 bytes before such a character.
 */
SSSE3 static inline char *escape_ssse3(char *out, const uint8_t **at, const uint8_t *end, int high)
{
    /* \b \t \n \f \r by their low four bits */
    const __m128i letters = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 'b', 't', 'n', 0, 'f', 'r', 0, 0);
    const __m128i one = _mm_set1_epi8(1), limit = _mm_set1_epi8(0x21), quote = _mm_set1_epi8('"'),
                  slash = _mm_set1_epi8('\\');
    const uint8_t *p = *at;
    while (p < end) {
        size_t left = (size_t)(end - p);
        __m128i v = load_up_to_16(p, left);
        __m128i control = _mm_cmplt_epi8(_mm_add_epi8(v, one), limit); /* and 0x80 and up */
        __m128i special = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash));
        unsigned mask;
        if (high) {
            unsigned c2 = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8((char)0xc2)));
            control = _mm_andnot_si128(_mm_cmplt_epi8(v, _mm_setzero_si128()), control);
            if (c2) { /* U+0080 to U+009F, or only U+00A0 to U+00BF? (whole sequences: the text is UTF-8) */
                unsigned low = (unsigned)_mm_movemask_epi8(_mm_cmplt_epi8(v, _mm_set1_epi8((char)0xa0)));
                if (left > 16)
                    low |= (unsigned)(p[16] >= 0x80 && p[16] < 0xa0) << 16;
                if (c2 << 1 & low)
                    break;
            }
        }
        if (__builtin_expect(_mm_movemask_epi8(control) != 0, 0)) {
            __m128i letter = _mm_and_si128(_mm_shuffle_epi8(letters, v), control);
            __m128i hard = _mm_or_si128(_mm_and_si128(control, _mm_cmpeq_epi8(letter, _mm_setzero_si128())),
                                        _mm_and_si128(control, _mm_cmpgt_epi8(v, _mm_set1_epi8(0x0f))));
            if (_mm_movemask_epi8(hard))
                break;
            v = _mm_or_si128(_mm_andnot_si128(control, v), letter);
            special = _mm_or_si128(special, control);
        }
        mask = (unsigned)_mm_movemask_epi8(special);
        if (mask == 0) {
            _mm_storeu_si128((__m128i *)out, v);
            out += left < 16 ? left : 16;
        } else if (left >= 16) {
            out = put8_escaped(out, v, mask & 0xff);
            out = put8_escaped(out, _mm_srli_si128(v, 8), mask >> 8);
        } else {
            put8_escaped(put8_escaped(out, v, mask & 0xff), _mm_srli_si128(v, 8), mask >> 8);
            out += left + (unsigned)__builtin_popcount(mask); /* an 'x' is not special */
        }
        p += left < 16 ? left : 16;
    }
    *at = p;
    return out;
}

SSSE3 static char *escape_plain_ssse3(char *out, const uint8_t **at, const uint8_t *end)
{
    return escape_ssse3(out, at, end, 0);
}

SSSE3 static char *escape_utf8_ssse3(char *out, const uint8_t **at, const uint8_t *end)
{
    return escape_ssse3(out, at, end, 1);
}

/*
 * Is the text well-formed UTF-8? Each pair of neighbouring bytes is looked up in three tables of sixteen entries, whose
 * common bits are the errors that it may be part of; third and fourth bytes are compared with what the lead bytes
 * announce (J. Keiser, D. Lemire: Validating UTF-8 In Less Than One Instruction Per Byte, 2021).
 */
SSSE3 static int utf8_valid_ssse3(const uint8_t *p, const uint8_t *end)
{
    enum {
        SHORT = 1,
        LONG = 2,
        OVER3 = 4,
        SURROGATE = 16,
        OVER2 = 32,
        CONTS = 128,
        LARGE = 8,
        LARGE1000 = 64,
        OVER4 = 64,
        CARRY = SHORT | LONG | CONTS
    };
    const __m128i high1 =
        _mm_setr_epi8(LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG, (char)CONTS, (char)CONTS, (char)CONTS,
                      (char)CONTS, SHORT | OVER2, SHORT, SHORT | OVER3 | SURROGATE, SHORT | LARGE | LARGE1000 | OVER4);
    const __m128i low1 = _mm_setr_epi8((char)(CARRY | OVER3 | OVER2 | OVER4), (char)(CARRY | OVER2), (char)CARRY,
                                       (char)CARRY, (char)(CARRY | LARGE), (char)(CARRY | LARGE | LARGE1000),
                                       (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000),
                                       (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000),
                                       (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000),
                                       (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000 | SURROGATE),
                                       (char)(CARRY | LARGE | LARGE1000), (char)(CARRY | LARGE | LARGE1000));
    const __m128i high2 =
        _mm_setr_epi8(SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT,
                      (char)(LONG | OVER2 | CONTS | OVER3 | LARGE1000 | OVER4),
                      (char)(LONG | OVER2 | CONTS | OVER3 | LARGE), (char)(LONG | OVER2 | CONTS | SURROGATE | LARGE),
                      (char)(LONG | OVER2 | CONTS | SURROGATE | LARGE), SHORT, SHORT, SHORT, SHORT);
    const __m128i nibble = _mm_set1_epi8(0x0f), top = _mm_set1_epi8((char)0x80);
    __m128i before = _mm_setzero_si128(), error = _mm_setzero_si128();
    int more = 1;
    while (more) {
        size_t left = (size_t)(end - p);
        __m128i v, prev1, prev2, prev3, special, must23;
        more = left >= 16; /* the last round has at least one 'x' behind the end: an unfinished sequence is an error */
        v = load_up_to_16(p, left);
        p += more ? 16 : left;
        if (_mm_movemask_epi8(_mm_or_si128(v, before)) == 0)
            continue; /* (an ASCII block behind an ASCII block; `before` need not change) */
        prev1 = _mm_alignr_epi8(v, before, 15);
        prev2 = _mm_alignr_epi8(v, before, 14);
        prev3 = _mm_alignr_epi8(v, before, 13);
        special = _mm_and_si128(_mm_and_si128(_mm_shuffle_epi8(high1, _mm_and_si128(_mm_srli_epi16(prev1, 4), nibble)),
                                              _mm_shuffle_epi8(low1, _mm_and_si128(prev1, nibble))),
                                _mm_shuffle_epi8(high2, _mm_and_si128(_mm_srli_epi16(v, 4), nibble)));
        must23 = _mm_or_si128(_mm_subs_epu8(prev2, _mm_set1_epi8((char)(0xe0 - 0x80))),
                              _mm_subs_epu8(prev3, _mm_set1_epi8((char)(0xf0 - 0x80))));
        error = _mm_or_si128(error, _mm_xor_si128(_mm_and_si128(must23, top), special));
        before = v;
    }
    return _mm_movemask_epi8(_mm_cmpeq_epi8(error, _mm_setzero_si128())) == 0xffff;
}

static inline int fast_texts(void)
{
    return have_ssse3;
}
static inline void leave_fast_texts(void)
{
    have_ssse3 = 0;
}
#else
static inline void prepare_escape(void) {}
static inline void leave_fast_texts(void) {}
static inline char *escape_plain_ssse3(char *out, const uint8_t **at, const uint8_t *end)
{
    (void)at, (void)end;
    return out;
}
static inline char *escape_utf8_ssse3(char *out, const uint8_t **at, const uint8_t *end)
{
    (void)at, (void)end;
    return out;
}
static inline int utf8_valid_ssse3(const uint8_t *p, const uint8_t *end)
{
    return p == end;
}
static inline int fast_texts(void)
{
    return 0;
}
#endif
#endif
