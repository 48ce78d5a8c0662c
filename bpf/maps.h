/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Every map, with its key, value, writers, readers and the life of an entry. Sizes in bpf/README.md. */

enum conn_state {
    CONN_UNDECIDED = 0, /* the first bytes may still become HTTP: captured, may be taken back (CLOSE_NOT_HTTP) */
    CONN_HTTP = 1,
    CONN_IGNORED = 2, /* not HTTP, or not wanted: nothing is captured until it ends */
    CONN_SHARED = 3,  /* descriptor identity, several descriptors: the state is in `shared[shared_id]` */
    CONN_WAITING = 4  /* older than the collector: nothing of it looked like a message yet */
};

/* conn.bound: a library's object stands for it (objects.h), so its own bytes are not captured and its end is told; an
 * object has or had its conn_id. */
#define BOUND 1
#define BOUND_BEFORE 2

/* conn.tls, if not 0: a library's object may be what it carries. It began as TLS, or goes on as such after a request;
 * it was counted in `unseen_processes`, and no object was bound to it yet; it began as what TLS or anything else
 * follows. */
#define TLS_LIKELY 1
#define TLS_COUNTED 2
#define TLS_LATER 4

/* One connection. 144 bytes; the loader reads it (collector/loader/compiler.py CONN). */
struct conn {
    u64 conn_id;
    u64 pos[2];     /* stream position after the last call, by enum event_dir */
    u64 sk;         /* socket identity: its struct sock */
    u64 shared_id;  /* descriptor identity, CONN_SHARED: key of `shared` */
    u64 window_pos; /* producer position of the ring when `window` began */
    u32 counter[2]; /* socket identity: the kernel's own counters after the last call (copied_seq, write_seq) */
    u32 run;        /* bytes captured in a row in direction run_dir */
    u32 window;     /* of these, beyond RUN_BYTES and perhaps not drained yet */
    u32 tgid;       /* the process that made the entry; with fd the name where descriptors are the identity */
    s32 fd;         /* descriptor under which it was first seen */
    u32 told;       /* process whose name this connection's ring was last told */
    u32 first4;     /* CONN_UNDECIDED: the first four bytes */
    u32 refs;       /* in `shared`: descriptors that refer to it */
    u16 ring;
    u16 local_port; /* host order */
    u16 remote_port;
    u8 state; /* enum conn_state */
    u8 role;  /* enum event_role */
    u8 start; /* enum event_start */
    u8 family;
    u8 opened;  /* an OPEN was sent */
    u8 token;   /* CONN_UNDECIDED: bytes of the method seen; 255 = its blank was seen */
    u8 counted; /* positions are checked against the kernel's counters */
    u8 reset;   /* the peer reset it: the entry goes with the next close */
    u8 run_dir;
    u8 ended;     /* 1: the peer's FIN was read; 2: our side was shut down; 4: and its FIN counted */
    u8 held_back; /* it had too much that was not drained, and the loader was waked for it */
    u8 source;    /* enum event_source of its events */
    u8 bound;     /* BOUND, BOUND_BEFORE */
    u8 tls;       /* TLS_LIKELY, TLS_COUNTED */
    u32 early[2]; /* bytes counted at a change of state, by calls that had not returned */
    u8 local[16];
    u8 remote[16];
};

/* Name -> connection. The name is the address of the socket's struct file where sockets are the identity, else
 * tgid << 32 | fd (see connections.h). Made at the first call that moves bytes (socket identity), or at accept, connect
 * and the first HTTP-looking data; ends with the socket, or at close, exec, exit. Full: the least recently used goes.
 */
BPF_TABLE("lru_hash", u64, struct conn, conns, MAX_CONNS);

#ifdef IDENTITY_SOCKET
/* struct sock -> name, for the end of the socket. As `conns`. */
BPF_TABLE("lru_hash", u64, u64, names, MAX_CONNS);
#else
/* unique id -> connection with several descriptors. Made at the first dup; deleted with the last descriptor. */
BPF_TABLE("lru_hash", u64, struct conn, shared, MAX_SHARED);
#endif

/* pid / 64 -> one bit a process: set = leave it alone. Bit 0 of the first word: all processes outside our pid namespace
 * (selection.h). Written by the loader before anything is attached (our own processes, or all but those of --pid), and
 * at the end (all); where owners decide, whenever they do, and at each fork by owners.h. An array, because the verifier
 * inlines its look-up: it is asked at every call. */
BPF_F_TABLE("array", u32, u64, pid_bits, MAX_PIDS / 64, 1024 /* BPF_F_MMAPABLE */);

/* tgid -> what is known of a process with a connection. Made with its first connection; deleted at its exit. */
struct process {
    u64 rings;        /* bit r: ring r was told its name */
    u64 told_ns;      /* when it was told last: after a while it is told again, for what was lost on the way */
    u32 connections;  /* entries that it made and that have not ended */
    u32 max_fd;       /* descriptor identity: highest descriptor with a connection */
    u32 want_address; /* descriptor identity: it accepts without asking for the address */
    u32 pad;
};
BPF_TABLE("lru_hash", u32, struct process, processes, 16384);

/* tgid -> a process with traffic that is not captured, and why: io_uring (rings made, socket operations submitted),
 * 32-bit system calls; how many of its connections began with TLS, or were QUIC. Made with the first of these; read by
 * the loader (collector/loader/blindspots.py), which names it in metrics and deletes the entry of a process that is
 * gone.
 */
struct unseen {
    u64 rings;
    u64 operations;
    u64 compat;
    u64 tls;         /* connections whose first bytes were TLS */
    u64 tls_bound;   /* of these, those for which a library's object was bound (objects.h) */
    u64 quic_client; /* connections of QUIC that it began */
    u64 quic_server; /* and those that others began with it */
    char comm[16];
};
BPF_TABLE("lru_hash", u32, struct unseen, unseen_processes, 1024);

/* A connection id of QUIC that a socket has seen, so that each connection is counted once (quic.h). `name`: as in
 * `conns`. Made by packets of handshakes, three at either end; given up when others need the room. */
struct quic_id {
    u64 name;
    u8 bytes[QUIC_ID_BYTES];
    u32 length;
};
BPF_TABLE("lru_hash", struct quic_id, u8, quic_ids, 8192);

#ifndef IDENTITY_SOCKET
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
#endif

/* Written by the shards, who map it: (conn_id's slot) * 2 + direction -> tag << 48 | position up to which nobody wants
 * the bytes. A wrong or stale word costs bytes, never framing: what it leaves out is still counted (capture.h). */
BPF_F_TABLE("array", u32, u64, unwanted, UNWANTED_WORDS, 1024 /* BPF_F_MMAPABLE */);

/* Written by the loader: how many of SHARES connections there is no CPU for; 0 is what it begins with. */
#define SHARES 65536
BPF_ARRAY(beyond, u64, 1);

/* The rings: made and put in by the loader, so that number and size need no other program. */
BPF_RINGBUF_OUTPUT(ring_template, RING_TEMPLATE_PAGES);
BPF_ARRAY_OF_MAPS(rings, "ring_template", 64);

/* To the loader: connections that user space must look at (is it a socket? which addresses?), descriptor identity. */
struct question {
    u64 conn_id;
    u32 tgid;
    s32 fd;
    u32 ring;
    u32 pad;
};
BPF_RINGBUF_OUTPUT(questions, 16);

/* What went wrong or was left out; read by the loader (collector/loader/compiler.py STATS). */
enum stat {
    STAT_DROPPED_EVENTS = 0, /* no room in the ring */
    STAT_DROPPED_BYTES = 1,
    STAT_MAP_FULL = 2,
    STAT_NOT_HTTP = 3,
    STAT_TLS = 4,
    STAT_FAULTS = 5,
    STAT_NULL_ACCEPTS = 6,
    STAT_IO_URING = 7,
    STAT_UNSEEN_BYTES = 8,   /* went by between two captured calls */
    STAT_UNWANTED_BYTES = 9, /* counted, not copied: a shard asked for it */
    STAT_BOUNDED_BYTES = 10, /* counted, not copied: one connection had too much that was not drained */
    STAT_PROCESS_FULL = 11,  /* refused: the process has too many connections */
    STAT_ENTRIES_MADE = 12,  /* in `conns` */
    STAT_ENTRIES_ENDED = 13,
    STAT_SWEPT = 14,          /* of these, found by a sweep */
    STAT_STALE = 15,          /* of these, a name that belonged to another socket already */
    STAT_UNPLACED_BYTES = 16, /* of calls of which nobody can say where their bytes stand */
    STAT_LEFT_OUT = 17,       /* connections without any event: there is no CPU for them */
    STAT_LEFT_OUT_BYTES = 18, /* of these, and of others that a shard has left out */
    STAT_QUIC = 19,           /* connections of QUIC, which is not read; both ends, if both are here */
    STAT_OWNERS_LOST = 20,    /* questions about owners for which there was no room (owners.h) */
    STATS_IN_USE,
    STATS = 24
};
BPF_PERCPU_ARRAY(stats, u64, STATS);
BPF_PERCPU_ARRAY(last_ids, u64, 1);

/* Everything that is said about one call: who made it, on what. And the working memory of one CPU. System call
 * tracepoints run with preemption off, so the CPU number is safe; programs that may interrupt them (sockets.h
 * raw_set_state) do not use it. Loop state is kept here and not in registers: the verifier then forgets it between
 * iterations instead of multiplying states. */
struct call {
    u64 id; /* tgid << 32 | tid */
    u64 fd;
    u32 dir;  /* enum event_dir */
    u32 call; /* enum call_id */
};

/* The first bytes of a call, for the gate. */
struct sniff {
    u8 bytes[2 * SNIFF_BYTES];
    u64 count;
};

/* The datagrams of a call (quic.h). */
struct datagrams {
    u64 message;  /* number of the next one */
    u64 messages; /* of the call */
    u64 base;     /* of the next datagram of this message */
    u64 room;     /* bytes of its buffer from there on */
    u64 left;     /* bytes of the message from there on */
    u64 segment;  /* length of each datagram but the last; 0: the message is one */
    u64 control;  /* the next control message */
    u64 control_left;
    u64 begun; /* connections that began with them */
    u64 known; /* is the sender of this one known? */
};

struct scratch {
    struct event_header h;
    u8 data[2 * CHUNK];
    u64 pos;
    u64 left;
    u64 fill;
    u64 iov;
    u64 iov_end;
    u64 base;
    u64 part;
    u64 key;     /* of the connection, for the next program of a long vectored call */
    u64 keep;    /* bytes of the call that may still be copied, its end aside */
    u64 skipped; /* bytes that were not, and not told yet */
    u64 fault;
    /* a call that another program goes on with */
    struct call k;
    u64 call_base;
    u64 call_buffers;
    u64 call_bytes;
    struct conn fresh;
    struct sniff sniff;
    struct datagrams datagrams;
};
BPF_ARRAY(scratches, struct scratch, CPUS);

/* What a library knows a connection by: the address of its object, in its process. */
struct object_key {
    u64 address;
    u64 tgid;
};

/* One object of a library; its positions are those of the plaintext. */
struct object {
    struct conn c;
    u64 socket; /* conn_id of the socket that carries its bytes, 0 as long as that is not known */
    struct sniff sniff;
    u64 name;     /* of that socket in `conns` */
    u64 again;    /* buffer of the call that failed last: a call without one goes on with it (GnuTLS) */
    u32 wrapped;  /* Go: what is under it is no socket of package net */
    u16 told_tls; /* for which reader of its ring its EVENT_TLS was sent, by number from 1 */
    u16 noted;    /* its socket is counted as seen (unseen.h) */
};

/* Made when the library makes the object, or at its first call; deleted when the library frees it. */
BPF_TABLE("lru_hash", struct object_key, struct object, objects, MAX_CONNS);

/* ring -> how many shards have read it before the present one. Written by the loader: what a shard must know of a
 * connection is told again to a new one. */
BPF_ARRAY(ring_lives, u32, 64);

/* All zero: what an entry of `objects` begins with, for it is too large for the stack. Nobody writes it. */
BPF_ARRAY(no_object, struct object, 1);

/* conn_id -> nothing: numbers that were given to objects just now (objects.h next_object_id). */
BPF_TABLE("lru_hash", u64, u8, object_ids, 4096);

/* Number of a library (the cookie of its probes) -> what its source has found in the file. Written by the loader before
 * the probes are attached (collector/loader/catalogue.py); 0 is no library. */
#define LIBRARY_NUMBERS 1024
struct library {
    u64 values[8];
    char name[48];
    char key[96];
};
BPF_ARRAY(libraries, struct library, LIBRARY_NUMBERS);

/* process -> WANTED: a program asks that the probes on demand be attached for it; WATCHED: the loader has done so, or
 * knows that there are none. */
#define WANTED 1
#define WATCHED 2
BPF_TABLE("lru_hash", u32, u32, wanting, 1024);

/* thread -> the calls of library functions that it is in (frames.h). */
struct frame {
    u64 sp; /* stack pointer at the entry */
    u64 object;
    u64 base; /* of the caller's buffer */
    u64 out;  /* where the function writes how many bytes went through, when it returns 1; 0: it returns that itself */
    s32 fd;   /* of the first socket that moved bytes inside; -1 none */
    u16 dir;  /* enum event_dir */
    u16 source;
};
struct frames {
    struct frame frame[2];
    u32 depth;
    u32 pad;
};
BPF_TABLE("lru_hash", u64, struct frames, thread_frames, 16384);

/* First bytes of a TLS record that a library has written into memory -> the object, until a socket takes the record:
 * the random bytes in it are a key (objects.h carried_by). */
#define RECORD_KEY_BYTES 32
struct record_key {
    u8 bytes[RECORD_KEY_BYTES];
};
BPF_TABLE("lru_hash", struct record_key, struct object_key, written_records, 8192);

/* Programs of libraries can be interrupted in favour of others on their CPU: so the sum is the processor's business. */
static __always_inline void count(u32 what, u64 n)
{
    u64 *v = stats.lookup(&what);
    if (v)
        lock_xadd(v, n);
}
