"""Types of abi.pyx."""

from typing import Any, Final, TypeAlias

from _typeshed import ReadableBuffer

_Connection: TypeAlias = tuple[int, int, int]  # conn_id, process, descriptor
_Address: TypeAlias = tuple[str, int]  # text ("" when unknown), port

VERSION: Final[int]
OPEN: Final[int]
DATA: Final[int]
EOF: Final[int]
CLOSE: Final[int]
EXIT: Final[int]
ADDRESS: Final[int]
PROCESS: Final[int]
BIND: Final[int]
OWNER: Final[int]
AHEAD: Final[int]
TLS: Final[int]
LIBRARY: Final[int]
PEER: Final[int]
IN: Final[int]
OUT: Final[int]
UNKNOWN: Final[int]
SERVER: Final[int]
CLIENT: Final[int]
SEEN: Final[int]
MID: Final[int]
UNCONFIRMED: Final[int]
REJOIN: Final[int]
F_CUT: Final[int]
F_SIZE_ONLY: Final[int]
F_FAULT: Final[int]
F_PENDING: Final[int]
F_UNSELECTED: Final[int]
NORMAL: Final[int]
NOT_HTTP: Final[int]
RESET: Final[int]
SWEPT: Final[int]
REPLACED: Final[int]

def layout() -> dict[str, dict[str, int]]: ...
def pack_known(
    conn: _Connection,
    local: ReadableBuffer,
    remote: ReadableBuffer,
    *,
    ts_ns: int,
    role: int,
    local_port: int,
    remote_port: int,
    ring: int = 0,
    source: int = 0,
) -> bytes: ...
def pack_data(
    conn: _Connection,
    direction: int,
    pos: int,
    data: ReadableBuffer,
    *,
    ts_ns: int = 0,
    len_true: int | None = None,
    flags: int = 0,
    source: int = ...,
) -> bytes: ...
def address16(host: str) -> bytes: ...
def pack_open(
    conn: _Connection,
    *,
    ts_ns: int = 0,
    role: int = ...,
    start: int = ...,
    local: _Address = ("", 0),
    remote: _Address = ("", 0),
    positions: tuple[int, int] = (0, 0),
    type: int = ...,
    ring: int = 0,
    source: int = ...,
) -> bytes: ...
def pack_process(tgid: int, comm: bytes, *, ts_ns: int = 0, ring: int = 0, start_ns: int = 0) -> bytes: ...
def pack_owner(tgid: int, fields: bytes, *, start_ns: int = 0, flags: int = 0, ts_ns: int = 0, ring: int = 0) -> bytes: ...
def pack_peer(address: ReadableBuffer, fields: bytes, *, ts_ns: int = 0, ring: int = 0) -> bytes: ...
def pack_close(
    conn: _Connection, *, ts_ns: int = 0, final_in: int = 0, final_out: int = 0, reason: int = ..., source: int = ...
) -> bytes: ...
def pack_ahead(conn: _Connection, *, ts_ns: int = 0) -> bytes: ...
def pack_eof(conn: _Connection, direction: int, pos: int, *, ts_ns: int = 0, source: int = ...) -> bytes: ...
def pack_bind(
    conn: _Connection,
    socket_id: int,
    *,
    ts_ns: int = 0,
    role: int = ...,
    local: _Address = ("", 0),
    remote: _Address = ("", 0),
    source: int = ...,
) -> bytes: ...
def pack_tls(
    conn: _Connection,
    *,
    ts_ns: int = 0,
    version: int = 0,
    library: int = 0,
    alpn: bytes = b"",
    sni: bytes = b"",
    source: int = ...,
    ring: int = 0,
) -> bytes: ...
def pack_library(number: int, name: bytes, *, ts_ns: int = 0, ring: int = 0) -> bytes: ...
def pack_exit(tgid: int, *, ts_ns: int = 0, ring: int = 0) -> bytes: ...
def walk(span: ReadableBuffer) -> list[dict[str, Any]]: ...
