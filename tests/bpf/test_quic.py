"""Connections of QUIC are counted by process, by what real sockets send and receive (bpf/quic.h)."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader import compiler, entries, kernel
from collector.loader.probes import probe
from collector.loader.probes.attachments import Attachments
from collector.loader.probes.syscalls import Syscalls
from collector.loader.process import attach_sources
from collector.loader.programs import Loaded, compile_programs
from tests.conftest import skip_or_fail
from tests.datagrams import (
    DRAFT_29,
    HANDSHAKE,
    INITIAL,
    RETRY,
    SMALLEST,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    V1,
    V2,
    ZERO_RTT,
    long_header,
    recvmmsg,
    sendmmsg,
)

BPF = compiler.bpf_directory()
Pair = tuple[socket.socket, socket.socket]
BUILDS = list(itertools.product((probe.TPX, probe.RAW), (probe.SOCKET, probe.DESCRIPTOR)))
# What cannot be told from a descriptor alone: there only calls on sockets are looked at, by their content.
SOCKETS_ONLY = pytest.mark.parametrize(
    "programs", [build for build in BUILDS if probe.SOCKET in build], ids="-".join, indirect=True
)


class Programs:
    """The programs of the system calls, attached; they leave all processes alone but this one."""

    def __init__(self, variant: str, identity: str) -> None:
        defines = {**compiler.DEFAULTS, "RINGS": 1, "CPUS": kernel.possible_cpus()}
        self.loaded: Loaded = compile_programs(defines, [variant], identity)
        self._attachments = Attachments(self.loaded.programs, kernel.find_tracefs() or "", multi=False)
        word, bit = divmod(os.getpid(), 64)
        others = (1 << 64) - 1
        for index in range(compiler.DEFAULTS["MAX_PIDS"] // 64):
            bits = others & ~(1 << bit) if index == word else others
            kernel.map_update(self.loaded.maps["pid_bits"], struct.pack("=I", index), struct.pack("=Q", bits))
        attach_sources([Syscalls()], self.loaded, self._attachments)

    def counted(self) -> tuple[int, int]:
        """Connections of this process: as a client, as a server."""
        rows = [row for row in entries.unseen(self.loaded.maps["unseen_processes"]) if row["pid"] == os.getpid()]
        return sum(row["quic_client"] for row in rows), sum(row["quic_server"] for row in rows)

    def total(self) -> int:
        """Of all processes, whether the table had room for them or not."""
        number = struct.pack("=I", list(compiler.STATS).index("kernel_quic"))
        cpus = kernel.possible_cpus()
        return sum(struct.unpack(f"={cpus}Q", kernel.map_lookup(self.loaded.maps["stats"], number, 8 * cpus) or b""))

    def forget(self) -> None:
        """As if others had needed the room of this process in the table."""
        kernel.map_delete(self.loaded.maps["unseen_processes"], struct.pack("=I", os.getpid()))

    def close(self) -> None:
        self._attachments.close_kernel()
        for fd in [*self.loaded.programs.values(), *self.loaded.maps.values()]:
            os.close(fd)


@pytest.fixture(scope="module", params=BUILDS, ids="-".join)
def programs(request: pytest.FixtureRequest, live: None) -> Iterator[Programs]:
    attached = Programs(*request.param)
    yield attached
    attached.close()


class Counted:
    """What was counted since it was asked last: as a client, as a server."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._before = programs.counted()
        self._total = programs.total()

    def __call__(self) -> tuple[int, int]:
        now, total = self._programs.counted(), self._programs.total()
        client, server = (b - a for a, b in zip(self._before, now, strict=True))
        assert total - self._total == client + server
        self._before, self._total = now, total
        return client, server


@pytest.fixture
def counted(programs: Programs) -> Counted:
    return Counted(programs)


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two UDP sockets of this process that are connected to each other: a client and a server."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as one, closing(socket.socket(family, socket.SOCK_DGRAM)) as two:
        for sock in (one, two):
            sock.bind((request.param, 0))
            sock.settimeout(10)
        one.connect(two.getsockname())
        two.connect(one.getsockname())
        yield one, two


def connection_id(length: int = 8) -> bytes:
    """One that nobody has."""
    return os.urandom(length)


def begin(**options: object) -> bytes:
    """The first datagram of another connection."""
    return long_header(connection_id(), **options)  # type: ignore[arg-type]


# ---- every way of sending and receiving


def _send_unconnected(sock: socket.socket, data: bytes) -> None:
    address = sock.getpeername()
    with socket.socket(sock.family, socket.SOCK_DGRAM) as other:
        other.bind((sock.getsockname()[0], 0))
        other.sendto(data, address)


def _read_message(sock: socket.socket) -> bytes:
    return sock.recvmsg(2048)[0]


SENDS: dict[str, Callable[[socket.socket, bytes], object]] = {
    "send": socket.socket.send,
    "sendmsg": lambda sock, data: sock.sendmsg([data]),
    "sendmsg, header in a buffer of its own": lambda sock, data: sock.sendmsg([data[:50], data[50:]]),
    "sendmmsg of one": lambda sock, data: sendmmsg(sock, [data]),
}
RECEIVES: dict[str, Callable[[socket.socket], bytes]] = {
    "recv": lambda sock: sock.recv(2048),
    "recvmsg": _read_message,
    "recvmmsg": lambda sock: recvmmsg(sock, 1)[0],
    "recvmmsg, MSG_TRUNC": lambda sock: recvmmsg(sock, 1, socket.MSG_TRUNC)[0],
}
FILES_SENDS: dict[str, Callable[[socket.socket, bytes], object]] = {
    "write": lambda sock, data: os.write(sock.fileno(), data),
    "writev": lambda sock, data: os.writev(sock.fileno(), [data[:60], data[60:]]),
}
FILES_RECEIVES: dict[str, Callable[[socket.socket], bytes]] = {
    "read": lambda sock: os.read(sock.fileno(), 2048),
    "readv": lambda sock: os.readv(sock.fileno(), [bytearray(2048)]).to_bytes(2, "big"),
}


@pytest.mark.parametrize("version", [V1, V2, DRAFT_29])
@pytest.mark.parametrize("way", SENDS)
def test_who_begins_connections_is_a_client(pair: Pair, counted: Counted, way: str, version: int) -> None:
    for _ in range(3):
        SENDS[way](pair[0], begin(version=version))
    assert counted() == (3, 0)


@pytest.mark.parametrize("version", [V1, V2, DRAFT_29])
@pytest.mark.parametrize("way", RECEIVES)
def test_with_whom_connections_begin_is_a_server(pair: Pair, counted: Counted, way: str, version: int) -> None:
    for _ in range(3):
        pair[0].send(begin(version=version))
    counted()
    for _ in range(3):
        RECEIVES[way](pair[1])
    assert counted() == (0, 3)


@SOCKETS_ONLY
@pytest.mark.parametrize("receive", FILES_RECEIVES)
@pytest.mark.parametrize("send", FILES_SENDS)
def test_calls_that_work_on_files_too(pair: Pair, counted: Counted, send: str, receive: str) -> None:
    FILES_SENDS[send](pair[0], begin())
    FILES_RECEIVES[receive](pair[1])
    assert counted() == (1, 1)


def test_a_socket_that_is_not_connected(pair: Pair, counted: Counted) -> None:
    _client, server = pair
    with socket.socket(server.family, socket.SOCK_DGRAM) as listening:
        listening.bind((server.getsockname()[0], 0))
        listening.settimeout(10)
        for _ in range(2):
            with socket.socket(server.family, socket.SOCK_DGRAM) as sock:
                sock.sendto(begin(), listening.getsockname())
            listening.recvfrom(2048)
    assert counted() == (2, 2)


def test_a_datagram_that_is_only_looked_at_is_counted_when_it_is_read(pair: Pair, counted: Counted) -> None:
    pair[0].send(begin())
    pair[1].recv(2048, socket.MSG_PEEK)
    assert counted() == (1, 0)
    pair[1].recv(2048)
    assert counted() == (0, 1)


# ---- one connection


@pytest.mark.parametrize("version", [V1, V2, DRAFT_29])
@pytest.mark.parametrize("client_id", [0, 4, 8, 20])
@pytest.mark.parametrize("retry", [False, True])
def test_a_handshake_is_one_connection(pair: Pair, counted: Counted, version: int, client_id: int, retry: bool) -> None:
    client, server = pair
    made_up, chosen, own = connection_id(), connection_id(), connection_id(client_id)

    def play(sender: socket.socket, data: bytes) -> None:
        sender.send(data)
        (server if sender is client else client).recv(2048)

    play(client, long_header(made_up, own, version=version))
    play(client, long_header(made_up, own, version=version))  # the rest of a long hello, or a repetition
    token = b""
    if retry:
        made_up, token = connection_id(), b"a token"
        play(server, long_header(own, made_up, version=version, packet=RETRY, size=80))
        play(client, long_header(made_up, own, version=version, token=token))
    play(server, long_header(own, chosen, version=version, size=60))  # an acknowledgement only
    play(server, long_header(own, chosen, version=version))
    play(client, long_header(chosen, own, version=version, token=token))
    play(client, long_header(chosen, own, version=version, packet=HANDSHAKE))
    play(client, b"\x40" + chosen + os.urandom(1200))
    assert counted() == (1, 1)


def test_a_retry_in_a_batch_that_nobody_looked_at(pair: Pair, counted: Counted) -> None:
    client, own = pair[0], connection_id(4)
    client.send(long_header(connection_id(), own))
    client.send(long_header(connection_id(), own, token=b"of the Retry"))
    assert counted() == (1, 0)


def test_short_ids_of_two_clients_may_be_equal(pair: Pair, counted: Counted) -> None:
    for _ in range(2):
        pair[0].send(long_header(connection_id(), b"\1"))
        pair[1].recv(2048)
    assert counted() == (2, 2)


def test_connections_one_after_the_other_on_one_socket(pair: Pair, counted: Counted) -> None:
    client, server = pair
    for _ in range(20):
        made_up, chosen = connection_id(), connection_id()
        for sender, data in (
            (client, long_header(made_up)),
            (server, long_header(b"", chosen)),
            (client, long_header(chosen)),
        ):
            sender.send(data)
            (server if sender is client else client).recv(2048)
    assert counted() == (20, 20)


# ---- what is none

NONE: dict[str, bytes] = {
    "a byte too short": long_header(b"A" * 8, size=SMALLEST - 1),
    "short header": b"\x40" + b"B" * 1250,
    "no fixed bit": b"\x83" + long_header(b"C" * 8)[1:],
    "version negotiation": long_header(b"D" * 8, version=0),
    "a version nobody knows": long_header(b"E" * 8, version=0x1A2A3A4A),
    "a draft with another header": long_header(b"F" * 8, version=0xFF000015),
    "an id that a client may not make up": long_header(b"G" * 7),
    "an id that is too long": long_header(b"H" * 21),
    "a source id that is too long": long_header(b"I" * 8, b"I" * 21),
    "0-RTT": long_header(b"J" * 8, packet=ZERO_RTT),
    "Handshake": long_header(b"K" * 8, packet=HANDSHAKE),
    "Retry": long_header(b"L" * 8, packet=RETRY),
    "version 2's Handshake": long_header(b"M" * 8, version=V2, packet=HANDSHAKE),
    "a DNS answer": bytes.fromhex("c0de81800001000100000000") + b"\3www\7example\3com\0" + bytes(1300),
    "one byte": b"\xc0",
    "nothing": b"",
}


@pytest.mark.parametrize("what", NONE)
def test_what_begins_no_connection(pair: Pair, counted: Counted, what: str) -> None:
    for send, receive in zip(SENDS.values(), RECEIVES.values(), strict=True):
        send(pair[0], NONE[what])
        receive(pair[1])
    sendmmsg(pair[0], [NONE[what]] * 3)
    recvmmsg(pair[1], 3)
    assert counted() == (0, 0)


def test_an_echo_of_anything_is_none(pair: Pair, counted: Counted) -> None:
    rng = random.Random(9000)
    for number in range(2000):
        data = rng.randbytes(rng.choice((12, 64, 512, 1200, 1400)))
        if number % 2:
            data = b"\xc3" + data[1:]
        pair[0].send(data)
        pair[1].send(pair[1].recv(2048))
        assert pair[0].recv(2048) == data
    assert counted() == (0, 0)


@SOCKETS_ONLY
@pytest.mark.parametrize("kind", ["tcp", "unix stream", "unix datagrams", "pipe"])
def test_the_same_bytes_elsewhere_are_none(counted: Counted, kind: str, tmp_path: Path) -> None:
    if kind == "pipe":
        reading, writing = os.pipe()
        os.write(writing, begin())
        os.read(reading, 2048)
        os.close(reading)
        os.close(writing)
    elif kind == "tcp":
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as one,
            listener.accept()[0] as two,
        ):
            for _ in range(3):
                one.send(begin())
                two.recv(2048)
                sendmmsg(one, [begin(), begin()])
                recvmmsg(two, 2)
    else:
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM if "stream" in kind else socket.SOCK_DGRAM)
        with one, two:
            for _ in range(3):
                one.send(begin())
                two.recv(2048)
                sendmmsg(one, [begin()])
                recvmmsg(two, 1)
    assert counted() == (0, 0)


# ---- several datagrams a call


def test_batches(pair: Pair, counted: Counted) -> None:
    """By one call each: of those datagrams that are none, and of the same connection, none is counted."""
    again = begin()
    batch = [
        begin(),
        os.urandom(40),
        begin(),
        again,
        again,
        b"\x40" + os.urandom(1300),
        *(begin() for _ in range(6)),
        b"\xc0",
    ]
    sendmmsg(pair[0], batch)
    assert recvmmsg(pair[1], len(batch)) == batch
    assert counted() == (9, 9)


def test_the_longest_batch_that_is_looked_at(pair: Pair, counted: Counted) -> None:
    batch = [begin() for _ in range(32)]
    sendmmsg(pair[0], batch)
    assert counted() == (32, 0)


def segmented(sock: socket.socket, data: bytes, length: int) -> None:
    """One call whose bytes the kernel cuts into datagrams of ``length``."""
    hops = (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("=i", 9))
    if sock.family == socket.AF_INET6:
        hops = (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("=i", 9))
    try:
        sock.sendmsg([data], [hops, (SOL_UDP, UDP_SEGMENT, struct.pack("=H", length))])
    except OSError as error:
        skip_or_fail(f"no UDP_SEGMENT here: {error}")


def test_a_call_that_the_kernel_cuts_into_datagrams(pair: Pair, counted: Counted) -> None:
    first = begin()
    segmented(pair[0], first + first + b"\x40" * 700, 1200)
    assert [len(pair[1].recv(2048)) for _ in range(3)] == [1200, 1200, 700]
    assert counted() == (1, 1)
    segmented(pair[0], b"".join(begin(size=1250) for _ in range(5)), 1250)
    assert counted() == (5, 0)
    segmented(pair[0], begin(size=600) + begin(size=600) + begin(size=600), 600)  # each is too short
    assert counted() == (0, 0)


def test_datagrams_that_the_kernel_has_joined(pair: Pair, counted: Counted) -> None:
    client, server = pair
    server.setsockopt(SOL_UDP, UDP_GRO, 1)
    segmented(client, b"".join(begin(size=1250) for _ in range(5)), 1250)
    counted()
    data, control, _flags, _address = server.recvmsg(1 << 16, 256)
    assert len(data) == 5 * 1250 and [kind for level, kind, _ in control if level == SOL_UDP] == [UDP_GRO]
    assert counted() == (0, 5)


def test_the_sum_is_right_when_the_table_had_no_room(programs: Programs, pair: Pair) -> None:
    total = programs.total()
    for _ in range(3):
        pair[0].send(begin())
        programs.forget()
    pair[0].send(begin())
    assert programs.counted() == (1, 0)
    assert programs.total() - total == 4


# ---- recognition


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """bpf/recognise.h, compiled by the ordinary compiler."""
    folder = tmp_path_factory.mktemp("native")
    (folder / "native.c").write_text(f"""
#include <stdint.h>
#include <stdbool.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef int32_t s32; typedef uint64_t u64;
#define __always_inline inline __attribute__((always_inline))
#include "{BPF}/recognise.h"
u32 native_packet(const u8 *b) {{ return quic_packet(b); }}
u32 native_start(u32 first4) {{ return quic_start(first4); }}
""")
    library = folder / "native.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-O2", "-o", library, folder / "native.c"], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize(
    ("head", "packet"),
    [
        ("c000000001088394c8f03e5157080000449e", 1),  # RFC 9001, A.2
        ("cf000000010008f067a5502a4262b50040750a", 1),  # A.3
        ("ff000000010008f067a5502a4262b5746f6b656e", 2),  # A.4
        ("d36b3343cf088394c8f03e5157080000449e", 1),  # RFC 9369, A.2
        ("dc6b3343cf0008f067a5502a4262b50040750d", 1),  # A.3
        ("cf6b3343cf0008f067a5502a4262b5746f6b656e", 2),  # A.4
    ],
)
def test_packets_of_the_specifications(native: ctypes.CDLL, head: str, packet: int) -> None:
    data = bytes.fromhex(head)
    assert native.native_packet(data) == packet
    assert native.native_start(int.from_bytes(data[:4], "little"))


VERSIONS = [V1, V2, 0, *range(0xFF000014, 0xFF000025), 0x51303530, 0x1A2A3A4A]


def packet_of(data: bytes) -> int:
    """RFC 9000 section 17.2 and RFC 9369 section 3.2, in words: 1 Initial, 2 Retry, 0 anything else."""
    version = int.from_bytes(data[1:5], "big")
    if data[0] < 0xC0 or data[5] > 20 or not (version in (V1, V2) or 0xFF000016 <= version <= 0xFF000022):
        return 0
    types = [RETRY, INITIAL, ZERO_RTT, HANDSHAKE] if version == V2 else [INITIAL, ZERO_RTT, HANDSHAKE, RETRY]
    return {INITIAL: 1, RETRY: 2}.get(types[data[0] >> 4 & 3], 0)


@given(
    st.integers(0, 255),
    st.one_of(st.sampled_from(VERSIONS), st.integers(0, (1 << 32) - 1)).map(lambda v: v.to_bytes(4, "big")),
    st.integers(0, 255),
)
def test_first_bytes_of_a_datagram(native: ctypes.CDLL, flags: int, version: bytes, length: int) -> None:
    data = bytes([flags]) + version + bytes([length])
    packet = native.native_packet(data)
    assert packet == packet_of(data)
    assert not packet or native.native_start(int.from_bytes(data[:4], "little"))
