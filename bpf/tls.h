/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * TLS libraries whose functions follow the ordinary calling convention; which functions, and where in them the probes
 * are, is what the sources say (collector/loader/probes/). An entry parks the arguments; all returns are one program,
 * for it is a long one to verify. Data is taken at the return: a write may be partial, and its caller repeats it until
 * it went through.
 */

/* Of a process that is left alone (it may have lost its name) nobody counts what goes through an object: should it be
 * traced again, the object is joined. */
#define CALL_ENTRY(program, source, dir, base, out)                                \
    int program(struct pt_regs *ctx)                                               \
    {                                                                              \
        u64 id = bpf_get_current_pid_tgid();                                       \
        if (traced(id >> 32))                                                      \
            park(id, PT_REGS_SP(ctx), PT_REGS_PARM1(ctx), base, out, source, dir); \
        else                                                                       \
            end_object(id, PT_REGS_PARM1(ctx), CLOSE_REPLACED);                    \
        return 0;                                                                  \
    }

/* SSL_read(ssl, buf, n), SSL_read_ex(ssl, buf, n, *done) or what both call; SSL_write_ex2(ssl, buf, n, flags, *done) */
CALL_ENTRY(openssl_read, SOURCE_OPENSSL, DIR_IN, PT_REGS_PARM2(ctx), 0)
CALL_ENTRY(openssl_write, SOURCE_OPENSSL, DIR_OUT, PT_REGS_PARM2(ctx), 0)
CALL_ENTRY(openssl_read_ex, SOURCE_OPENSSL, DIR_IN, PT_REGS_PARM2(ctx), PT_REGS_PARM4(ctx))
CALL_ENTRY(openssl_write_ex, SOURCE_OPENSSL, DIR_OUT, PT_REGS_PARM2(ctx), PT_REGS_PARM4(ctx))
CALL_ENTRY(openssl_write_ex2, SOURCE_OPENSSL, DIR_OUT, PT_REGS_PARM2(ctx), PT_REGS_PARM5(ctx))
/* SSL_sendfile(ssl, fd, offset, n, flags), where the kernel does TLS: no byte of it is in user memory */
CALL_ENTRY(openssl_sendfile, SOURCE_OPENSSL, DIR_OUT, 0, 0)

/* gnutls_record_recv(session, buf, n), gnutls_record_send2(session, buf, n, ...) */
CALL_ENTRY(gnutls_recv, SOURCE_GNUTLS, DIR_IN, PT_REGS_PARM2(ctx), 0)
CALL_ENTRY(gnutls_send, SOURCE_GNUTLS, DIR_OUT, PT_REGS_PARM2(ctx), 0)

/* What gnutls_record_recv comes down to: (session, type of record, buf, n, ...). */
int gnutls_recv_inner(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    if ((u32)PT_REGS_PARM2(ctx) != 23)
        return 0;
    if (traced(id >> 32))
        park(id, PT_REGS_SP(ctx), PT_REGS_PARM1(ctx), PT_REGS_PARM3(ctx), 0, SOURCE_GNUTLS, DIR_IN);
    else
        end_object(id, PT_REGS_PARM1(ctx), CLOSE_REPLACED);
    return 0;
}

/* gnutls_handshake(session): nothing has gone through a session of which nothing is known. */
int gnutls_handshake(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    struct object_key key = {.address = PT_REGS_PARM1(ctx), .tgid = id >> 32};
    if (traced(id >> 32) && !objects.lookup(&key))
        object_made(id, key.address, SOURCE_GNUTLS, ROLE_UNKNOWN);
    return 0;
}

/* SSL_ImportFD has made a TLS socket of a descriptor of NSPR. */
int nss_import(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), made = PT_REGS_RC(ctx);
    if (traced(id >> 32) && made)
        object_made(id, made, SOURCE_NSS, ROLE_UNKNOWN);
    return 0;
}

/* PR_Read(fd, buf, n), PR_Recv(fd, buf, n, ...) and their like: of TLS sockets only. */
static __always_inline int nss_enter(struct pt_regs *ctx, u32 dir)
{
    u64 id = bpf_get_current_pid_tgid();
    struct object_key key = {.address = PT_REGS_PARM1(ctx), .tgid = id >> 32};
    if (!traced(id >> 32))
        end_object(id, key.address, CLOSE_REPLACED);
    else if (objects.lookup(&key))
        park(id, PT_REGS_SP(ctx), key.address, PT_REGS_PARM2(ctx), 0, SOURCE_NSS, dir);
    return 0;
}

int nss_read(struct pt_regs *ctx)
{
    return nss_enter(ctx, DIR_IN);
}

int nss_write(struct pt_regs *ctx)
{
    return nss_enter(ctx, DIR_OUT);
}

/* `values` of a library: offsets into its object, each plus one; 0: not known. */
enum library_value {
    VERSION_AT = 0,
    ALPN_AT = 1,
    ALPN_BYTES_AT = 2,
    REFERENCES_AT = 3,
    SERVER_NAME_AT = 4 /* address of the name, and behind that its length */
};

static __always_inline bool offset_of(const struct library *l, u32 which, u64 *offset)
{
    *offset = l->values[which & 7] - 1;
    return l->values[which & 7];
}

/* Does the shard that reads the object's ring know what the handshake came to? */
static __always_inline bool tls_is_told(struct object *o)
{
    int ring = o->c.ring & 63;
    u32 *lives = ring_lives.lookup(&ring);
    return !lives || o->told_tls == (u16)(*lives + 1);
}

/* What the handshake came to; as the first bytes go through. */
static __always_inline void send_tls(struct object *o, u64 address, u32 number)
{
    u32 version = 0;
    u64 at, alpn = 0, n = 0, name[2] = {};
    struct library *l = libraries.lookup(&number);
    int ring = o->c.ring & 63;
    void *r = rings.lookup(&ring);
    u32 *lives = ring_lives.lookup(&ring);
    if (!r || !lives)
        return;
    if (!l) {
        o->told_tls = *lives + 1; /* there is nothing to tell */
        return;
    }
    if (offset_of(l, VERSION_AT, &at))
        bpf_probe_read_user(&version, sizeof(version), (void *)(address + at));
    if (offset_of(l, ALPN_AT, &at))
        bpf_probe_read_user(&alpn, sizeof(alpn), (void *)(address + at));
    if (alpn && offset_of(l, ALPN_BYTES_AT, &at))
        bpf_probe_read_user(&n, sizeof(u32), (void *)(address + at));
    struct event_tls *e = bpf_ringbuf_reserve(r, sizeof(*e), 0);
    if (!e) {
        count(STAT_DROPPED_EVENTS, 1);
        return;
    }
    __builtin_memset(e, 0, sizeof(*e));
    header(&e->h, &o->c, EVENT_TLS);
    e->library = number;
    if ((version >> 8 & 0xff) == 3)
        e->version = version;
    asm volatile("" : "+r"(n));
    if (n <= sizeof(e->alpn) && !bpf_probe_read_user(e->alpn, n, (void *)alpn))
        e->alpn_len = n;
    o->told_tls = *lives + 1;
    if (offset_of(l, SERVER_NAME_AT, &at) && !bpf_probe_read_user(name, sizeof(name), (void *)(address + at))) {
        n = name[1];
        asm volatile("" : "+r"(n));
        if (n <= sizeof(e->sni) && !bpf_probe_read_user(e->sni, n, (void *)name[0]))
            e->sni_len = n;
    }
    bpf_ringbuf_submit(e, RB_NO_WAKEUP);
}

int library_return(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), done = 0;
    s64 n = (s32)PT_REGS_RC(ctx);
    struct frame f;
    if (!unpark(id, PT_REGS_SP(ctx), &f) || f.source == SOURCE_SYSCALL)
        return 0;
    if (f.out && n > 0) {
        if (bpf_probe_read_user(&done, sizeof(done), (void *)f.out))
            return 0;
        n = done & 0x7fffffff;
        if (!n)
            return 0;
    }
    struct object *o = object_called(id, &f, n);
    if (o && o->c.opened && !tls_is_told(o))
        send_tls(o, f.object, bpf_get_attach_cookie(ctx));
    return 0;
}

/* SSL_new has made an object. */
int openssl_new(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), ssl = PT_REGS_RC(ctx);
    if (traced(id >> 32) && ssl)
        object_made(id, ssl, SOURCE_OPENSSL, ROLE_UNKNOWN);
    return 0;
}

/* SSL_clear(ssl): the object will carry another connection, and what it reads first may have come with the handshake:
 * no system call inside shows the new socket in time. SSL_new calls it too, for an object of which nothing is known. */
int openssl_clear(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    struct object_key key = {.address = PT_REGS_PARM1(ctx), .tgid = id >> 32};
    if (traced(id >> 32) && objects.lookup(&key))
        object_made(id, key.address, SOURCE_OPENSSL, ROLE_UNKNOWN);
    return 0;
}

/* SSL_free(ssl), and functions of that kind: the object goes, with its last reference where references are counted. */
int library_free(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), address = PT_REGS_PARM1(ctx), at;
    u32 number = bpf_get_attach_cookie(ctx), references = 0;
    struct library *l = libraries.lookup(&number);
    if (l && offset_of(l, REFERENCES_AT, &at))
        bpf_probe_read_user(&references, sizeof(references), (void *)(address + at));
    if (references <= 1)
        end_object(id, address, CLOSE_NORMAL);
    return 0;
}

/* SSL_do_handshake(ssl): its records are those of this object. On demand, as BIO_write. */
int openssl_handshake(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    if (traced(id >> 32))
        enter(id, PT_REGS_SP(ctx), PT_REGS_PARM1(ctx));
    return 0;
}

int openssl_handshake_return(struct pt_regs *ctx)
{
    struct frame f;
    unpark(bpf_get_current_pid_tgid(), PT_REGS_SP(ctx), &f);
    return 0;
}

/* BIO_write(bio, buf, n) */
int openssl_bio_write(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    if (traced(id >> 32))
        record_written(id, PT_REGS_PARM2(ctx), (u32)PT_REGS_PARM3(ctx));
    return 0;
}
