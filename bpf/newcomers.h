/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Processes that begin a program or map a file executable, told to the loader, which looks for libraries in them
 * (collector/loader/newcomers.py). Each is told once until the loader, right before it looks, takes it out of
 * `newcomers_told`: what is mapped while it looks is told again.
 */

/* tgid -> nothing: told, and not looked at yet. Made here, deleted by the loader. */
BPF_TABLE("lru_hash", u32, u8, newcomers_told, 4096);

/* To the loader: tgids. It looks by itself often enough, so nobody is waked. */
BPF_RINGBUF_OUTPUT(newcomers, 16);

#define PROT_EXEC 4
#define MAP_ANONYMOUS 0x20
#define RINGBUF_NO_WAKEUP 1

static __always_inline void newcomer(u32 tgid)
{
    u8 nothing = 0;
    if (newcomers_told.insert(&tgid, &nothing))
        return; /* told already */
    if (newcomers.ringbuf_output(&tgid, sizeof(tgid), RINGBUF_NO_WAKEUP))
        newcomers_told.delete(&tgid); /* no room: with its next mapping */
}

/* A mapping has been made. */
static __always_inline u32 on_mmap(u32 tgid, u64 protection, u64 flags)
{
    if (protection & PROT_EXEC && !(flags & MAP_ANONYMOUS))
        newcomer(tgid);
    return 0;
}

/* A process executes another program: what it asked for was for the one before. */
static __always_inline void on_program(u32 tgid)
{
    if (!traced(tgid))
        return;
    wanting.delete(&tgid);
    newcomer(tgid);
}
