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
#define EVENT_ABI_VERSION 1

enum event_type {
    EVENT_OPEN = 1,   /* struct event_open: a connection was recognised; right before its first data */
    EVENT_DATA = 2,   /* struct event_header and len_cap bytes */
    EVENT_EOF = 3,    /* the peer ended this direction (a read returned 0); pos is final */
    EVENT_CLOSE = 4,  /* struct event_close: last descriptor closed, or capture of it given up */
    EVENT_EXIT = 5,   /* the process ended: closes everything of tgid */
    EVENT_ADDRESS = 6 /* struct event_open: addresses or role learned later */
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
    START_SEEN = 0,       /* the opening was seen: position 0 is the first byte of the connection */
    START_MID = 1,        /* joined later: position 0 is the first byte that was recognised */
    START_REJOIN = 3,     /* told again to a new shard: role and ends are known, the position is not */
    START_UNCONFIRMED = 2 /* as START_MID, by a call that files know too: no socket until EVENT_ADDRESS says so */
};

enum event_flags {
    EVENT_F_TLS = 1,       /* plaintext taken at a TLS library */
    EVENT_F_CUT = 2,       /* longer than the capture limit of one call: the rest is size-only */
    EVENT_F_SIZE_ONLY = 4, /* no bytes by nature of the call (sendfile, splice) */
    EVENT_F_FAULT = 8      /* the user page could not be read: bytes missing, length true */
};

enum close_reason {
    CLOSE_NORMAL = 0,  /* the last descriptor was closed */
    CLOSE_NOT_HTTP = 1 /* the undecided first bytes turned out to be something else: forget them */
};

/* 48 bytes; in the ring it follows the kernel's own 8-byte record header. */
struct event_header {
    ev_u64 ts_ns;    /* CLOCK_MONOTONIC when the call returned */
    ev_u64 pos;      /* stream position of the first byte, per direction, from 0 */
    ev_u32 tgid;     /* process (thread group) id in the initial pid namespace */
    ev_s32 fd;       /* descriptor under which the connection was first seen */
    ev_u32 gen;      /* generation: differs for each connection that uses (tgid, fd) */
    ev_u32 tid;      /* thread that made the call */
    ev_u32 len_true; /* bytes that went through the call from pos on, as far as this event tells */
    ev_u32 len_cap;  /* bytes that follow this header, <= len_true */
    ev_u8 type;      /* enum event_type */
    ev_u8 dir;       /* enum event_dir */
    ev_u8 flags;     /* enum event_flags */
    ev_u8 call;      /* enum call_id of bpf/syscalls.h, for debugging only */
    ev_u32 spare;    /* EVENT_EXIT: the ring it stands in, whose connections it speaks for */
};

/* 104 bytes. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, all zero when unknown. */
struct event_open {
    struct event_header h;
    ev_u8 local[16];
    ev_u8 remote[16];
    ev_u16 local_port;
    ev_u16 remote_port;
    ev_u8 role;   /* enum event_role */
    ev_u8 start;  /* enum event_start */
    ev_u8 family; /* AF_INET, AF_INET6, AF_UNIX; 0 unknown */
    ev_u8 reason_unused;
    char comm[16]; /* of the calling thread, NUL padded */
};

/* 64 bytes. h.pos is unused. */
struct event_close {
    struct event_header h;
    ev_u64 final_pos[2]; /* by enum event_dir: bytes that ever went that way */
};

#endif
