/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which processes are captured. */

/*
 * Of the calling process: its bit in `pid_bits` is not set. PIDNS_INO: the collector has a pid namespace of its own
 * (PIDNS_DEV, PIDNS_INO), so the numbers that it wrote there are of that namespace; who is outside has no number in it,
 * and all of them have bit 0.
 */
static __always_inline bool traced(u32 tgid)
{
#ifdef PIDNS_INO
    struct bpf_pidns_info own = {};
    bpf_get_ns_current_pid_tgid(PIDNS_DEV, PIDNS_INO, &own, sizeof(own)); /* outside: all zero */
    tgid = own.tgid;
#endif
    u32 word = (tgid & (MAX_PIDS - 1)) >> 6;
    u64 *bits = pid_bits.lookup(&word);
    if (!bits)
        return false;
    return !((*bits >> (tgid & 63)) & 1);
}
