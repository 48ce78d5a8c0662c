/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which processes are captured. */

/* Of the calling process. PIDNS_INO: the collector has a pid namespace of its own (PIDNS_DEV, PIDNS_INO), so the
 * numbers that it wrote into `pid_bits` are of that namespace, and mean nobody outside. */
static __always_inline bool traced(u32 tgid)
{
#ifdef PIDNS_INO
    struct bpf_pidns_info own = {};
    bool inside = !bpf_get_ns_current_pid_tgid(PIDNS_DEV, PIDNS_INO, &own, sizeof(own));
    tgid = own.tgid;
#ifdef SELECT_PIDS
    if (!inside)
        return false;
#else
    if (!inside)
        return true;
#endif
#endif
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
