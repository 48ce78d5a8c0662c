/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The contract between the kernel programs and the shards: the layout of one event.
 *
 * Compiled by bcc (kernel side) and by the C compiler under Cython (user side, collector/abi.pyx);
 * collector/loader/compiler.py compares sizes and offsets of both before anything is attached.
 *
 * An event never says what the bytes mean. It says which connection, which direction, at which stream
 * position, how many bytes there were and how many of them are here. All numbers are host order.
 */
#ifndef COLLECTOR_ABI_EVENT_H
#define COLLECTOR_ABI_EVENT_H

#ifndef COLLECTOR_BPF
#include <stdint.h>
typedef uint8_t ev_u8;
typedef uint16_t ev_u16;
typedef uint32_t ev_u32;
typedef int32_t ev_s32;
typedef uint64_t ev_u64;
#else
typedef __u8 ev_u8;
typedef __u16 ev_u16;
typedef __u32 ev_u32;
typedef __s32 ev_s32;
typedef __u64 ev_u64;
#endif

/* Goes up with every change of layout or meaning; recorded in capture files. */
#define EVENT_ABI_VERSION 2

enum event_type {
    EVENT_OPEN = 1,     /* struct event_open: a connection was recognised; right before its first data */
    EVENT_DATA = 2,     /* struct event_header and len_cap bytes */
    EVENT_EOF = 3,      /* no more bytes in this direction; pos is final */
    EVENT_CLOSE = 4,    /* struct event_close: the connection ended, or capture of it was given up */
    EVENT_EXIT = 5,     /* struct event_exit: ends all connections of h.tgid in its ring (descriptor identity only) */
    EVENT_ADDRESS = 6,  /* struct event_open: addresses or role learned later */
    EVENT_PROCESS = 7,  /* struct event_process: the name of a process; before the first event of that process */
    EVENT_BIND = 8,     /* struct event_bind: this connection (a TLS object) is that socket */
    EVENT_OWNER = 9,    /* struct event_header and len_cap bytes, members of a JSON object without its braces: who owns
                           process h.tgid, for its records; enum owner_flags; from the loader, before the first event of
                           that process in the ring, and when it has changed; h.pos: start_ns as in event_process */
    EVENT_AHEAD = 10,   /* struct event_header: a client reads, and its socket has bytes to send of a call that has not
                           returned: the request's event comes behind that of its answer */
    EVENT_TLS = 11,     /* struct event_tls: what a library says of its connection; right behind the OPEN, or later */
    EVENT_LIBRARY = 12, /* struct event_library: the name that belongs to a number of event_tls; of no connection */
    EVENT_PEER = 13 /* struct event_peer and len_cap bytes, members of a JSON object without its braces: who has that
                       address, for records whose other end it is; of no connection; from the loader */
};

/* Seen from the traced process. */
enum event_dir {
    DIR_IN = 0, /* bytes it received */
    DIR_OUT = 1 /* bytes it sent */
};

enum event_role {
    ROLE_UNKNOWN = 0,
    ROLE_SERVER = 1, /* accepted */
    ROLE_CLIENT = 2  /* connected */
};

enum event_start {
    START_SEEN = 0,        /* nothing had gone through the connection before */
    START_MID = 1,         /* joined later: bytes went by before, and nobody saw them */
    START_UNCONFIRMED = 2, /* as START_MID, by a call that files know too: no socket until EVENT_ADDRESS says so */
    START_REJOIN = 3       /* told again to a new shard: role and ends are known, the position is not */
};

enum event_flags {
    EVENT_F_CUT = 1,       /* longer than the capture limit of one call: the rest is size-only */
    EVENT_F_SIZE_ONLY = 2, /* no bytes by nature of the call (sendfile, splice, MSG_TRUNC), or nobody wants them */
    EVENT_F_FAULT = 4      /* the user page could not be read: bytes missing, length true */
};

/* flags of EVENT_OWNER */
enum owner_flags {
    OWNER_F_PENDING = 1,   /* not known yet: another one follows, and its records wait for that a while */
    OWNER_F_UNSELECTED = 2 /* nothing of that process is wanted, from now on */
};

/* Where the bytes were taken. All but SYSCALL are plaintext at a TLS library. */
enum event_source { SOURCE_SYSCALL = 0, SOURCE_OPENSSL = 1, SOURCE_GNUTLS = 2, SOURCE_NSS = 3, SOURCE_GO = 4 };

/* Why: of EVENT_CLOSE and EVENT_EXIT. */
enum event_reason {
    CLOSE_NORMAL = 0,   /* the socket was closed */
    CLOSE_NOT_HTTP = 1, /* the undecided first bytes turned out to be something else, or it is no socket: forget them */
    CLOSE_RESET = 2,    /* the peer reset the connection; its socket was closed later */
    CLOSE_SWEPT = 3,    /* its end was not seen; a later look found it gone */
    CLOSE_REPLACED = 4, /* its name (file, descriptor) belongs to another connection already */
    EXIT_PROCESS = 16,
    EXIT_EXEC = 17
};

/* The system call that moved the bytes; EVENT_DATA and EVENT_EOF of SOURCE_SYSCALL. */
enum call_id {
    CALL_NONE = 0,
    CALL_READ = 1,
    CALL_WRITE = 2,
    CALL_READV = 3,
    CALL_WRITEV = 4,
    CALL_PREADV2 = 5,
    CALL_PWRITEV2 = 6,
    CALL_RECVFROM = 7,
    CALL_SENDTO = 8,
    CALL_RECVMSG = 9,
    CALL_SENDMSG = 10,
    CALL_RECVMMSG = 11,
    CALL_SENDMMSG = 12,
    CALL_SENDFILE = 13,
    CALL_SPLICE = 14,
    CALL_SHUTDOWN = 15
};

/* 56 bytes; in the ring it follows the kernel's own 8-byte record header. */
struct event_header {
    ev_u64 ts_ns; /* CLOCK_MONOTONIC when the call returned */
    ev_u64 pos;   /* stream position of the first byte, per direction and source; a TLS source counts plaintext */
    ev_u64
        conn_id; /* the connection: given at first sight of its socket or TLS object, never used again in this boot */
    ev_u32 tgid; /* process (thread group) that made this call, in the initial pid namespace */
    ev_u32 tid;  /* and its thread */
    ev_s32 fd;   /* descriptor that this call used; -1 unknown */
    ev_u32 len_true; /* bytes that went through the call from pos on, as far as this event tells */
    ev_u32 len_cap;  /* bytes that follow this header, <= len_true */
    ev_u8 type;      /* enum event_type */
    ev_u8 dir;       /* enum event_dir */
    ev_u8 flags;     /* enum event_flags */
    ev_u8 source;    /* enum event_source */
    ev_u8 reason;    /* enum event_reason */
    ev_u8 call;      /* enum call_id */
    ev_u16 ring;     /* the ring that it stands in */
    ev_u32 spare;
};

/* 112 bytes. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, all zero when unknown. */
struct event_open {
    struct event_header h;
    ev_u64 pos[2]; /* by enum event_dir: bytes that had gone that way before; where capture begins */
    ev_u8 local[16];
    ev_u8 remote[16];
    ev_u16 local_port;
    ev_u16 remote_port;
    ev_u8 role;   /* enum event_role */
    ev_u8 start;  /* enum event_start */
    ev_u8 family; /* AF_INET, AF_INET6, AF_UNIX; 0 unknown */
    ev_u8 spare;
};

/* 72 bytes. h.pos is unused. */
struct event_close {
    struct event_header h;
    ev_u64 final_pos[2]; /* by enum event_dir: bytes of h.source that ever went that way */
};

/* 64 bytes. */
struct event_exit {
    struct event_header h;
    ev_u64 start_ns; /* as in struct event_process */
};

/* 88 bytes. */
struct event_process {
    struct event_header h;
    ev_u64 start_ns;  /* CLOCK_BOOTTIME when it began, with h.tgid it is unique in this boot; 0 unknown */
    ev_u64 cgroup_id; /* of the cgroup v2 hierarchy; 0 unknown */
    char comm[16];    /* of the process (its leading thread), NUL padded */
};

/* 112 bytes. From now on both names mean one connection. */
struct event_bind {
    struct event_header h; /* h.conn_id: the TLS object */
    ev_u64 socket;         /* conn_id of the socket */
    ev_u64 spare;
    ev_u8 local[16];
    ev_u8 remote[16];
    ev_u16 local_port;
    ev_u16 remote_port;
    ev_u8 role; /* enum event_role */
    ev_u8 spare2;
    ev_u8 family;
    ev_u8 spare3;
};

/* 144 bytes. What is not known is 0. */
struct event_tls {
    struct event_header h;
    ev_u16 version; /* as in the protocol: 0x0304 is TLS 1.3 */
    ev_u16 library; /* struct event_library */
    ev_u8 alpn_len; /* bytes of alpn */
    ev_u8 sni_len;  /* bytes of sni */
    ev_u16 spare;
    char alpn[16]; /* the protocol that both sides agreed on */
    char sni[64];  /* the server name that the client asked for */
};

/* 112 bytes. */
struct event_library {
    struct event_header h;
    ev_u32 number; /* 1 and more */
    ev_u32 spare;
    char name[48]; /* NUL padded: openssl-3.0.22 */
};

/* 72 bytes. */
struct event_peer {
    struct event_header h;
    ev_u8 address[16]; /* IPv4 as ::ffff:a.b.c.d */
};

_Static_assert(sizeof(struct event_header) == 56, "event_header");
_Static_assert(sizeof(struct event_open) == 112, "event_open");
_Static_assert(sizeof(struct event_close) == 72, "event_close");
_Static_assert(sizeof(struct event_exit) == 64, "event_exit");
_Static_assert(sizeof(struct event_process) == 88, "event_process");
_Static_assert(sizeof(struct event_bind) == 112, "event_bind");
_Static_assert(sizeof(struct event_tls) == 144, "event_tls");
_Static_assert(sizeof(struct event_library) == 112, "event_library");
_Static_assert(sizeof(struct event_peer) == 72, "event_peer");

#endif
