"""Recorded traffic: capture files, streams, and the replay command over them."""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector import abi, capturefile
from collector.errors import DamagedFileError
from collector.loader import streams
from tests.events import GET, OK, pipeline, take, validate

CONN = (9 << 12, 42, 7)


def write_capture(path: Path, spans: list[bytes], limit: int = 1 << 30, *, end: bool = True) -> capturefile.Writer:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    writer = capturefile.Writer(fd, 2, limit)
    for number, span in enumerate(spans):
        writer.write(number % 2, span, 10**18)
    if end:
        writer.close()
    os.close(fd)
    return writer


def read_capture(path: Path) -> tuple[list[bytes], str]:
    """(the spans that can be read, what is damaged)."""
    spans = []
    try:
        for span in capturefile.Recording(str(path)).spans():
            spans.append(span.data)
    except DamagedFileError as error:
        return spans, str(error)
    return spans, ""


def exchange(conn: tuple[int, int, int], ts: int = 1000) -> bytes:
    return (
        abi.pack_open(conn, ts_ns=ts, local=("10.0.0.1", 80), remote=("10.0.0.2", 5))
        + abi.pack_data(conn, abi.IN, 0, GET, ts_ns=ts + 1)
        + abi.pack_data(conn, abi.OUT, 0, OK, ts_ns=ts + 2)
    )


def replay(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collector", "replay", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_capture_round_trip_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [b"one", b"two", b""])
    recording = capturefile.Recording(str(path))
    assert [(s.ring, s.data, s.wall_offset_ns) for s in recording.spans()] == [
        (0, b"one", 10**18),
        (1, b"two", 10**18),
        (0, b"", 10**18),
    ]
    assert recording.boot == capturefile.boot_id() and recording.left_out_bytes == 0
    writer = write_capture(path, [b"x" * 100] * 5, limit=450)
    recording = capturefile.Recording(str(path))
    assert [len(s.data) for s in recording.spans()] == [100, 100] and path.stat().st_size <= 450
    assert writer.full and writer.skipped_bytes == recording.left_out_bytes == 300


def test_capture_without_events_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [])
    assert read_capture(path) == ([], "")


@given(spans=st.lists(st.binary(max_size=80), max_size=5), cut=st.integers(0, 10**6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_capture_cut_anywhere_gives_its_whole_blocks_and_says_that_it_was_cut(
    tmp_path: Path, spans: list[bytes], cut: int
) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, spans)
    data = path.read_bytes()
    cut %= len(data)
    path.write_bytes(data[:cut])
    found, damage = read_capture(path)
    ends = [48 + sum(32 + len(s) for s in spans[: n + 1]) for n in range(len(spans))]
    assert found == spans[: sum(end <= cut for end in ends)]
    assert f"{path}: offset " in damage
    if cut == 0:
        assert "empty" in damage
    elif cut in [48, *ends]:
        assert f"offset {cut}: the end is missing" in damage


@given(
    spans=st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=5),
    place=st.integers(0, 10**6),
    bits=st.integers(1, 255),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_changed_byte_of_a_capture_passes(tmp_path: Path, spans: list[bytes], place: int, bits: int) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, spans)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place] ^= bits
    path.write_bytes(data)
    found, damage = read_capture(path)
    assert damage and found == spans[: len(found)]
    before = [n for n in range(len(spans)) if 48 + sum(32 + len(s) for s in spans[: n + 1]) <= place]
    assert len(found) == len(before)


@given(spans=st.lists(st.binary(min_size=5, max_size=5), min_size=2, max_size=5, unique=True), draw=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_blocks_that_are_missing_double_or_elsewhere_do_not_pass(
    tmp_path: Path, spans: list[bytes], draw: st.DataObject
) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, spans)
    data = path.read_bytes()
    blocks = [data[48 + 37 * n : 48 + 37 * (n + 1)] for n in range(len(spans))]
    order = draw.draw(st.lists(st.sampled_from(range(len(spans))), max_size=6))
    path.write_bytes(data[:48] + b"".join(blocks[n] for n in order) + data[48 + 37 * len(spans) :])
    found, damage = read_capture(path)
    assert found == spans[: len(found)]
    assert (damage == "") == (order == list(range(len(spans))))


@given(data=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_no_capture_is_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.cap"
    for start in (b"", capturefile.MAGIC, capturefile.MAGIC + struct.pack("<II", capturefile.VERSION, abi.VERSION)):
        path.write_bytes(start + data)
        assert read_capture(path)[0] == [] and read_capture(path)[1]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d[:-1], "ends inside a block"),
        (lambda d: d[:-200] + b"!" + d[-199:], "CRC"),
        (lambda d: b"x" + d[1:], "not a capture"),
        (lambda d: d[:56], "block header"),
        (lambda d: d[:40], "inside the header"),
        (lambda d: d[:-40], "the end is missing"),
        (lambda d: d + b"x", "bytes behind the end"),
        (lambda d: d + d, "bytes behind the end"),
        (lambda d: d[:0], "empty"),
        (lambda d: d[:16] + struct.pack("<I", 2) + d[20:], r"another version \(file 2.*record again"),
    ],
)
def test_damaged_capture_names_the_offset(tmp_path: Path, damage, words: str) -> None:  # noqa: ANN001
    path = tmp_path / "a.cap"
    write_capture(path, [exchange(CONN), exchange((10 << 12, 42, 8))])
    path.write_bytes(damage(path.read_bytes()))
    assert re.search(f"offset [0-9]+: .*{words}", read_capture(path)[1])


def test_a_killed_writers_torn_block_goes_and_the_next_one_continues(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    written = write_capture(path, [b"one", b"two"], end=False).written_bytes
    with path.open("ab") as file:
        file.write(b"SPAN, and then it was killed")
    fd = os.open(path, os.O_RDWR)
    writer = capturefile.Writer(fd, 2, written_bytes=written)
    writer.write(1, b"three", 5)
    writer.close()
    os.close(fd)
    assert read_capture(path) == ([b"one", b"two", b"three"], "")


def test_a_full_disk_leaves_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    writer = capturefile.Writer(fd, 2)
    writer.write(0, b"one", 5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.written_bytes + 50, before[1]))  # as little room as a disk may have
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.write(0, b"two" * 1000, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == writer.written_bytes
    writer.write(0, b"three", 5)
    writer.close()
    os.close(fd)
    assert read_capture(path) == ([b"one", b"three"], "")
    with open("/dev/full", "wb") as full, pytest.raises(OSError, match="No space left"):
        capturefile.Writer(full.fileno(), 2).write(0, b"one", 5)


def test_replay_of_a_capture_and_of_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [exchange(CONN), exchange((10 << 12, 42, 8), 5000)])
    whole = path.read_bytes()
    done = replay(str(path))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    for cut, count, words in ((5, 2, "ends inside a block"), (40, 2, "the end is missing"), (45, 1, "ends inside a block")):
        path.write_bytes(whole[:-cut])
        done = replay(str(path))
        assert done.returncode == 65 and len(done.stdout.splitlines()) == count
        assert f"{path}: offset" in done.stderr and words in done.stderr
    for empty in (tmp_path / "empty.cap", tmp_path / "empty.streams.jsonl"):
        empty.write_bytes(b"")
        done = replay(str(empty))
        assert done.returncode == 65 and str(empty) in done.stderr


def test_what_was_left_out_of_a_recording_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    spans = [exchange(CONN), exchange((10 << 12, 42, 8), 5000)]
    write_capture(path, spans, limit=48 + 32 + len(spans[0]) + 40)
    done = replay(str(path))
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert f"{len(spans[1])} bytes of events were left out" in done.stderr


def of_boot(path: Path, boot: str) -> None:
    data = path.read_bytes()
    head = data[:28] + boot.encode()
    path.write_bytes(head + struct.pack("<I", zlib.crc32(head)) + data[48:])


def test_files_share_no_connection(tmp_path: Path) -> None:
    """A's request is never answered by B, nor does a process of A name one of B."""
    a, b, c = tmp_path / "a.cap", tmp_path / "b.cap", tmp_path / "c.streams.jsonl"
    opened = abi.pack_open(CONN, ts_ns=1000, local=("10.0.0.1", 80), remote=("10.0.0.2", 5))
    write_capture(
        a,
        [
            abi.pack_process(42, b"of-a", ts_ns=999)
            + opened
            + abi.pack_data(CONN, abi.IN, 0, b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n", ts_ns=1001)
        ],
    )
    answer = abi.pack_data(CONN, abi.OUT, 0, OK, ts_ns=1002)
    mine = (11 << 12, 42, 9)
    write_capture(
        b,
        [
            answer
            + abi.pack_open(mine, ts_ns=500, local=("10.0.0.1", 80), remote=("10.0.0.2", 6))
            + abi.pack_data(mine, abi.IN, 0, GET, ts_ns=501)
            + abi.pack_data(mine, abi.OUT, 0, OK, ts_ns=502)
        ],
    )
    of_boot(b, "0123456789abcdef")
    c.write_text(stream_lines({**HEAD, "connection": 0}, data("c2s", 0, GET), data("s2c", 0.25, OK)))
    single = [replay(str(path)).stdout for path in (a, b)]
    for shards in ("1", "3"):
        done = replay(str(a), str(b), str(c), "--shards", shards)
        assert done.returncode == 0, done.stderr
        records = [validate(json.loads(line)) for line in done.stdout.splitlines()]
        assert [(r["path"], r["statusCode"], r["process_name"]) for r in records] == [
            ("/secret", "0", "of-a"),
            ("/x", "200", ""),
            ("/x", "200", "replay"),
        ]
        assert "no_response" in records[0]["words"] and records[1]["mark"] == records[2]["mark"] == []
        assert [r["recordId"].partition("-")[0] for r in records] == [capturefile.boot_id(), "0123456789abcdef", "replay"]
        # every file gives what it gives alone
        assert done.stdout.splitlines()[:2] == "".join(single).splitlines()
    twice = replay(str(a), str(a)).stdout.splitlines()
    assert len(twice) == 2 and twice[0] == twice[1]


def stream_lines(*items: dict) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def data(direction: str, t: float, text: bytes) -> dict:
    import base64

    return {"dir": direction, "t": t, "data_b64": base64.b64encode(text).decode()}


HEAD = {"connection": 0, "client": "10.0.0.1:40000", "server": "[fd00::2]:80", "start": "syn", "epoch": 1_700_000_000.5}


def test_streams_become_records(tmp_path: Path) -> None:
    path = tmp_path / "a.streams.jsonl"
    path.write_text(
        stream_lines(
            HEAD,
            data("c2s", 0, GET),
            data("s2c", 0.25, OK),
            {**HEAD, "connection": 1, "start": "mid"},
            data("c2s", 0.1, GET),
            {"dir": "s2c", "t": 0.2, "gap": 100},
            data("s2c", 0.3, OK),
            {"dir": "c2s", "t": 0.4, "end": "fin"},
            {"dir": "s2c", "t": 0.4, "end": "fin"},
            {**HEAD, "connection": 2},
            data("c2s", 0.15, b"GET /open HTTP/1.1\r\n\r\n"),
        )
    )
    done = replay(str(path))
    assert done.returncode == 0, done.stderr
    records = [validate(json.loads(line)) for line in done.stdout.splitlines()]
    # in the order of their ends: an unanswered request ended with its own last byte
    assert [(r["path"], r["socket_id"], sorted(r["words"])) for r in records] == [
        ("/open", "2", ["no_response"]),
        ("/x", "0", []),
        ("/x", "1", ["joined_mid_stream", "pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain"]),
    ]
    assert records[1]["time"] == "1700000000" and records[1]["durationMs"] == "250.000"
    assert (records[1]["ip"], records[1]["destIp"]) == ("10.0.0.1:40000", "[fd00::2]:80")


OPENING = stream_lines(HEAD)
EVENT = '{"dir":"c2s","t":0.5,"gap":1}'
BAD_LINES = [
    "{",
    "[]",
    "0",
    "null",
    '"x"',
    "\x00",
    "nonsense",
    '{"dir":"c2s","t":0.5,"data_b64":"*"}',
    '{"dir":"c2s","t":0.5,"data_b64":"QQ"}',
    '{"dir":"c2s","t":0.5,"data_b64":5}',
    '{"dir":"c2s","t":0.5,"data_b64":null}',
    '{"dir":"c2s","t":0.5,"data_b64":"\\ud800"}',
    '{"dir":"up","t":0.5,"end":"fin"}',
    '{"dir":["c2s"],"t":0.5,"end":"fin"}',
    '{"t":0.5,"end":"fin"}',
    '{"dir":"c2s","gap":3}',
    '{"dir":"c2s","t":0.5}',
    '{"dir":"c2s","t":0.5,"gap":1,"end":"fin"}',
    '{"dir":"c2s","t":0.5,"end":null}',
    *(
        f'{{"dir":"c2s","t":{t},"gap":3}}'
        for t in (
            "-1",
            "1e300",
            "1e999",
            "-1e999",
            "NaN",
            "Infinity",
            "2147483648",
            "true",
            '"1"',
            "null",
            "[0]",
            "9" * 5000,
        )
    ),
    *(
        f'{{"dir":"c2s","t":0.5,"gap":{n}}}'
        for n in ("-3", "1.5", "1e300", "true", '"3"', "null", "NaN", "4611686018427387905", "9" * 5000)
    ),
    '{"dir":"c2s","dir":"s2c","t":0.5,"gap":3}',
    '{"dir":"c2s","t":0.5,"gap":3,"gap":3}',
    '{"dir":"c2s","t":0.1,"gap":1}',
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"dir":"c2s","t":0.5,"gap":3} {"dir":"c2s","t":0.5,"gap":3}',
]
BAD_OPENINGS = [
    {"connection": 0},
    {"connection": -1},
    {"connection": 1.5},
    {"connection": "1"},
    {"connection": None},
    {"connection": True},
    *(
        {"client": address}
        for address in (
            "10.0.0.9:99999",
            "10.0.0.9:-1",
            "10.0.0.9",
            "10.0.0.9:",
            "10.0.0.999:1",
            "a:1",
            5,
            None,
            "10.0.0.9:1_0",
            "10.0.0.9: 1",
            "10.0.0.9:\u0661",
            "[::1:80",
            "::1:80",
            "[10.0.0.9]:1",
            "10.0.0.9\0:1",
            "\ud800:1",
        )
    ),
    *({"epoch": epoch} for epoch in (1e300, float("inf"), float("nan"), -1, True, "1", [1], 1_700_000_001.5)),
    {"start": "sideways"},
    {"start": None},
    {"server": ["10.0.0.1:80"]},
]


def damaged(path: Path, text: str | bytes) -> streams.StreamsFile:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return streams.StreamsFile(str(path))


@pytest.mark.parametrize("bad", BAD_LINES, ids=lambda bad: bad[:40])
def test_a_damaged_line_is_named_and_the_others_are_processed(tmp_path: Path, bad: str) -> None:
    exchange_lines = stream_lines(data("c2s", 0.2, GET), data("s2c", 0.25, OK))
    other = stream_lines({**HEAD, "connection": 1}, data("c2s", 0.3, GET), data("s2c", 0.4, OK))
    later = stream_lines(data("c2s", 0.6, GET), data("s2c", 0.7, OK))
    file = damaged(tmp_path / "a.streams.jsonl", OPENING + exchange_lines + bad + "\n" + later + other)
    assert len(file.errors) == 1
    assert f"a.streams.jsonl: line 4, offset {len(OPENING + exchange_lines)}: " in str(file.error)
    pipe = pipeline()
    for event in file.events(1, streams.BASE_NS):
        pipe.feed(event.record)
    records = take(pipe)
    assert sorted((r["socket_id"], "joined_mid_stream" in r["words"]) for r in records) == [
        ("0", False),
        ("1", True),
        ("2", False),
    ]
    joined = next(r for r in records if r["socket_id"] == "1")
    an_event = (
        bad.startswith('{"dir"')
        and bad.count("dir") == 1
        and "999999" not in bad
        and "NaN" not in bad
        and ("Infinity" not in bad and bad.count("gap") < 2)
    )
    if an_event:
        assert joined["destIp"] == "[fd00::2]:80"  # it was an event of that connection, whatever it said
    elif not bad.startswith('{"t"'):
        assert "peer_unknown" in joined["words"]  # it may have opened another one


@pytest.mark.parametrize("bad", BAD_OPENINGS, ids=str)
def test_a_damaged_opening_is_named_and_lends_its_events_to_nobody(tmp_path: Path, bad: dict) -> None:
    text = OPENING + stream_lines(
        data("c2s", 0.2, b"GET /open HTTP/1.1\r\n\r\n"),
        {**HEAD, "connection": 1, **bad},
        data("c2s", 0.3, GET),
        data("s2c", 0.4, OK),
    )
    file = damaged(tmp_path / "a.streams.jsonl", text)
    assert len(file.errors) == 1 and "a.streams.jsonl: line 3, offset" in str(file.error)
    assert file.epoch_ns == 1_700_000_000_500_000_000
    pipe = pipeline()
    for event in file.events(1, streams.BASE_NS):
        pipe.feed(event.record)
    assert [(r["socket_id"], r["path"], "peer_unknown" in r["words"]) for r in take(pipe)] == [("1", "/x", True)]


@pytest.mark.parametrize("key", ["connection", "client", "server"])
def test_an_opening_needs_all_its_members(tmp_path: Path, key: str) -> None:
    file = damaged(tmp_path / "a.streams.jsonl", stream_lines({k: v for k, v in HEAD.items() if k != key}))
    assert "line 1, offset 0: " in str(file.error)


def test_bytes_behind_an_end_are_no_part_of_that_stream(tmp_path: Path) -> None:
    file = damaged(
        tmp_path / "a.streams.jsonl", OPENING + stream_lines({"dir": "c2s", "t": 0.1, "end": "fin"}, data("c2s", 0.2, GET))
    )
    assert "line 3" in str(file.error) and "behind the end" in str(file.error)


def test_invalid_utf8_and_other_encodings_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.streams.jsonl"
    for line in (
        b'{"dir":"c2s\xff","t":1,"gap":1}',
        OPENING.encode("utf-16"),
        b"\xef\xbb\xbf" + OPENING.encode(),
        b'{"notes":"\xed\xa0\x80","dir":"c2s","t":1,"gap":1}',
    ):
        assert "line 2" in str(damaged(path, OPENING.encode() + line.replace(b"\n", b" ") + b"\n").error)


def test_a_line_that_is_too_long_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 500)
    long = '{"dir":"c2s","t":0.5,"data_b64":"' + "A" * 5_000_000
    for end in ("", '"}\n'):
        file = damaged(tmp_path / "a.streams.jsonl", OPENING + long + end)
        assert len(file.errors) == 1 and "line 2" in str(file.error) and "longer than 500" in str(file.error)
    file = damaged(
        tmp_path / "a.streams.jsonl",
        OPENING + long + '"}\n' + stream_lines({**HEAD, "connection": 7}, data("c2s", 0.5, GET)),
    )
    assert len(file.errors) == 1 and len(list(file.events(1, 1))) == 2


def test_many_damaged_lines_are_counted(tmp_path: Path) -> None:
    file = damaged(tmp_path / "a.streams.jsonl", OPENING + "x\n" * 1000)
    assert len(file.errors) == streams.MAX_ERRORS + 1
    assert f"{1000 - streams.MAX_ERRORS} more damaged lines" in str(file.errors[-1])


def test_a_file_that_changes_while_it_is_read_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.streams.jsonl"
    file = damaged(path, OPENING + stream_lines(data("c2s", 0.5, GET)))
    path.write_text("")
    with pytest.raises(DamagedFileError, match="line 2.*changed"):
        list(file.events(1, 1))


@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from([OPENING.encode().strip(), b'{"dir":"c2s","t":1,"gap":3}', b""]),
            st.binary(max_size=60),
            st.builds(
                lambda item: json.dumps(item).encode(),
                st.dictionaries(
                    st.sampled_from(
                        ["connection", "client", "server", "start", "epoch", "dir", "t", "data_b64", "gap", "end"]
                    ),
                    st.one_of(
                        st.sampled_from(["c2s", "s2c", "10.0.0.1:80", "mid", "fin", "rst", "QQ==", GET.hex()]),
                        st.integers(),
                        st.floats(),
                        st.booleans(),
                        st.none(),
                        st.text(max_size=5),
                        st.lists(st.integers(), max_size=2),
                    ),
                ),
            ),
        ),
        max_size=12,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_any_bytes_are_events_or_damage_with_the_place(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "a.streams.jsonl"
    file = damaged(path, b"\n".join(lines))
    pipe = pipeline()
    for event in file.events(1, streams.BASE_NS):
        pipe.feed(event.record)
    pipe.close_all()
    take(pipe)
    assert pipe.statistics()["bad_events"] == 0
    assert all(re.search(r"(line [0-9]+, )?offset [0-9]+: |more damaged", str(error)) for error in file.errors)


def test_replay_of_a_damaged_streams_file_ends_with_65_and_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.streams.jsonl"
    path.write_text(OPENING + "{\n" + stream_lines({**HEAD, "connection": 1}, data("c2s", 0.3, GET), data("s2c", 0.4, OK)))
    whole = tmp_path / "b.streams.jsonl"
    whole.write_text(OPENING + stream_lines(data("c2s", 0.3, GET), data("s2c", 0.4, OK)))
    done = replay(str(path), str(whole))
    assert done.returncode == 65 and f"{path}: line 2, offset {len(OPENING)}: " in done.stderr
    assert [json.loads(line)["marks"] for line in done.stdout.splitlines()] == ["[]", "[]"]


def test_replay_is_deterministic_for_any_number_of_shards(corpora: Path) -> None:
    files = sorted(map(str, (corpora / "libhtp" / "files").glob("*.jsonl")))
    files += [str(corpora / "deepflow-http" / "client-ip.streams.jsonl")]
    runs = [replay(*files, "--shards", str(n)) for n in (1, 3)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.splitlines()) >= 50


def test_capture_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [])
    assert path.stat().st_mode & 0o777 == 0o600
