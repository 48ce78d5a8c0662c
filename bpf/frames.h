/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Calls of library functions that have not returned, by thread: their arguments, for the return, and which socket the
 * system calls inside used. A call can stand inside another one (TLS inside TLS), and a return can be missed (longjmp,
 * a thread that ends), so a frame is known by its stack pointer: stacks grow downwards, and what lies below a later one
 * is over. The entry of a thread stays when its calls have returned: writing to it is cheaper than making it anew.
 *
 * With the thread, or the program that it runs, its entry goes: what has its number next has another stack.
 *
 * A thread that leaves one stack for another in the middle of such a call (coroutines inside BIO callbacks) is not
 * followed: that call is lost, which is a hole in the object's bytes that nobody sees.
 */

#if defined(__x86_64__) || defined(__TARGET_ARCH_x86)
#define RETURN_BYTES 8 /* of the return address, which is on the stack at the entry and not at the return */
#else
#define RETURN_BYTES 0
#endif

static __always_inline struct frames *frames_of(u64 id)
{
    struct frames *f = thread_frames.lookup(&id);
    if (f)
        return f;
    struct frames fresh = {};
    thread_frames.update(&id, &fresh);
    return thread_frames.lookup(&id);
}

/* The calling thread ends, or begins another program. */
static __always_inline void leave_all(u64 id)
{
    if (thread_frames.lookup(&id))
        thread_frames.delete(&id);
}

/* A function is entered with this stack pointer. NULL: there is no room. */
static __always_inline struct frame *enter(u64 id, u64 sp, u64 object)
{
    struct frames *f = frames_of(id);
    if (!f)
        return 0;
    u32 depth = f->depth;
    if (depth > 1 && f->frame[1].sp <= sp)
        depth = 1;
    if (depth && f->frame[0].sp <= sp)
        depth = 0;
    struct frame *top = depth ? &f->frame[1] : &f->frame[0]; /* three deep: the one above the first is lost */
    top->sp = sp;
    top->object = object;
    top->base = 0;
    top->out = 0;
    top->fd = -1;
    top->source = SOURCE_SYSCALL;
    f->depth = depth ? 2 : 1;
    return top;
}

/* As `enter`, for a function that moves bytes from or to `base`; `out` as in struct frame. */
static __always_inline void park(u64 id, u64 sp, u64 object, u64 base, u64 out, u32 source, u32 dir)
{
    struct frame *top = enter(id, sp, object);
    if (!top)
        return;
    top->base = base;
    top->out = out;
    top->dir = dir;
    top->source = source;
}

/* The call that returns with this stack pointer. False when its entry was not seen. */
static __always_inline bool unpark(u64 id, u64 sp, struct frame *out)
{
    struct frames *f = thread_frames.lookup(&id);
    if (!f || !f->depth)
        return false;
    u32 depth = f->depth;
    sp -= RETURN_BYTES;
    if (depth > 1 && f->frame[1].sp < sp)
        depth = 1; /* its return was missed */
    if (depth > 1) {
        f->depth = 1;
        if (f->frame[1].sp != sp)
            return false;
        *out = f->frame[1];
        return true;
    }
    if (f->frame[0].sp > sp) { /* that of a call whose entry was not seen, inside this one */
        f->depth = 1;
        return false;
    }
    f->depth = 0;
    if (f->frame[0].sp != sp)
        return false;
    *out = f->frame[0];
    return true;
}

/* The object of the library's call that the thread is in, NULL when it is in none. */
static __always_inline struct frame *frame_of(u64 id)
{
    struct frames *f = thread_frames.lookup(&id);
    if (!f || !f->depth)
        return 0;
    return f->depth > 1 ? &f->frame[1] : &f->frame[0];
}

static __always_inline bool inside_library(u64 id)
{
    return frame_of(id);
}

/* May this connection be what a library's object is carried by, and does nobody know it yet? In a process that has
 * inherited the connection the object is another one. */
static __always_inline bool unclaimed(struct conn *c, u64 id)
{
    return c->tls && !(c->bound & BOUND && c->told == (u32)(id >> 32));
}

/* A system call on a stream socket moved bytes: whether it was inside a call of a library, which is told of it. */
static __always_inline bool nested(const struct call *k)
{
    struct frame *top = frame_of(k->id);
    if (!top)
        return false;
    if (top->fd < 0)
        top->fd = k->fd;
    return true;
}
