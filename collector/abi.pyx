"""The event contract of bpf/abi/event.h for Python: constants, layout, and packing for tests and replay.

Packed events come out as ring records (8-byte kernel header, sample, padding), that is, in the very form in
which spans travel from the ring buffer to the shards.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

import socket

VERSION = EVENT_ABI_VERSION
OPEN = EVENT_OPEN
DATA = EVENT_DATA
EOF = EVENT_EOF
CLOSE = EVENT_CLOSE
EXIT = EVENT_EXIT
ADDRESS = EVENT_ADDRESS
PROCESS = EVENT_PROCESS
BIND = EVENT_BIND
OWNER = EVENT_OWNER
AHEAD = EVENT_AHEAD
TLS = EVENT_TLS
LIBRARY = EVENT_LIBRARY
PEER = EVENT_PEER
IN = DIR_IN
OUT = DIR_OUT
UNKNOWN = ROLE_UNKNOWN
SERVER = ROLE_SERVER
CLIENT = ROLE_CLIENT
SEEN = START_SEEN
MID = START_MID
UNCONFIRMED = START_UNCONFIRMED
REJOIN = START_REJOIN
F_CUT = EVENT_F_CUT
F_SIZE_ONLY = EVENT_F_SIZE_ONLY
F_FAULT = EVENT_F_FAULT
F_PENDING = OWNER_F_PENDING
F_UNSELECTED = OWNER_F_UNSELECTED
NORMAL = CLOSE_NORMAL
NOT_HTTP = CLOSE_NOT_HTTP
RESET = CLOSE_RESET
SWEPT = CLOSE_SWEPT
REPLACED = CLOSE_REPLACED


def layout():
    """Size and field offsets of every event struct as this compiler laid them out: {struct: {field: offset}}.

    The key ``"sizeof"`` holds the size. compiler.py compares it with bcc's layout before attaching.
    """
    cdef event_header h
    cdef event_open o
    cdef event_close c
    cdef event_exit e
    cdef event_process p
    cdef event_bind b
    cdef event_tls t
    cdef event_library l
    cdef event_peer r
    cdef char* hb = <char*>&h
    cdef char* ob = <char*>&o
    cdef char* cb = <char*>&c
    cdef char* pb = <char*>&p
    cdef char* bb = <char*>&b
    cdef char* tb = <char*>&t
    cdef char* lb = <char*>&l
    return {
        "event_header": {
            "sizeof": sizeof(event_header),
            "ts_ns": <char*>&h.ts_ns - hb, "pos": <char*>&h.pos - hb, "conn_id": <char*>&h.conn_id - hb,
            "tgid": <char*>&h.tgid - hb, "tid": <char*>&h.tid - hb, "fd": <char*>&h.fd - hb,
            "len_true": <char*>&h.len_true - hb, "len_cap": <char*>&h.len_cap - hb,
            "type": <char*>&h.type - hb, "dir": <char*>&h.dir - hb, "flags": <char*>&h.flags - hb,
            "source": <char*>&h.source - hb, "reason": <char*>&h.reason - hb, "call": <char*>&h.call - hb,
            "ring": <char*>&h.ring - hb, "spare": <char*>&h.spare - hb,
        },
        "event_open": {
            "sizeof": sizeof(event_open), "pos": <char*>&o.pos - ob,
            "local": <char*>&o.local - ob, "remote": <char*>&o.remote - ob,
            "local_port": <char*>&o.local_port - ob, "remote_port": <char*>&o.remote_port - ob,
            "role": <char*>&o.role - ob, "start": <char*>&o.start - ob, "family": <char*>&o.family - ob,
        },
        "event_close": {"sizeof": sizeof(event_close), "final_pos": <char*>&c.final_pos - cb},
        "event_exit": {"sizeof": sizeof(event_exit), "start_ns": <char*>&e.start_ns - <char*>&e},
        "event_process": {
            "sizeof": sizeof(event_process), "start_ns": <char*>&p.start_ns - pb,
            "cgroup_id": <char*>&p.cgroup_id - pb, "comm": <char*>&p.comm - pb,
        },
        "event_bind": {
            "sizeof": sizeof(event_bind), "socket": <char*>&b.socket - bb, "local": <char*>&b.local - bb,
            "remote": <char*>&b.remote - bb, "local_port": <char*>&b.local_port - bb,
            "remote_port": <char*>&b.remote_port - bb, "role": <char*>&b.role - bb, "family": <char*>&b.family - bb,
        },
        "event_tls": {
            "sizeof": sizeof(event_tls), "version": <char*>&t.version - tb, "library": <char*>&t.library - tb,
            "alpn_len": <char*>&t.alpn_len - tb, "sni_len": <char*>&t.sni_len - tb,
            "alpn": <char*>&t.alpn - tb, "sni": <char*>&t.sni - tb,
        },
        "event_peer": {"sizeof": sizeof(event_peer), "address": <char*>&r.address - <char*>&r},
        "event_library": {
            "sizeof": sizeof(event_library), "number": <char*>&l.number - lb, "name": <char*>&l.name - lb,
        },
    }


def pack_known(conn, const unsigned char[::1] local not None, const unsigned char[::1] remote not None, *,
               uint64_t ts_ns, int role, uint16_t local_port, uint16_t remote_port, uint16_t ring=0,
               uint8_t source=0):
    """An EVENT_OPEN with START_REJOIN from 16-byte addresses, as the kernel's table has them."""
    cdef event_open o
    if local.shape[0] != 16 or remote.shape[0] != 16:
        raise ValueError("addresses are 16 bytes")
    memset(&o, 0, sizeof(o))
    _fill_header(&o.h, conn, EVENT_OPEN, ts_ns)
    memcpy(o.local, &local[0], 16)
    memcpy(o.remote, &remote[0], 16)
    o.local_port = local_port
    o.remote_port = remote_port
    o.role = <uint8_t>role
    o.start = START_REJOIN
    o.h.ring = ring
    o.h.source = source
    return _ring_record(&o, sizeof(o), NULL, 0)


cdef bytes _ring_record(const void* sample, size_t sample_len, const void* tail, size_t tail_len):
    cdef size_t length = sample_len + tail_len
    cdef size_t total = ring_advance(<uint32_t>length)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
    cdef char* p = out
    memset(p, 0, total)
    (<uint32_t*>p)[0] = <uint32_t>length
    memcpy(p + RING_HEADER_BYTES, sample, sample_len)
    if tail_len:
        memcpy(p + RING_HEADER_BYTES + sample_len, tail, tail_len)
    return out


cdef void _fill_header(event_header* h, conn, int type_, uint64_t ts_ns) except *:
    memset(h, 0, sizeof(event_header))
    conn_id, tgid, fd = conn
    h.ts_ns = ts_ns
    h.conn_id = conn_id
    h.tgid = tgid
    h.tid = tgid
    h.fd = fd
    h.type = <uint8_t>type_


def pack_data(conn, int direction, uint64_t pos, const unsigned char[::1] data not None, *, uint64_t ts_ns=0,
              len_true=None, int flags=0, int source=SOURCE_SYSCALL):
    """One EVENT_DATA record. ``conn`` is (conn_id, tgid, fd); ``len_true`` (bytes) defaults to len(data)."""
    cdef event_header h
    _fill_header(&h, conn, EVENT_DATA, ts_ns)
    h.dir = <uint8_t>direction
    h.pos = pos
    h.flags = <uint8_t>flags
    h.source = <uint8_t>source
    h.len_cap = <uint32_t>data.shape[0]
    h.len_true = h.len_cap if len_true is None else <uint32_t>len_true
    return _ring_record(&h, sizeof(h), &data[0] if data.shape[0] else NULL, <size_t>data.shape[0])


def address16(host):
    """An IP address text as the 16 bytes events carry (IPv4 as ::ffff:a.b.c.d). Empty text: all zero.

    Raises OSError when the text is not an address.
    """
    if not host:
        return bytes(16)
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host)
    return b"\0" * 10 + b"\xff\xff" + socket.inet_pton(socket.AF_INET, host)


def pack_process(uint32_t tgid, bytes comm not None, *, uint64_t ts_ns=0, uint16_t ring=0, uint64_t start_ns=0):
    """One EVENT_PROCESS record: the name of a process (at most 15 bytes of it)."""
    cdef event_process p
    memset(&p, 0, sizeof(p))
    _fill_header(&p.h, (0, tgid, -1), EVENT_PROCESS, ts_ns)
    p.h.ring = ring
    p.start_ns = start_ns
    comm = comm[:15]
    memcpy(p.comm, <const char*>comm, len(comm))
    return _ring_record(&p, sizeof(p), NULL, 0)


def pack_open(conn, *, uint64_t ts_ns=0, int role=ROLE_SERVER, int start=START_SEEN, local=("", 0), remote=("", 0),
              positions=(0, 0), int type=EVENT_OPEN, uint16_t ring=0, int source=SOURCE_SYSCALL):
    """One EVENT_OPEN (or EVENT_ADDRESS) record; ``local`` and ``remote`` are (address text, port), ``positions`` what had
    gone through before, in and out (bytes)."""
    cdef event_open o
    cdef bytes a = address16(local[0])
    cdef bytes b = address16(remote[0])
    memset(&o, 0, sizeof(o))
    _fill_header(&o.h, conn, type, ts_ns)
    memcpy(o.local, <const char*>a, 16)
    memcpy(o.remote, <const char*>b, 16)
    o.local_port = local[1]
    o.remote_port = remote[1]
    o.role = <uint8_t>role
    o.start = <uint8_t>start
    o.pos[DIR_IN] = positions[0]
    o.pos[DIR_OUT] = positions[1]
    o.h.ring = ring
    o.h.source = <uint8_t>source
    return _ring_record(&o, sizeof(o), NULL, 0)


def pack_close(conn, *, uint64_t ts_ns=0, uint64_t final_in=0, uint64_t final_out=0, int reason=CLOSE_NORMAL,
               int source=SOURCE_SYSCALL):
    """One EVENT_CLOSE record with the final stream position (bytes) of both directions."""
    cdef event_close c
    memset(&c, 0, sizeof(c))
    _fill_header(&c.h, conn, EVENT_CLOSE, ts_ns)
    c.h.reason = <uint8_t>reason
    c.h.source = <uint8_t>source
    c.final_pos[DIR_IN] = final_in
    c.final_pos[DIR_OUT] = final_out
    return _ring_record(&c, sizeof(c), NULL, 0)


def pack_ahead(conn, *, uint64_t ts_ns=0):
    """One EVENT_AHEAD record."""
    cdef event_header h
    _fill_header(&h, conn, EVENT_AHEAD, ts_ns)
    return _ring_record(&h, sizeof(h), NULL, 0)


def pack_eof(conn, int direction, uint64_t pos, *, uint64_t ts_ns=0, int source=SOURCE_SYSCALL):
    """One EVENT_EOF record: ``direction`` ended at position ``pos`` (bytes)."""
    cdef event_header h
    _fill_header(&h, conn, EVENT_EOF, ts_ns)
    h.dir = <uint8_t>direction
    h.pos = pos
    h.source = <uint8_t>source
    return _ring_record(&h, sizeof(h), NULL, 0)


def pack_bind(conn, uint64_t socket_id, *, uint64_t ts_ns=0, int role=ROLE_UNKNOWN, local=("", 0), remote=("", 0),
              int source=SOURCE_OPENSSL):
    """One EVENT_BIND record: the object ``conn`` is the socket whose conn_id is ``socket_id``; its ends as in pack_open."""
    cdef event_bind b
    cdef bytes here = address16(local[0])
    cdef bytes there = address16(remote[0])
    memset(&b, 0, sizeof(b))
    _fill_header(&b.h, conn, EVENT_BIND, ts_ns)
    b.h.source = <uint8_t>source
    b.socket = socket_id
    memcpy(b.local, <const char*>here, 16)
    memcpy(b.remote, <const char*>there, 16)
    b.local_port = local[1]
    b.remote_port = remote[1]
    b.role = <uint8_t>role
    return _ring_record(&b, sizeof(b), NULL, 0)


def pack_tls(conn, *, uint64_t ts_ns=0, uint16_t version=0, uint16_t library=0, bytes alpn not None=b"",
             bytes sni not None=b"", int source=SOURCE_OPENSSL, uint16_t ring=0):
    """One EVENT_TLS record. ``version`` as in the protocol (0x0304), ``library`` a number of pack_library; 0 and empty: not
    known. Of ``alpn`` and ``sni`` there is room for 16 and 64 bytes; their lengths (at most 255) are told as they are."""
    cdef event_tls t
    memset(&t, 0, sizeof(t))
    _fill_header(&t.h, conn, EVENT_TLS, ts_ns)
    t.h.source = <uint8_t>source
    t.h.ring = ring
    t.version = version
    t.library = library
    t.alpn_len = <uint8_t>min(len(alpn), 255)
    t.sni_len = <uint8_t>min(len(sni), 255)
    memcpy(t.alpn, <const char*>alpn, min(<size_t>len(alpn), sizeof(t.alpn)))
    memcpy(t.sni, <const char*>sni, min(<size_t>len(sni), sizeof(t.sni)))
    return _ring_record(&t, sizeof(t), NULL, 0)


def pack_library(uint32_t number, bytes name not None, *, uint64_t ts_ns=0, uint16_t ring=0):
    """One EVENT_LIBRARY record: the name of the library with this number (at most 47 bytes of it)."""
    cdef event_library e
    memset(&e, 0, sizeof(e))
    _fill_header(&e.h, (0, 0, -1), EVENT_LIBRARY, ts_ns)
    e.h.ring = ring
    e.number = number
    name = name[:47]
    memcpy(e.name, <const char*>name, len(name))
    return _ring_record(&e, sizeof(e), NULL, 0)


def pack_owner(uint32_t tgid, bytes fields not None, *, uint64_t start_ns=0, int flags=0, uint64_t ts_ns=0,
               uint16_t ring=0):
    """One EVENT_OWNER record: ``fields``, `"name":"value",...`, of the records of that process; ``flags`` F_PENDING,
    F_UNSELECTED."""
    cdef event_header h
    _fill_header(&h, (0, tgid, -1), EVENT_OWNER, ts_ns)
    h.pos = start_ns
    h.ring = ring
    h.flags = <uint8_t>flags
    h.len_cap = <uint32_t>len(fields)
    return _ring_record(&h, sizeof(h), <const char*>fields, len(fields))


def pack_peer(const unsigned char[::1] address not None, bytes fields not None, *, uint64_t ts_ns=0, uint16_t ring=0):
    """One EVENT_PEER record: ``fields``, `"name":"value",...`, of records whose other end has that address (16 bytes)."""
    cdef event_peer e
    if address.shape[0] != 16:
        raise ValueError("addresses are 16 bytes")
    memset(&e, 0, sizeof(e))
    _fill_header(&e.h, (0, 0, -1), EVENT_PEER, ts_ns)
    e.h.ring = ring
    e.h.len_cap = <uint32_t>len(fields)
    memcpy(e.address, &address[0], 16)
    return _ring_record(&e, sizeof(e), <const char*>fields, len(fields))


def pack_exit(uint32_t tgid, *, uint64_t ts_ns=0, uint16_t ring=0):
    """One EVENT_EXIT record, as it stands in ring ``ring``."""
    cdef event_exit e
    memset(&e, 0, sizeof(e))
    _fill_header(&e.h, (0, tgid, -1), EVENT_EXIT, ts_ns)
    e.h.ring = ring
    e.h.reason = EXIT_PROCESS
    return _ring_record(&e, sizeof(e), NULL, 0)


def walk(const unsigned char[::1] span not None):
    """The events of a span as a list of dicts, for tests and debugging. Raises ValueError at a damaged record."""
    cdef size_t off = 0, end = <size_t>span.shape[0]
    cdef uint32_t length
    cdef event_header* h
    cdef event_open* o
    cdef event_close* c
    cdef event_bind* b
    cdef event_tls* t
    out = []
    while off < end:
        if end - off < RING_HEADER_BYTES:
            raise ValueError(f"span ends inside a ring header at offset {off}")
        length = (<uint32_t*>&span[off])[0]
        if ring_advance(length) > end - off:
            raise ValueError(f"ring record at offset {off} is longer than the span")
        if not length & RING_DISCARD:
            if (length & RING_LENGTH_MASK) < sizeof(event_header):
                raise ValueError(f"event at offset {off} is shorter than its header")
            h = <event_header*>&span[off + RING_HEADER_BYTES]
            if (length & RING_LENGTH_MASK) < event_bytes(h.type):
                raise ValueError(f"event at offset {off} is shorter than its type")
            event = {"type": h.type, "dir": h.dir, "flags": h.flags, "ts_ns": h.ts_ns, "pos": h.pos,
                     "conn": (h.conn_id, h.tgid, h.fd), "tid": h.tid, "reason": h.reason, "source": h.source, "ring": h.ring,
                     "len_true": h.len_true, "len_cap": h.len_cap, "call": h.call}
            if h.type == EVENT_DATA and h.len_cap:
                if sizeof(event_header) + h.len_cap > (length & RING_LENGTH_MASK):
                    raise ValueError(f"event at offset {off} claims more bytes than it has")
                event["data"] = bytes(span[off + RING_HEADER_BYTES + sizeof(event_header):
                                           off + RING_HEADER_BYTES + sizeof(event_header) + h.len_cap])
            elif h.type == EVENT_OPEN or h.type == EVENT_ADDRESS:
                o = <event_open*>h
                event.update(local=(bytes(o.local[:16]), o.local_port), remote=(bytes(o.remote[:16]), o.remote_port),
                             role=o.role, start=o.start, family=o.family, positions=(o.pos[0], o.pos[1]))
            elif h.type == EVENT_PROCESS:
                event["comm"] = bytes((<event_process*>h).comm[:16]).split(b"\0")[0]
            elif h.type == EVENT_CLOSE:
                c = <event_close*>h
                event["final"] = (c.final_pos[0], c.final_pos[1])
            elif h.type == EVENT_BIND:
                b = <event_bind*>h
                event.update(socket=b.socket, role=b.role, family=b.family, local=(bytes(b.local[:16]), b.local_port),
                             remote=(bytes(b.remote[:16]), b.remote_port))
            elif h.type == EVENT_TLS:
                t = <event_tls*>h
                event.update(version=t.version, library=t.library, alpn=bytes(t.alpn[:16])[:t.alpn_len],
                             sni=bytes(t.sni[:64])[:t.sni_len])
            elif h.type == EVENT_LIBRARY:
                event.update(number=(<event_library*>h).number,
                             name=bytes((<event_library*>h).name[:48]).split(b"\0")[0])
            out.append(event)
        off += ring_advance(length)
    return out
