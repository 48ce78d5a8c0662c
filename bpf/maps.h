/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Every map, with its key, value, writers, readers and the life of an entry. Sizes in bpf/README.md. */

enum conn_state {
    CONN_UNDECIDED = 0, /* the first bytes may still become HTTP: captured, may be taken back (CLOSE_NOT_HTTP) */
    CONN_HTTP = 1,
    CONN_IGNORED = 2, /* not HTTP, or not wanted: nothing is captured until the descriptor is closed */
    CONN_SHARED = 3   /* several descriptors: the state is in `shared[shared_id]` */
};

/* One connection. 88 bytes; the loader reads it (collector/loader/compiler.py CONN). */
struct conn {
    u64 pos[2];    /* stream position after the last captured call, by enum event_dir */
    u64 shared_id; /* CONN_SHARED: key of `shared` */
    u32 tgid;      /* with fd and gen: the identity that events carry; dup'd descriptors keep the first one */
    s32 fd;
    u32 gen;
    u32 first4; /* CONN_UNDECIDED: the first four bytes */
    u16 ring;
    u16 local_port; /* host order */
    u16 remote_port;
    u8 state; /* enum conn_state */
    u8 role;  /* enum event_role */
    u8 start; /* enum event_start */
    u8 family;
    u8 opened; /* an OPEN was sent */
    u8 token;  /* CONN_UNDECIDED: bytes of the method seen; 255 = its blank was seen */
    u32 refs;  /* in `shared`: descriptors that refer to it */
    u8 local[16];
    u8 remote[16];
};

/* (tgid << 32 | fd) -> connection. Made at accept, connect, or the first HTTP-looking data; deleted at close, exec,
 * exit. Full: counted, the connection is tried again at its next message. */
BPF_TABLE("hash", u64, struct conn, conns, MAX_CONNS);

/* unique id -> connection with several descriptors. Made at the first dup; deleted with the last descriptor. */
BPF_TABLE("hash", u64, struct conn, shared, MAX_SHARED);

/* pid / 64 -> one bit a process. SELECT_PIDS: set = capture it; else: set = leave it alone. Written by the loader
 * (our own processes, --pid). An array, because the verifier inlines its look-up: it is asked at every call. */
BPF_ARRAY(pid_bits, u64, MAX_PIDS / 64);

/* tgid -> highest descriptor with a connection. Made with a process's first connection; deleted at its exit. */
struct process {
    u32 max_fd;
    u32 want_address; /* it accepts without asking for the address */
};
BPF_TABLE("hash", u32, struct process, processes, 16384);

/* thread -> the connecting descriptor, between sys_enter_connect and SYN_SENT on the same thread. */
BPF_TABLE("lru_hash", u64, u64, connecting, 4096);

/* socket -> (tgid << 32 | fd), between SYN_SENT and ESTABLISHED. */
BPF_TABLE("lru_hash", u64, u64, syn_sent, 16384);

/* peer address and port -> local end, between SYN_RECV -> ESTABLISHED and accept. */
struct peer {
    u8 addr[16];
    u16 port;
    u16 pad[3];
};
struct local_end {
    u8 addr[16];
    u16 port;
    u16 count; /* sockets with this very peer: the answer is only good for one */
    u32 pad;
};
BPF_TABLE("lru_hash", struct peer, struct local_end, accepted, 16384);

/* thread -> both ends of the TCP socket that it has just read from (tcp_rcv_space_adjust; attached only when a process
 * that accepts without asking for addresses was seen). */
struct ends {
    u64 ts_ns;
    u8 local[16];
    u8 remote[16];
    u16 local_port;
    u16 remote_port;
    u16 family;
    u16 pad;
};
BPF_TABLE("lru_hash", u64, struct ends, last_read, 4096);

/* The rings: made and put in by the loader, so that number and size need no other program. */
BPF_RINGBUF_OUTPUT(ring_template, RING_TEMPLATE_PAGES);
BPF_ARRAY_OF_MAPS(rings, "ring_template", 64);

/* To the loader: connections that user space must look at (is it a socket? which addresses?). */
struct question {
    u32 tgid;
    s32 fd;
    u32 gen;
    u32 ring;
};
BPF_RINGBUF_OUTPUT(questions, 16);

/* What went wrong or was left out; read by the loader. */
enum stat {
    STAT_DROPPED_EVENTS = 0, /* no room in the ring */
    STAT_DROPPED_BYTES = 1,
    STAT_MAP_FULL = 2,
    STAT_NOT_HTTP = 3,
    STAT_TLS = 4,
    STAT_HTTP2 = 5,
    STAT_FAULTS = 6,
    STAT_NULL_ACCEPTS = 7,
    STAT_IO_URING = 8,
    STATS = 16
};
BPF_PERCPU_ARRAY(stats, u64, STATS);
BPF_PERCPU_ARRAY(generations, u32, 1);

/* Working memory of one CPU. System call tracepoints run with preemption off, so the CPU number is safe. Loop state is
 * kept here and not in registers: the verifier then forgets it between iterations instead of multiplying states. */
struct scratch {
    struct event_header h;
    u8 data[2 * CHUNK];
    u64 pos;
    u64 left;
    u64 fill;
    u64 iov;
    u64 base;
    u64 part;
    u32 chunks;
    u32 fault;
};
BPF_ARRAY(scratches, struct scratch, CPUS);

static __always_inline void count(u32 what, u64 n)
{
    u64 *v = stats.lookup(&what);
    if (v)
        *v += n;
}
