"""Datagrams of QUIC as its handshakes have them (RFC 9000 section 17.2, RFC 9369), and calls that Python does not have."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Sequence

V1, V2, DRAFT_29 = 0x00000001, 0x6B3343CF, 0xFF00001D
INITIAL, ZERO_RTT, HANDSHAKE, RETRY = range(4)
SMALLEST = 1200  # bytes of a datagram with a client's Initial packet (RFC 9000 section 14.1)
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104


def long_header(
    to: bytes, source: bytes = b"", *, version: int = V1, packet: int = INITIAL, token: bytes = b"", size: int = SMALLEST
) -> bytes:
    """A datagram of ``size`` bytes that begins with such a packet; what is encrypted is anything."""
    kind = (packet + 1) % 4 if version == V2 else packet
    head = bytes([0xC0 | kind << 4 | 3]) + version.to_bytes(4, "big") + bytes([len(to)]) + to + bytes([len(source)]) + source
    if packet == INITIAL:
        head += bytes([len(token)]) + token
    return (head + (0x4000 | size & 0x3FFF).to_bytes(2, "big") + os.urandom(size))[:size]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)


def _vector(buffers: Sequence[ctypes.Array[ctypes.c_char]]) -> ctypes.Array[_Mmsghdr]:
    out = (_Mmsghdr * len(buffers))()
    for message, buffer in zip(out, buffers, strict=True):
        message.header.iov = ctypes.pointer(_Iovec(ctypes.addressof(buffer), len(buffer)))
        message.header.iov_count = 1
    return out


def sendmmsg(sock: socket.socket, datagrams: Sequence[bytes]) -> None:
    """All of them, from a connected socket, by one call."""
    buffers = [ctypes.create_string_buffer(data, len(data)) for data in datagrams]
    sent = _libc.sendmmsg(sock.fileno(), _vector(buffers), len(buffers), 0)
    if sent != len(datagrams):
        raise OSError(ctypes.get_errno(), f"sendmmsg: {sent}")


def recvmmsg(sock: socket.socket, number: int, flags: int = 0) -> list[bytes]:
    """So many, by one call."""
    buffers = [ctypes.create_string_buffer(2048) for _ in range(number)]
    messages = _vector(buffers)
    got = _libc.recvmmsg(sock.fileno(), messages, number, flags, None)
    if got < 0:
        raise OSError(ctypes.get_errno(), "recvmmsg")
    return [buffer.raw[: message.length] for buffer, message in zip(buffers, messages[:got], strict=False)]
