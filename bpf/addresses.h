/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Addresses are 16 bytes everywhere (IPv4 as ::ffff:a.b.c.d), ports in host order. */

static __always_inline u16 swap16(u16 v)
{
    return (u16)(v << 8 | v >> 8);
}

static __always_inline void map4(u8 *out, const u8 *v4)
{
    out[10] = 0xff;
    out[11] = 0xff;
    __builtin_memcpy(out + 12, v4, 4);
}
