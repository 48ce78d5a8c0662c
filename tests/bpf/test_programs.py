"""The kernel programs: both sides agree on layouts, every program loads in both variants, and pure parts run natively."""

from __future__ import annotations

import array
import ctypes
import json
import os
import random
import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from collector.loader import compiler, kernel
from collector.loader.probes import SOURCES, probe
from collector.loader.programs import Loaded, compile_programs
from collector.router import partition
from tests.conftest import ROOT
from tests.demo import source as demo
from tests.events import GET, Conversation, pipeline
from tests.other_protocols import CLIENT, PROTOCOLS

BPF = compiler.bpf_directory()
WORDS = compiler.DEFAULTS["UNWANTED_WORDS"]

# Verified instructions per program: what grows past it has to be looked at (limit: 1,000,000).
VERIFIED_LIMIT = {
    probe.SOCKET: {
        "exit_read": 54_000,
        "exit_write": 54_000,
        "exit_recvfrom": 54_000,
        "exit_writev": 6_000,
        "exit_sendmsg": 9_000,
        "exit_recvmmsg": 16_000,
        "exit_accept4": 3_000,
        "meet": 360_000,
        "gather": 130_000,
        "quic": 180_000,
        "library_return": 300_000,
        "go_read": 130_000,
        "go_record": 130_000,
        "go_fd_read": 4_000,
        "process_exit": 1_000,
        "enter_close": 1_000,
    },
    probe.DESCRIPTOR: {
        "exit_read": 72_000,
        "exit_write": 72_000,
        "exit_recvfrom": 72_000,
        "exit_writev": 10_000,
        "exit_sendmsg": 18_000,
        "exit_recvmmsg": 18_000,
        "exit_accept4": 3_000,
        "meet": 650_000,
        "gather": 250_000,
        "quic": 180_000,
        "library_return": 350_000,
        "go_read": 130_000,
        "go_record": 130_000,
        "go_fd_read": 4_000,
        "process_exit": 150_000,
        "enter_close": 1_000,
    },
}


def close(loaded: Loaded) -> None:
    for fd in [*loaded.programs.values(), *loaded.maps.values()]:
        os.close(fd)


OBJ_GET_INFO_BY_FD = 15
MAP_NAME_AT, PROGRAM_NAME_AT, NAME_BYTES = 24, 64, 16  # struct bpf_map_info, bpf_prog_info


def kernels_name(fd: int, at: int) -> str:
    info = ctypes.create_string_buffer(PROGRAM_NAME_AT + NAME_BYTES)
    kernel._bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
    return info.raw[at : at + NAME_BYTES].rstrip(b"\0").decode()


def in_kernel(loaded: Loaded) -> dict[str, tuple[object, ...]]:
    """What the kernel has of its programs and maps: names as bpftool shows them, types, sizes, number of instructions."""
    out: dict[str, tuple[object, ...]] = {
        f"map {name}": (kernels_name(fd, MAP_NAME_AT), kernel.map_info(fd)) for name, fd in loaded.maps.items()
    }
    for name, fd in loaded.programs.items():
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
        out[name] = (kernels_name(fd, PROGRAM_NAME_AT), *re.findall(r"^(?:prog_type|verified_insns):\s*\d+", text, re.M))
    return out


@pytest.mark.live
@pytest.mark.timeout(180)
@pytest.mark.parametrize("identity", [probe.SOCKET, probe.DESCRIPTOR])
@pytest.mark.parametrize("variant", [probe.TPX, probe.RAW])
def test_every_program_loads(live: None, variant: str, identity: str, tmp_path: Path) -> None:
    """When it was just compiled, and at a later start, which finds it compiled."""
    defines = {**compiler.DEFAULTS, "RINGS": 4, "CPUS": kernel.possible_cpus()}
    loaded = compile_programs(defines, [variant], identity, cache=str(tmp_path))
    later = compile_programs(defines, [variant], identity, cache=str(tmp_path))
    assert (loaded.cached, later.cached) == (False, True) and not loaded.notes and not later.notes
    assert loaded.verified == later.verified and in_kernel(loaded) == in_kernel(later)
    assert (loaded.build, loaded.uprobes) == (later.build, later.uprobes)
    assert in_kernel(later)["library_return"][:2] == ("library_return", "prog_type:\t2")
    assert in_kernel(later)["map unseen_processes"][0] == "unseen_processe", "of 15 characters"
    close(later)
    assert (loaded.variant, loaded.identity) == (variant, identity)
    prefix = "tp" if variant == probe.TPX else "raw"
    assert set(loaded.programs) == {program.name for source in SOURCES for program in source.programs(loaded.build)}
    for name, limit in VERIFIED_LIMIT[identity].items():
        if name not in loaded.programs:
            name = f"{'tp' if name in ('process_exit', 'enter_close') else prefix}_{name}"
        assert 0 < loaded.verified[name] < limit, (name, loaded.verified[name])
    close(loaded)


@pytest.mark.live
@pytest.mark.timeout(180)
@pytest.mark.parametrize("identity", [probe.SOCKET, probe.DESCRIPTOR])
@pytest.mark.parametrize("variant", [probe.TPX, probe.RAW])
def test_every_program_of_a_library_loads(live: None, variant: str, identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    defines = {**compiler.DEFAULTS, "RINGS": 4, "CPUS": kernel.possible_cpus()}
    loaded = compile_programs(defines, [variant], identity, ["tests.demo.source"])
    programs = [program.name for program in demo.SOURCE.programs(loaded.build)]
    assert 0 < max(loaded.verified[name] for name in programs) < 250_000, loaded.verified
    close(loaded)


@pytest.mark.live
@pytest.mark.timeout(180)
@pytest.mark.parametrize("identity", [probe.SOCKET, probe.DESCRIPTOR])
def test_variants_of_what_is_captured_load(live: None, identity: str) -> None:
    defines = {**compiler.DEFAULTS, "RINGS": 1, "CPUS": kernel.possible_cpus(), "UNIX_SOCKETS": 1}
    close(compile_programs(defines, [probe.TPX], identity))
    del defines["UNIX_SOCKETS"]
    close(compile_programs({**defines, "ONLY_LIBRARIES": 1}, [probe.TPX], identity))


@pytest.mark.live
@pytest.mark.timeout(180)
@pytest.mark.parametrize("identity", [probe.SOCKET, probe.DESCRIPTOR])
@pytest.mark.parametrize("variant", [probe.TPX, probe.RAW])
def test_every_program_loads_for_a_pid_namespace_of_our_own(live: None, variant: str, identity: str) -> None:
    found = os.stat("/proc/self/ns/pid")
    defines = {
        **compiler.DEFAULTS,
        "RINGS": 1,
        "CPUS": kernel.possible_cpus(),
        "PIDNS_DEV": found.st_dev,
        "PIDNS_INO": found.st_ino,
    }
    loaded = compile_programs(defines, [variant], identity)
    assert max(loaded.verified.values()) < 700_000
    close(loaded)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """recognise.h and the ring choice, compiled by the ordinary compiler."""
    folder = tmp_path_factory.mktemp("native")
    capture = (BPF / "capture.h").read_text()
    start = capture.index("static __always_inline u64 scatter")
    scatter = capture[start : capture.index("\n}", start) + 2]
    start = capture.index("static __always_inline u16 ring_of")
    ring_of = capture[start : capture.index("\n}", start) + 2]
    ring_of = ring_of.replace("RINGS", "rings").replace("u64 conn_id)", "u64 conn_id, u32 rings)")
    start = capture.index("static __always_inline u64 turn_of")
    word = capture[start : capture.index("\n}", capture.index("static __always_inline bool has_tag")) + 2]
    (folder / "native.c").write_text(f"""
#include <stdint.h>
#include <stdbool.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef int32_t s32; typedef uint64_t u64;
#define __always_inline inline __attribute__((always_inline))
#include "{BPF}/recognise.h"
{scatter}
{ring_of}
#define UNWANTED_WORDS {WORDS}
{word}
u32 native_word_at(u64 conn_id, u32 dir) {{ return word_at(scatter(conn_id), dir); }}
u32 native_turn(u64 conn_id) {{ return turn_of(scatter(conn_id)); }}
bool native_has_tag(u64 word, u64 conn_id) {{ return has_tag(word, scatter(conn_id)); }}
u32 native_ring(u64 conn_id, u32 rings) {{ return ring_of(conn_id, rings); }}
u32 native_judge_on(const u8 *p, u32 n, u8 *token, u32 *first4)
{{
    for (u32 i = 0; i < n; i++) {{
        u32 v = judge_byte(p[i], token, first4);
        if (v != VERDICT_MORE) return v;
    }}
    return VERDICT_MORE;
}}
u32 native_judge(const u8 *p, u32 n)
{{
    u8 token = 0; u32 first4 = 0;
    return native_judge_on(p, n, &token, &first4);
}}
bool native_tchar(u8 c) {{ return is_tchar(c); }}
bool native_usual(u32 w) {{ return usual_start(w); }}
bool native_frame(const u8 *p) {{ return usual_frame(p); }}
bool native_settings(const u8 *p) {{ return !no_settings(p, 0); }}
""")
    library = folder / "native.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-O2", "-o", library, folder / "native.c"], check=True)
    return ctypes.CDLL(str(library))


def test_tchar_is_rfc_9110s(native: ctypes.CDLL) -> None:
    allowed = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    native.native_tchar.restype = ctypes.c_bool
    assert {c for c in range(256) if native.native_tchar(c)} == allowed


NO, YES, MORE, TLS = range(4)


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"GET / HTTP/1.1", YES),
        (b"PROPFIND /x", YES),
        (b"M-SEARCH * HTTP/1.1", YES),
        (b"GET http://a/", YES),
        (b"CONNECT a:1", YES),
        (b"OPTIONS *", YES),
        (b"FOO http://a", YES),
        (b"\r\nGET / ", YES),
        (b"G", MORE),
        (b"GET", MORE),
        (b"GET ", MORE),
        (b"\x16\x03\x01\x02\x00", TLS),
        (b"PRI * HTTP/2.0\r\n", YES),
        (b"SSH-2.0-OpenSSH_9.2 Debian", NO),
        (b"220 smtp ESMTP", NO),
        (b"EHLO me", NO),
        (b"*1\r\n$4\r\nPING", NO),
        (b"\x00\x00\x00\x01", NO),
        (b"GET\t/", NO),
        (b"GET /x\r\n", YES),  # HTTP/0.9, or a key of Redis: the shard waits for the rest of the connection
        (b"X" * 40, NO),
        (b"get key\r\n", NO),
        (b"PROXY ", YES),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / ", YES),
        (b"PROXY UNKNOWN\r\n", YES),
        (b"PROXY", MORE),
        (b"PROXY\0", NO),
        (b"PROXY\r\n", NO),
        (b"PROXYS /x", YES),
        (b"PROX", MORE),
        (b"PRO TCP4", NO),
        (b"proxy TCP4", NO),
        (b"\r\n\r\n\0\r\nQUIT\n", YES),
        (b"\r\n\r\n\0", YES),
        (b"\r\n\r\n", MORE),
        (b"\r\n\r\nGET / ", YES),
        (b"\r\n\r\nP", MORE),
        (b"\r\n\n\n\0", NO),
        (b"\n\r\n\r\0", NO),
        (b"\r\n\0", NO),
        (b"\0", NO),
        (b"\r\n\r\n\1", NO),
        (b"\r\n\r\n\x16", TLS),
        (b"\r\n\r\nPRI * ", YES),
        (b"\r\nPOST /", YES),
        (b"PUT /", YES),
        (b"PATCH /", YES),
    ],
)
def test_recognition_by_grammar(native: ctypes.CDLL, data: bytes, verdict: int) -> None:
    assert native.native_judge(data, len(data)) == verdict
    for cut in range(1, len(data)):  # byte by byte it never says no to what is a yes
        part = native.native_judge(data[:cut], cut)
        assert part in (MORE, verdict)


USUAL = (b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PROP")
METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")
PROXY_V2 = b"\r\n\r\n\0"  # how version 2 begins; no request has a NUL there


def verdict_of(data: bytes) -> int:
    """What recognition says, in words: preambles of the PROXY protocol on top of the grammar of a request's start."""
    rest = data.lstrip(b"\r\n")
    if not rest:
        return MORE
    if data[: len(data) - len(rest) + 1].endswith(PROXY_V2):
        return YES
    found = METHOD.match(rest)
    assert found
    method, rest = found[0], rest[found.end() :]
    if not method:
        return TLS if rest[:1] == b"\x16" else NO
    if len(method) > 32 or (rest and rest[:1] != b" "):
        return NO
    if method.startswith(b"PROX") and rest:
        return YES
    if len(rest) < 2:
        return MORE
    first4 = (method + b" ")[:4]
    return YES if first4 in USUAL or rest[1:2] in (b"/", b"*", b"h", b"H") else NO


beginnings = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\r\n",
                b"\r",
                b"\n",
                b"\0",
                b" ",
                b"P",
                b"PR",
                b"PROXY",
                b"Y",
                b"PROP",
                b"PRI",
                b"FIND",
                b"T",
                b"/",
                b"\x16",
                PROXY_V2,
                b"OST",
                b"UT",
                b"GET ",
                b"TCP4 ",
            ]
        ),
        st.binary(max_size=2),
    ),
    max_size=6,
).map(b"".join)


@given(beginnings, st.lists(st.integers(1, 8), max_size=12))
def test_the_verdict_is_the_same_however_the_bytes_are_cut(native: ctypes.CDLL, data: bytes, steps: list[int]) -> None:
    """The state between two calls is what an entry of the kernel's table keeps: `token` and `first4`."""
    token, first4 = ctypes.c_uint8(0), ctypes.c_uint32(0)
    verdict, at = MORE, 0
    for step in [*steps, len(data)]:
        piece = data[at : at + step]
        verdict = native.native_judge_on(piece, len(piece), ctypes.byref(token), ctypes.byref(first4))
        at += len(piece)
        if verdict != MORE:
            break
    assert verdict == native.native_judge(data, len(data)) == verdict_of(data)
    assert verdict == MORE or verdict_of(data[:at]) == verdict


def test_every_preamble_is_let_through(native: ctypes.CDLL, corpora: Path) -> None:
    """And what only shares its first bytes is judged as before."""
    vectors = json.loads((corpora / "proxy-protocol" / "vectors.json").read_text())["vectors"]
    assert len(vectors) == 123
    for vector in vectors:
        data, result = bytes.fromhex(vector["bytes_hex"]), vector["expect"]["result"]
        verdict = native.native_judge(data, len(data))
        assert verdict == verdict_of(data), vector["name"]
        if result in ("proxied", "unknown", "local"):
            assert verdict == YES, vector["name"]
        elif result == "incomplete":
            assert verdict in (YES, MORE), vector["name"]


def test_unknown_descriptors_are_judged_by_usual_starts(native: ctypes.CDLL) -> None:
    native.native_usual.restype = ctypes.c_bool
    for text, known in (
        (b"GET ", True),
        (b"POST", True),
        (b"HTTP", True),
        (b"PROP", True),
        (b"\x7fELF", False),
        (b"#!/b", False),
        (b"PROX", False),
        (b"\r\n\r\n", False),
    ):
        assert native.native_usual(int.from_bytes(text, "little")) is known


@pytest.mark.parametrize(
    ("header", "known", "first"),
    [
        ("000012 01 05 00000001", True, False),  # a whole head
        ("000012 01 25 000000d3", True, False),
        ("000012 01 01 00000001", False, False),  # one that goes on
        ("000012 01 45 00000001", False, False),
        ("000012 01 05 00000000", False, False),
        ("000000 01 05 00000001", False, False),
        ("004000 01 05 00000001", True, False),
        ("004101 01 05 00000001", False, False),
        ("010012 01 05 00000001", False, False),
        ("000012 04 00 00000000", True, True),  # SETTINGS
        ("000000 04 00 00000000", True, True),
        ("000000 04 01 00000000", True, False),
        ("000012 04 00 00000001", False, False),
        ("000100 04 00 00000000", False, False),
        ("000008 06 00 00000000", True, False),  # PING
        ("000008 06 01 00000000", True, False),
        ("000009 06 00 00000000", False, False),
        ("000004 08 00 00000000", True, False),  # WINDOW_UPDATE
        ("000004 08 00 00000007", True, False),
        ("000004 08 01 00000007", False, False),
        ("000012 00 00 00000001", False, False),  # DATA
        ("474554 20 2f 20485454", False, False),
        ("000000 00 00 00000000", False, False),
    ],
)
def test_frames_of_http2_that_calls_begin_with(native: ctypes.CDLL, header: str, known: bool, first: bool) -> None:
    native.native_frame.restype = native.native_settings.restype = ctypes.c_bool
    data = bytes.fromhex(header.replace(" ", ""))
    assert (native.native_frame(data), native.native_settings(data)) == (known, first)


def test_few_random_bytes_look_like_frames(native: ctypes.CDLL) -> None:
    native.native_frame.restype = ctypes.c_bool
    rng = random.Random(2)
    assert sum(native.native_frame(rng.randbytes(9)) for _ in range(200_000)) == 0


# Their first words are those of HTTP; what is behind them is for the shard.
BEGIN_LIKE_HTTP = {"redis_inline", "rtsp", "nats", "stomp"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_other_protocols_are_left_out_at_their_first_bytes(native: ctypes.CDLL, name: str) -> None:
    """And no call of an older connection is taken for HTTP/2."""
    said = PROTOCOLS[name](b"a value of 24 characters")
    first = b"".join(data for side, data in said if side == CLIENT)
    verdict = native.native_judge(first, len(first))
    assert verdict == (TLS if name == "tls" else NO) or name in BEGIN_LIKE_HTTP, verdict
    native.native_frame.restype = native.native_settings.restype = ctypes.c_bool
    for _side, data in said:
        assert len(data) < 9 or not (native.native_frame(data) or native.native_settings(data))


def test_ring_choice_is_the_same_on_both_sides(native: ctypes.CDLL) -> None:
    rng = random.Random(1)
    for _ in range(2000):
        conn_id, rings = rng.randrange(1 << 64), rng.randrange(1, 65)
        assert native.native_ring(ctypes.c_uint64(conn_id), rings) == partition.ring_of(conn_id, rings)


def test_a_word_stands_where_the_kernel_looks_for_it(native: ctypes.CDLL) -> None:
    native.native_has_tag.restype = ctypes.c_bool
    words = array.array("Q", [0] * WORDS)
    pipe = pipeline(body_bytes=0)
    pipe.use_unwanted(memoryview(words))
    rng = random.Random(2)
    for _ in range(300):
        conn_id, requests = rng.randrange(1 << 64), rng.choice((abi.CLIENT, abi.SERVER))
        c = Conversation(pipe, conn=(conn_id, 100, 5), role=requests).request(GET)
        c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 20_000)
        word = words[native.native_word_at(ctypes.c_uint64(conn_id), 1 - c.requests)]
        assert native.native_has_tag(ctypes.c_uint64(word), ctypes.c_uint64(conn_id)) and word & 0xFFFFFFFFFFFF > 1_000_000
        other = conn_id ^ rng.randrange(1, 1 << 12)
        assert not native.native_has_tag(ctypes.c_uint64(word), ctypes.c_uint64(other))


def test_kernel_and_shards_leave_the_same_connections_out(native: ctypes.CDLL) -> None:
    rng = random.Random(3)
    for _ in range(500):
        conn_id = rng.randrange(1 << 64)
        turn = native.native_turn(ctypes.c_uint64(conn_id))
        for share in (turn, turn + 1):
            pipe = pipeline()
            pipe.set_share(share)
            Conversation(pipe, conn=(conn_id, 100, 5)).request(GET)
            assert pipe.statistics()["left_out_connections"] == (share == turn)


def test_kernel_side_includes_nothing_of_the_user_side() -> None:
    for path in BPF.rglob("*.h"):
        assert "collector/" not in "".join(line for line in path.read_text().splitlines(True) if line.startswith("#include"))


def test_layout_checks_name_every_struct() -> None:
    text = compiler.layout_checks()
    for name in (
        "event_header",
        "event_open",
        "event_close",
        "event_exit",
        "event_process",
        "event_bind",
        "conn",
        "process",
        "unseen",
        "question",
        "object",
    ):
        assert f"struct {name}" in text
    assert "_Static_assert(STAT_UNPLACED_BYTES == 16," in text and "_Static_assert(STATS_IN_USE == 21," in text


def test_one_source_text() -> None:
    text = compiler.source(Path(BPF))
    assert '#include "' not in text and "FOR_EACH_CALL" in text
