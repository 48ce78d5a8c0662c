/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What probe sources of libraries have in common. An object is what a library knows a connection by; the bytes that go
 * through its calls (the plaintext) are a stream of their own, with positions of their own.
 *
 *   the socket is known before its first byte is told   the object uses the socket's conn_id, and so its ring
 *   it is known later                                   the object has a conn_id of its own; BIND tells that both are
 *                                                       one, and the socket's events go to the object's ring from then
 *   it is never known                                   a connection without ends
 *
 * A socket that an object stands for is not captured itself any more: its bytes are what the library made of the
 * object's. Its end is told all the same, for a process that is killed frees no object.
 *
 * These programs can be interrupted in favour of others on the same CPU: no scratch memory here (maps.h).
 */
#ifdef LIBRARIES

/* As next_conn_id(), which is not safe here: two on one CPU could be given the same number, were it not claimed. */
static __always_inline u64 next_object_id(void)
{
    u64 id = (bpf_ktime_get_ns() & ~0xfffULL) | 0x800 | (bpf_get_smp_processor_id() & 0x7ff);
    u8 nothing = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < 16; i++) {
        if (!object_ids.insert(&id, &nothing))
            return id;
        id += 0x1000;
    }
    return 0;
}

/* The probes on demand (Uprobe.on_demand) are needed for this process. */
static __always_inline void want(u32 tgid)
{
    u32 wanted = WANTED;
    wanting.insert(&tgid, &wanted); /* not when it is there already */
}

/* The arguments of a function that is entered, for its return. */
static __always_inline void park(u64 id, u64 object, u64 base, u64 bytes)
{
    struct parked p = {.object = object, .base = base, .bytes = bytes};
    parked_calls.update(&id, &p);
}

/* False when the entry was not seen. */
static __always_inline bool unpark(u64 id, struct parked *p)
{
    struct parked *found = parked_calls.lookup(&id);
    if (!found)
        return false;
    *p = *found;
    parked_calls.delete(&id);
    return true;
}

/* The object goes; what the shard knows of it is closed. */
static __always_inline void end_object(u64 id, u64 address, u32 reason)
{
    struct object_key key = {.address = address, .tgid = id >> 32};
    struct object *o = objects.lookup(&key);
    if (!o)
        return;
    if (o->c.opened)
        send_close(&o->c, reason);
    objects.delete(&key);
}

/* A new entry. `start`: START_SEEN when the library has just made the object, else START_MID. */
static __always_inline struct object *make_object(u64 id, u64 address, u32 source, u32 role, u32 start)
{
    struct object_key key = {.address = address, .tgid = id >> 32};
    u32 zero = 0;
    struct object *nothing = no_object.lookup(&zero);
    u64 conn_id = next_object_id();
    if (!nothing || !conn_id || objects.update(&key, nothing)) {
        count(STAT_MAP_FULL, 1);
        return 0;
    }
    struct object *o = objects.lookup(&key);
    if (!o)
        return 0;
    o->c.tgid = id >> 32;
    o->c.fd = -1;
    o->c.conn_id = conn_id;
    o->c.ring = ring_of(conn_id);
    o->c.source = source;
    o->c.role = role;
    o->c.start = start;
    o->c.state = start == START_SEEN ? CONN_UNDECIDED : CONN_WAITING;
    return o;
}

/* The library has made an object at this address; one that was there before was freed, and nobody saw it. */
static __always_inline void object_made(u64 id, u64 address, u32 source, u32 role)
{
    end_object(id, address, CLOSE_REPLACED);
    make_object(id, address, source, role, START_SEEN);
}

/* The object at an address, also one that is older than the probes. NULL: there is no room. */
static __always_inline struct object *object_at(u64 id, u64 address, u32 source, u32 role)
{
    struct object_key key = {.address = address, .tgid = id >> 32};
    struct object *o = objects.lookup(&key);
    return o ? o : make_object(id, address, source, role, START_MID);
}

static __always_inline bool send_bind(struct object *o, struct conn *socket, u64 id)
{
    struct event_bind b = {};
    header(&b.h, &o->c, EVENT_BIND);
    b.h.tgid = id >> 32;
    b.h.tid = (u32)id;
    b.socket = socket->conn_id;
    __builtin_memcpy(b.local, o->c.local, 16);
    __builtin_memcpy(b.remote, o->c.remote, 16);
    b.local_port = o->c.local_port;
    b.remote_port = o->c.remote_port;
    b.role = o->c.role;
    b.family = o->c.family;
    return put(o->c.ring, &b, sizeof(b), 0);
}

/* From now on the events of a socket go to another ring. What its shard knows of it ends. */
static __always_inline void move_to_ring(struct conn *c, u32 ring)
{
    if (c->ring == ring)
        return;
    if (c->opened)
        send_close(c, CLOSE_REPLACED);
    c->opened = 0;
    c->told = 0;
    c->start = START_MID;
    c->ring = ring;
}

/*
 * The object's bytes go through the socket under descriptor `fd` (-1: not known yet). To be called at the return of
 * each call: what went through the socket meanwhile has made its entry.
 */
static __always_inline void bind_object(struct object *o, u64 id, s32 fd)
{
    if (o->socket || fd < 0)
        return;
    u64 name = name_of(id, fd);
    struct conn *s = name ? conns.lookup(&name) : 0;
#ifndef IDENTITY_SOCKET
    if (s)
        s = resolve(s);
#endif
    if (!s)
        return;
    o->c.fd = fd;
    o->c.family = s->family;
    o->c.local_port = s->local_port;
    o->c.remote_port = s->remote_port;
    __builtin_memcpy(o->c.local, s->local, 16);
    __builtin_memcpy(o->c.remote, s->remote, 16);
    if (!o->c.role)
        o->c.role = s->role;
    if (!o->c.opened) {
        o->c.conn_id = s->conn_id;
        o->c.ring = s->ring;
    } else {
        if (!send_bind(o, s, id))
            return; /* no room: with its next call */
        move_to_ring(s, o->c.ring);
    }
    o->socket = s->conn_id;
    s->state = CONN_IGNORED;
    s->told = id >> 32; /* whose name the object brings: the socket's end is an event of that process */
    s->bound = 1;
}

/* May the `n` bytes at `base` pass the gate? */
static __always_inline bool object_passes(struct object *o, const struct call *k, u64 base, u64 n)
{
    if (o->c.state == CONN_HTTP)
        return true;
    if (o->c.state == CONN_IGNORED)
        return false;
    u64 m = n;
    asm volatile("" : "+r"(m));
    if (m > SNIFF_BYTES)
        m = SNIFF_BYTES;
    if (bpf_probe_read_user(o->sniff.bytes, m, (void *)base))
        m = 0;
    if (o->c.state == CONN_UNDECIDED)
        return decide(&o->c, &o->sniff, m, n, k->dir);
    if (!starts_usually(&o->sniff, m))
        return false;
    o->c.state = CONN_HTTP;
    return true;
}

/* `n` bytes at `base` have gone through a call on the object. */
static __always_inline void object_bytes(struct object *o, const struct call *k, u64 base, u64 n)
{
    u32 d = k->dir & 1;
    u64 at = o->c.pos[d];
    o->c.pos[d] = at + n;
    if (!object_passes(o, k, base, n))
        return;
    introduce(&o->c, k->id);
    if (!o->c.opened) {
        bool seen = o->c.start == START_SEEN;
        u64 in = seen ? 0 : o->c.pos[DIR_IN] - (d == DIR_IN ? n : 0);
        u64 out = seen ? 0 : o->c.pos[DIR_OUT] - (d == DIR_OUT ? n : 0);
        if (!send_open(&o->c, k->id, in, out)) {
            count(STAT_DROPPED_BYTES, n);
            return;
        }
        o->c.opened = 1;
    }
    capture_reserved(&o->c, k, at, base, n);
}

/* No more bytes will be read from the object. */
static __always_inline void object_ends(struct object *o, u64 id)
{
    if (!o->c.opened)
        return;
    introduce(&o->c, id);
    send_eof(&o->c, id, DIR_IN, CALL_NONE);
}

#endif
