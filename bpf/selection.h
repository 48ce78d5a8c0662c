/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which processes are captured. */

static __always_inline bool traced(u32 tgid)
{
    u32 word = (tgid & (MAX_PIDS - 1)) >> 6;
    u64 *bits = pid_bits.lookup(&word);
    if (!bits)
        return false;
#ifdef SELECT_PIDS
    return (*bits >> (tgid & 63)) & 1;
#else
    return !((*bits >> (tgid & 63)) & 1);
#endif
}
