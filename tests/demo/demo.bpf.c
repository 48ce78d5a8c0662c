/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The kernel side of the demo source (source.py); compiled behind bpf/collector.c. */

#define SOURCE_DEMO 200 /* of enum event_source: nobody's */

struct demo_object { /* of demo.c */
    s32 fd;
    s32 role;
};

int demo_made(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), object = PT_REGS_RC(ctx);
    struct demo_object d = {};
    if (!traced(id >> 32) || !object || bpf_probe_read_user(&d, sizeof(d), (void *)object))
        return 0;
    object_made(id, object, SOURCE_DEMO, d.role);
    if (d.role == ROLE_CLIENT)
        want(id >> 32);
    return 0;
}

int demo_enter(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    if (traced(id >> 32))
        park(id, PT_REGS_SP(ctx), PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx), SOURCE_DEMO, DIR_IN);
    return 0;
}

/* What the handshake came to; at each call, as it costs nobody anything here. */
static __always_inline void demo_facts(struct pt_regs *ctx, struct object *o)
{
    struct event_tls t = {.version = 0x0304, .alpn_len = 8, .alpn = "http/1.1"};
    header(&t.h, &o->c, EVENT_TLS);
    t.library = bpf_get_attach_cookie(ctx);
    put(o->c.ring, &t, sizeof(t), 0);
}

static __always_inline int demo_return(struct pt_regs *ctx, u32 dir)
{
    u64 id = bpf_get_current_pid_tgid();
    s64 ret = PT_REGS_RC(ctx);
    struct frame p;
    struct demo_object d = {};
    if (!unpark(id, PT_REGS_SP(ctx), &p) || ret < 0 || bpf_probe_read_user(&d, sizeof(d), (void *)p.object))
        return 0;
    struct object *o = object_at(id, p.object, SOURCE_DEMO, d.role);
    if (!o)
        return 0;
    bind_object(o, id, d.fd);
    if (o->c.opened)
        demo_facts(ctx, o);
    const struct call k = {.id = id, .fd = (u32)o->c.fd, .dir = dir, .call = CALL_NONE};
    if (ret)
        object_bytes(o, &k, p.base, ret);
    else if (dir == DIR_IN && p.out)
        object_ends(o, id);
    return 0;
}

int demo_read_return(struct pt_regs *ctx)
{
    return demo_return(ctx, DIR_IN);
}

int demo_write_return(struct pt_regs *ctx)
{
    return demo_return(ctx, DIR_OUT);
}

static __always_inline int demo_bind_to(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    struct object_key key = {.address = PT_REGS_PARM1(ctx), .tgid = id >> 32};
    struct object *o = objects.lookup(&key);
    if (o && traced(id >> 32))
        bind_object(o, id, PT_REGS_PARM2(ctx));
    return 0;
}

/* demo_bind(object, fd) */
int demo_bound(struct pt_regs *ctx)
{
    return demo_bind_to(ctx);
}

/* demo_tell(object, fd): on demand */
int demo_told(struct pt_regs *ctx)
{
    return demo_bind_to(ctx);
}

int demo_freed(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    if (traced(id >> 32))
        end_object(id, PT_REGS_PARM1(ctx), CLOSE_NORMAL);
    return 0;
}
