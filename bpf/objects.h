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
    if (!wanting.lookup(&tgid))
        wanting.insert(&tgid, &wanted);
}

/* The object goes; what the shard knows of it is closed. Its socket may carry another one. */
static __always_inline void end_object(u64 id, u64 address, u32 reason)
{
    struct object_key key = {.address = address, .tgid = id >> 32};
    struct object *o = objects.lookup(&key);
    if (!o)
        return;
    if (o->c.opened)
        send_close(&o->c, reason);
    u64 name = o->name;
    struct conn *s = name ? conns.lookup(&name) : 0;
    if (s && s->conn_id == o->socket && s->told == (u32)key.tgid)
        s->bound &= ~BOUND;
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

static __always_inline void take_ends(struct object *o, struct conn *s, s32 fd)
{
    o->c.fd = fd;
    o->c.family = s->family;
    o->c.local_port = s->local_port;
    o->c.remote_port = s->remote_port;
    __builtin_memcpy(o->c.local, s->local, 16);
    __builtin_memcpy(o->c.remote, s->remote, 16);
    if (!o->c.role)
        o->c.role = s->role;
}

/*
 * The object's bytes go through the socket under descriptor `fd` (-1: not known yet). To be called at the return of
 * each call: what went through the socket meanwhile has made its entry.
 *
 * A socket that an object of the parent process stands for, or that an earlier object stood for, gives its ends, and
 * its conn_id stays with that one.
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
    bool inherited = s->bound & BOUND && s->told != (u32)(id >> 32);
    if (inherited && o->c.opened)
        return; /* both names would be one connection, and the first one is the parent's */
    take_ends(o, s, fd);
    if (o->c.opened) {
        if (!send_bind(o, s, id))
            return; /* no room: with its next call */
        move_to_ring(s, o->c.ring);
    } else if (!(s->bound & BOUND_BEFORE)) {
        o->c.conn_id = s->conn_id;
        o->c.ring = s->ring;
    }
    o->socket = s->conn_id;
    o->name = name;
    if (inherited)
        return;
    s->state = CONN_IGNORED;
    s->told = id >> 32; /* whose name the object brings: the socket's end is an event of that process */
    s->bound = BOUND | BOUND_BEFORE;
}

/* Does the socket that is known of the object still carry it? */
static __always_inline bool is_carried(struct object *o, u32 tgid)
{
    u64 name = o->name;
    struct conn *s = name ? conns.lookup(&name) : 0;
#ifndef IDENTITY_SOCKET
    if (s)
        s = resolve(s);
#endif
    return s && s->conn_id == o->socket && s->bound & BOUND && s->told == tgid;
}

/* The object was given another socket than the one that is known: it begins anew. As long as that one is there, the
 * other belongs to an object whose handshake is inside this one's call: a callback has opened a connection. */
static __always_inline void leave_socket(struct object *o, u64 id, s32 fd)
{
    u64 name = name_of(id, fd);
    struct conn *s = name ? conns.lookup(&name) : 0;
#ifndef IDENTITY_SOCKET
    if (s)
        s = resolve(s);
#endif
    if (!s || s->conn_id == o->socket || is_carried(o, id >> 32))
        return;
    if (o->c.opened)
        send_close(&o->c, CLOSE_REPLACED);
    bool seen = s->start == START_SEEN && !s->bound;
    o->c.opened = 0;
    o->c.start = seen ? START_SEEN : START_MID;
    o->c.state = seen ? CONN_UNDECIDED : CONN_WAITING;
    o->c.token = 0;
    o->c.first4 = 0;
    o->c.role = ROLE_UNKNOWN;
    o->c.conn_id = next_object_id();
    o->c.ring = ring_of(o->c.conn_id);
    o->c.pos[DIR_IN] = o->c.pos[DIR_OUT] = 0;
    o->socket = 0;
    o->noted = 0;
    o->told_tls = 0;
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

/* `n` bytes at `base` have gone through a call on the object; 0: nobody can read them (a file that the kernel sends).
 */
static __always_inline void object_bytes(struct object *o, const struct call *k, u64 base, u64 n)
{
    u32 d = k->dir & 1;
    u64 at = o->c.pos[d];
    o->c.pos[d] = at + n;
    if (!base) {
        if (o->c.opened)
            send_size(&o->c, k, at, n, EVENT_F_SIZE_ONLY);
        return;
    }
    if (!object_passes(o, k, base, n))
        return;
    if (left_out(&o->c, k->dir, n))
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
#ifndef IDENTITY_SOCKET
        if (!o->c.family && o->c.fd >= 0) {
            struct question q = {.conn_id = o->c.conn_id, .tgid = o->c.tgid, .fd = o->c.fd, .ring = o->c.ring};
            questions.ringbuf_output(&q, sizeof(q), 1);
        }
#endif
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

/*
 * A call of a library's function has returned, and `n` bytes went through it (none if it failed: below 0, or the end if
 * it was a read: 0). NULL when nothing is known of the object.
 */
static __always_inline struct object *object_called(u64 id, const struct frame *f, s64 n)
{
    struct object_key key = {.address = f->object, .tgid = id >> 32};
    struct object *o = objects.lookup(&key);
    if (n <= 0) {
        if (o && !n && f->dir == DIR_IN)
            object_ends(o, id);
        else if (o && f->base)
            o->again = f->base;
        return o;
    }
    if (o && o->socket && f->fd >= 0)
        leave_socket(o, id, f->fd);
    if (!o)
        o = make_object(id, f->object, f->source, ROLE_UNKNOWN, START_MID);
    if (!o)
        return 0;
    bind_object(o, id, f->fd);
    const struct call k = {.id = id, .fd = (u32)o->c.fd, .dir = f->dir, .call = CALL_NONE};
    object_bytes(o, &k, f->base || f->source != SOURCE_GNUTLS ? f->base : o->again, n);
    if (!o->socket && o->c.state == CONN_HTTP)
        want(id >> 32);
    note_bound(o, id);
    return o;
}

/* ---- the socket of an object that its calls do not show ---------------------------------------------------------- */

/* A library writes into memory, in a call on an object: bytes that a socket will carry. */
static __always_inline void record_written(u64 id, u64 base, u64 n)
{
    struct frame *top = frame_of(id);
    struct record_key key;
    if (!top || n < RECORD_KEY_BYTES)
        return;
    struct object_key object = {.address = top->object, .tgid = id >> 32};
    struct object *o = objects.lookup(&object);
    if (o && o->socket)
        return;
    if (bpf_probe_read_user(&key, sizeof(key), (void *)base) || !like_a_record_key(&key))
        return;
    written_records.update(&key, &object);
}

/* A socket has taken bytes: are they a record that an object has written? */
static __always_inline u32 carried_by(void)
{
    struct scratch *s = scratch();
    struct record_key key;
    if (!s)
        return DONE;
    u64 base = s->call_base, id = s->k.id;
    if (s->call_buffers) {
        struct user_iovec v = {};
        if (bpf_probe_read_user(&v, sizeof(v), (void *)base) || v.len < RECORD_KEY_BYTES)
            return DONE;
        base = v.base;
    }
    if (bpf_probe_read_user(&key, sizeof(key), (void *)base) || !like_a_record_key(&key))
        return DONE;
    struct object_key *found = written_records.lookup(&key);
    if (!found || found->tgid != id >> 32)
        return DONE;
    struct object_key object = *found;
    written_records.delete(&key);
    struct object *o = objects.lookup(&object);
    if (o) {
        bind_object(o, id, (s32)s->k.fd);
        note_bound(o, id);
    }
    return DONE;
}
