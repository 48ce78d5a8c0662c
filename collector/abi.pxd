"""Cython's view of bpf/abi/event.h: the C compiler vouches for every value and offset."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "event.h" nogil:
    enum:
        EVENT_ABI_VERSION
        EVENT_OPEN
        EVENT_DATA
        EVENT_EOF
        EVENT_CLOSE
        EVENT_EXIT
        EVENT_ADDRESS
        EVENT_PROCESS
        EVENT_BIND
        EVENT_OWNER
        EVENT_AHEAD
        EVENT_TLS
        EVENT_LIBRARY
        EVENT_PEER
        DIR_IN
        DIR_OUT
        ROLE_UNKNOWN
        ROLE_SERVER
        ROLE_CLIENT
        START_SEEN
        START_MID
        START_UNCONFIRMED
        START_REJOIN
        EVENT_F_CUT
        EVENT_F_SIZE_ONLY
        EVENT_F_FAULT
        OWNER_F_PENDING
        OWNER_F_UNSELECTED
        SOURCE_SYSCALL
        SOURCE_OPENSSL
        SOURCE_GNUTLS
        SOURCE_NSS
        SOURCE_GO
        CLOSE_NORMAL
        CLOSE_NOT_HTTP
        CLOSE_RESET
        CLOSE_SWEPT
        CLOSE_REPLACED
        EXIT_PROCESS
        EXIT_EXEC

    struct event_header:
        uint64_t ts_ns
        uint64_t pos
        uint64_t conn_id
        uint32_t tgid
        uint32_t tid
        int32_t fd
        uint32_t len_true
        uint32_t len_cap
        uint8_t type
        uint8_t dir
        uint8_t flags
        uint8_t source
        uint8_t reason
        uint8_t call
        uint16_t ring
        uint32_t spare

    struct event_open:
        event_header h
        uint64_t pos[2]
        uint8_t local[16]
        uint8_t remote[16]
        uint16_t local_port
        uint16_t remote_port
        uint8_t role
        uint8_t start
        uint8_t family
        uint8_t spare

    struct event_close:
        event_header h
        uint64_t final_pos[2]

    struct event_exit:
        event_header h
        uint64_t start_ns

    struct event_process:
        event_header h
        uint64_t start_ns
        uint64_t cgroup_id
        char comm[16]

    struct event_bind:
        event_header h
        uint64_t socket
        uint64_t spare
        uint8_t local[16]
        uint8_t remote[16]
        uint16_t local_port
        uint16_t remote_port
        uint8_t role
        uint8_t spare2
        uint8_t family
        uint8_t spare3

    struct event_tls:
        event_header h
        uint16_t version
        uint16_t library
        uint8_t alpn_len
        uint8_t sni_len
        uint16_t spare
        char alpn[16]
        char sni[64]

    struct event_library:
        event_header h
        uint32_t number
        uint32_t spare
        char name[48]

    struct event_peer:
        event_header h
        uint8_t address[16]

# A ring record: the kernel's header (u32 length with two flag bits, u32 page offset), the sample, padding to 8.
cdef enum:
    RING_HEADER_BYTES = 8
    RING_BUSY = 0x80000000        # reserved, not committed yet: the walk stops here
    RING_DISCARD = 0x40000000     # committed as void: the walk skips it
    RING_LENGTH_MASK = 0x3FFFFFFF

cdef inline size_t event_bytes(uint8_t type_) noexcept nogil:
    """The least that an event of this type has."""
    if type_ == EVENT_DATA:
        return sizeof(event_header)
    if type_ == EVENT_OPEN or type_ == EVENT_ADDRESS:
        return sizeof(event_open)
    if type_ == EVENT_CLOSE:
        return sizeof(event_close)
    if type_ == EVENT_EXIT:
        return sizeof(event_exit)
    if type_ == EVENT_PROCESS:
        return sizeof(event_process)
    if type_ == EVENT_BIND:
        return sizeof(event_bind)
    if type_ == EVENT_TLS:
        return sizeof(event_tls)
    if type_ == EVENT_LIBRARY:
        return sizeof(event_library)
    if type_ == EVENT_PEER:
        return sizeof(event_peer)
    return sizeof(event_header)


cdef inline size_t ring_advance(uint32_t length) noexcept nogil:
    """Bytes from one ring record to the next (kernel/bpf/ringbuf.c: header and sample, rounded up to 8)."""
    return ((<size_t>length & RING_LENGTH_MASK) + RING_HEADER_BYTES + 7) & ~<size_t>7
