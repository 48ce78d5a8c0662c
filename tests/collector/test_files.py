"""Recorded traffic: capture files, streams, and the replay command over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector import abi
from collector.errors import DamagedFileError
from collector.loader import capturefile, streams
from tests.events import GET, OK, validate

CONN = (9 << 12, 42, 7)


def write_capture(path: Path, spans: list[bytes], limit: int = 1 << 30) -> capturefile.Writer:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    writer = capturefile.Writer(fd, 2, limit)
    for span in spans:
        writer.write(0, span, 10**18)
    os.close(fd)
    return writer


def exchange(conn: tuple[int, int, int], ts: int = 1000) -> bytes:
    return (abi.pack_open(conn, ts_ns=ts, local=("10.0.0.1", 80), remote=("10.0.0.2", 5))
            + abi.pack_data(conn, abi.IN, 0, GET, ts_ns=ts + 1) + abi.pack_data(conn, abi.OUT, 0, OK, ts_ns=ts + 2))


def replay(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "collector", "replay", *arguments], capture_output=True, text=True,
                          timeout=60, env={**os.environ, **environment})


def test_capture_round_trip_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [b"one", b"two"])
    assert [s.data for s in capturefile.read(str(path))] == [b"one", b"two"]
    writer = write_capture(path, [b"x" * 100] * 5, limit=400)
    assert writer.skipped_bytes > 0 and path.stat().st_size <= 400


@pytest.mark.parametrize(("damage", "offset"), [
    (lambda d: d[:-1], "ends inside a block"), (lambda d: d[:-200] + b"!" + d[-199:], "CRC"),
    (lambda d: b"x" + d[1:], "not a capture"), (lambda d: d[:56], "block header"), (lambda d: d[:40], "inside the header")])
def test_damaged_capture_names_the_offset_and_gives_what_was_readable(tmp_path: Path, damage, offset: str) -> None:  # noqa: ANN001
    path = tmp_path / "a.cap"
    write_capture(path, [exchange(CONN), exchange((10 << 12, 42, 8))])
    path.write_bytes(damage(path.read_bytes()))
    spans = []
    with pytest.raises(DamagedFileError, match=offset) as error:  # noqa: PT012 - what came before it is kept
        for span in capturefile.read(str(path)):
            spans.append(span)
    assert "offset" in str(error.value)


def test_replay_of_a_capture_and_of_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [exchange(CONN), exchange((10 << 12, 42, 8), 5000)])
    done = replay(str(path))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    path.write_bytes(path.read_bytes()[:-5])
    done = replay(str(path))
    assert done.returncode == 65 and len(done.stdout.splitlines()) == 1 and "offset" in done.stderr


def stream_lines(*items: dict) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def data(direction: str, t: float, text: bytes) -> dict:
    import base64

    return {"dir": direction, "t": t, "data_b64": base64.b64encode(text).decode()}


HEAD = {"connection": 0, "client": "10.0.0.1:40000", "server": "[fd00::2]:80", "start": "syn", "epoch": 1_700_000_000.5}


def test_streams_become_records(tmp_path: Path) -> None:
    path = tmp_path / "a.streams.jsonl"
    path.write_text(stream_lines(
        HEAD, data("c2s", 0, GET), data("s2c", 0.25, OK),
        {**HEAD, "connection": 1, "start": "mid"}, data("c2s", 0.1, GET), {"dir": "s2c", "t": 0.2, "gap": 100},
        data("s2c", 0.3, OK), {"dir": "c2s", "t": 0.4, "end": "fin"}, {"dir": "s2c", "t": 0.4, "end": "fin"},
        {**HEAD, "connection": 2}, data("c2s", 0.15, b"GET /open HTTP/1.1\r\n\r\n")))
    done = replay(str(path))
    assert done.returncode == 0, done.stderr
    records = [validate(json.loads(line)) for line in done.stdout.splitlines()]
    # in the order of their ends: an unanswered request ended with its own last byte
    assert [(r["path"], r["socket_id"], sorted(r["words"])) for r in records] == [
        ("/open", "2", ["no_response"]), ("/x", "0", []), ("/x", "1", [
            "joined_mid_stream", "pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain"])]
    assert records[1]["time"] == "1700000000" and records[1]["durationMs"] == "250.000"
    assert (records[1]["ip"], records[1]["destIp"]) == ("10.0.0.1:40000", "[fd00::2]:80")


@pytest.mark.parametrize("bad", ["{", '{"dir":"c2s","t":0,"data_b64":"*"}', '{"dir":"up","t":0,"end":"fin"}', "[]",
                                 '{"dir":"c2s","t":-1,"gap":3}', '{"dir":"c2s","t":0}'])
def test_damaged_streams_file(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.streams.jsonl"
    path.write_text(stream_lines(HEAD, data("c2s", 0, GET), data("s2c", 0.25, OK)) + bad + "\n")
    file = streams.StreamsFile(str(path))
    assert file.error is not None and "line 4, offset" in str(file.error)
    assert len(list(file.events(1, 10**9))) == 3


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
