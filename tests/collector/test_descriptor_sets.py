"""COLLECTOR_GRPC_DESCRIPTORS: read at the start or refused by name, and the same in a shard that can open nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from collector import config, descriptor_sets, errors, memory_plan
from collector.errors import ConfigError
from tests.collector.test_command_line import run
from tests.collector.test_files import HEAD, data, replay, stream_lines
from tests.protobuf import OLD, RICH, as_json, descriptor_set, rich

VARIABLE = descriptor_sets.VARIABLE


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Of two descriptor sets."""
    out = [tmp_path / "rich.binpb", tmp_path / "old.binpb"]
    for path, names in zip(out, (RICH, OLD), strict=True):
        path.write_bytes(descriptor_set(*names))
    return out


def test_what_is_read_is_what_a_shard_receives(files: list[Path]) -> None:
    sets = descriptor_sets.read(",".join(map(str, files)))
    assert descriptor_sets.summary(sets) == f"{files[0]}: 1 service, {files[1]}: 1 service"
    assert descriptor_sets.size(sets) == sum(path.stat().st_size for path in files)
    fd = descriptor_sets.share(sets)
    assert fd is not None
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    assert descriptor_sets.received(fd) == [path.read_bytes() for path in files]
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_without_any_there_is_nothing() -> None:
    assert descriptor_sets.read("") == [] and descriptor_sets.share([]) is None


def test_what_cannot_be_read_is_refused_by_name(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files[0].parent
    (folder / "text").write_text("syntax")
    os.mkfifo(folder / "pipe")
    for name, why in (
        ("absent", "No such file or directory"),
        ("", "Is a directory"),
        ("pipe", "is no regular file"),
        ("text", "is no FileDescriptorSet"),
    ):
        with pytest.raises(ConfigError) as error:
            descriptor_sets.read(f"{files[0]},{folder / name}")
        assert str(error.value).startswith(f"{VARIABLE}: {folder / name}: {why}")
    monkeypatch.setattr(descriptor_sets, "MOST_BYTES", files[0].stat().st_size + 10)
    with pytest.raises(ConfigError, match="more than"):
        descriptor_sets.read(f"{files[0]},{files[1]}")


def test_commands_refuse_one_that_cannot_be_used(files: list[Path]) -> None:
    broken = files[0].parent / "broken"
    broken.write_bytes(descriptor_set(*RICH, imports=False))
    for command in (["run", "--output", "null"], ["config"], ["replay", str(files[0])]):
        done = run(*command, **{VARIABLE: str(broken)})
        assert done.returncode == errors.EXIT_CONFIG, command
        assert f"{VARIABLE}: {broken}: 'rich.proto' imports " in done.stderr
    rows = {row["need"]: row for row in json.loads(run("check", "--json", **{VARIABLE: str(broken)}).stdout)["checks"]}
    assert rows["descriptor sets"]["state"] == "MISSING" and "imports" in rows["descriptor sets"]["detail"]


def test_commands_say_how_many_services_there_are(files: list[Path]) -> None:
    done = run("config", **{VARIABLE: f" {files[0]} , {files[1]}"})
    assert done.returncode == 0 and f"{files[0]}: 1 service, {files[1]}: 1 service" in done.stderr
    rows = {row["need"]: row for row in json.loads(run("check", "--json", **{VARIABLE: str(files[0])}).stdout)["checks"]}
    assert rows["descriptor sets"]["detail"] == f"{files[0]}: 1 service"


def test_shards_plan_with_their_memory() -> None:
    loaded = config.load({"COLLECTOR_SHARDS": "2"})
    without, with_them = memory_plan.of(loaded), memory_plan.of(loaded, descriptors=10 << 20)
    assert with_them.at_rest - without.at_rest == 2 * (memory_plan.PROTOBUF_BYTES + (20 << 20))


def test_shards_of_a_replay_have_them(files: list[Path]) -> None:
    """Real processes, without privilege and confined; each recorded file has a decoder of its own."""
    message = rich(a_string="x", numbers=[1, 2])
    message.any.Pack(rich(an_int64=7))
    body = message.SerializeToString()
    head = b"Content-Type: application/proto\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    lines = stream_lines(
        HEAD,
        data("c2s", 0, b"POST /rich.v1.Rich/One HTTP/1.1\r\nHost: a\r\n" + head),
        data("s2c", 1, b"HTTP/1.1 200 OK\r\n" + head),
    )
    recordings = [files[0].parent / f"{n}.streams.jsonl" for n in range(2)]
    for path in recordings:
        path.write_text(lines)
    done = replay(*map(str, recordings), "--shards", "2", **{VARIABLE: f"{files[1]},{files[0]}"})
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 2
    for record in records:
        for side in ("request", "response"):
            assert json.loads(record[f"{side}MessagesJson"]) == [as_json(message, *RICH)]
    assert "requestMessagesJson" not in replay(str(recordings[0])).stdout


def test_sets_of_megabytes_reach_the_shards(files: list[Path]) -> None:
    """Too long for a message between processes. What is not asked for is not built."""
    large = descriptor_pb2.FileDescriptorSet()
    for n in range(100):
        file = large.file.add(name=f"{n}.proto", package=f"area{n}", syntax="proto3")
        for m in range(40):
            kind = file.message_type.add(name=f"Message{m}")
            for k in range(20):
                kind.field.add(name=f"a_field_with_a_name_{k}", number=k + 1, label=1, type=9)
    large.MergeFromString(files[0].read_bytes())
    files[0].write_bytes(large.SerializeToString())
    assert files[0].stat().st_size > 2 << 20
    recording = files[0].parent / "a.streams.jsonl"
    body = rich(a_string="x").SerializeToString()
    head = b"Content-Type: application/proto\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    asked = b"POST /rich.v1.Rich/One HTTP/1.1\r\nHost: a\r\n" + head
    recording.write_text(stream_lines(HEAD, data("c2s", 0, asked), data("s2c", 1, b"HTTP/1.1 200 OK\r\n" + head)))
    done = replay(str(recording), **{VARIABLE: str(files[0])})
    assert done.returncode == 0, done.stderr
    assert json.loads(json.loads(done.stdout)["responseMessagesJson"]) == [{"aString": "x"}]


CONFINED = """
import json, sys
from collector import confine, descriptor_sets, runtime
from collector.shards.records.descriptors import Methods
fd = int(sys.argv[1])
opened = []
runtime.drop_privileges(None)
confine.limit_files(())
methods = Methods(descriptor_sets.received(fd))
confine.limit_calls(confine.SHARD)
sys.addaudithook(lambda event, arguments: opened.append(arguments) if event in ("open", "import") else None)
message = sys.stdin.buffer.read()
text, failed, work = methods.json_of(b"/rich.v1.Rich/One", True, [message, b"\\xff", message], 1 << 20, 1 << 40)
assert failed == 1, text
assert opened == [], opened
sys.stdout.buffer.write(text)
"""


def test_the_first_message_opens_no_file(files: list[Path]) -> None:
    """The library imports some of its modules in functions; all well-known types are in this message."""
    message = rich(a_string="é", colours=[1, 99], by_number={1: {"count": 2}}, a_float=0.1)
    message.at.FromJsonString("2026-01-02T03:04:05Z")
    message.took.FromJsonString("1.5s")
    message.mask.FromJsonString("aName")
    message.struct.update({"a": [1, None]})
    message.list.extend([1, "x"])
    message.maybe.value = 3
    message.maybe_bytes.value = b"x"
    message.any.Pack(message.at)
    fd = descriptor_sets.share(descriptor_sets.read(str(files[0])))
    assert fd is not None
    try:
        done = subprocess.run(
            [sys.executable, "-c", CONFINED, str(fd)],
            input=message.SerializeToString(),
            capture_output=True,
            timeout=60,
            pass_fds=[fd],
        )
    finally:
        os.close(fd)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == [as_json(message, *RICH), None, as_json(message, *RICH)]
