"""`collector tail`: records as they pass."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

from collector import errors, logs
from collector.eyes.connection import Connection
from collector.eyes.text import duration, shown, size
from collector.viewing import Request

_DIRECTIONS = {"1": "in", "2": "out"}
_BODIES = (
    (">", "requestPayload", "requestPayloadEncoding"),
    (">", "requestMessagesJson", ""),
    ("<", "responsePayload", "responsePayloadEncoding"),
    ("<", "responseMessagesJson", ""),
    ("=", "events", ""),
)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]")
_NOTICE_SECONDS = 1.0


def line(record: dict[str, str]) -> str:
    """A record in one line: time, direction, process, method, host and path, status, duration, sizes, marks."""

    def field(name: str) -> str:
        return shown(str(record.get(name, "")))

    try:
        started = int(field("startTimeMs"))
        when = time.strftime("%H:%M:%S", time.localtime(started / 1000)) + f".{started % 1000:03d}"
    except (ValueError, OverflowError, OSError):
        when = "-"
    code = field("statusCode")
    path = field("path")
    host = shown(_host(record))
    part = f" part {field('part')}" if record.get("part") else ""
    marks = " ".join(_marks(record))
    return (
        f"{when} {_DIRECTIONS.get(record.get('direction', ''), '?'):3} {field('process_name') or '?'}/{field('process_id')} "
        f"{field('method')} {host if path.startswith('/') else ''}{path} {'-' if code == '0' else code} "
        f"{duration(_number(record, 'durationMs'))} {size(_number(record, 'requestSize'))}/"
        f"{size(_number(record, 'responseSize'))}{part}{' ' + marks if marks else ''}"
    )


def _number(record: dict[str, str], name: str) -> float:
    try:
        return float(record.get(name) or 0)
    except ValueError:
        return 0.0


def _host(record: dict[str, str]) -> str:
    """Short records have it; of a whole one it is among the headers of the request."""
    if "host" in record:
        return str(record["host"])
    try:
        return str(json.loads(record.get("requestHeaders", "{}")).get("host", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _marks(record: dict[str, str]) -> list[str]:
    try:
        marks = json.loads(record.get("marks", "[]"))
    except (ValueError, RecursionError):
        return []
    return [shown(str(mark)) for mark in marks] if isinstance(marks, list) else []


def bodies(record: dict[str, str]) -> Iterator[str]:
    """The lines of its payloads, each with its direction."""
    for sign, name, encoding in _BODIES:
        text = record.get(name, "")
        how = f"({shown(record[encoding])}) " if record.get(encoding) else ""
        for one in text.split("\n") if text else ():
            yield f"    {sign} {how}{shown(one)}"
            how = ""


class Output:
    """Writes to standard output. ``most`` lines, None for no end; ``done`` when there are so many."""

    def __init__(self, *, as_json: bool, with_bodies: bool, most: int | None) -> None:
        self._as_json = as_json
        self._with_bodies = with_bodies
        self._left = most
        self.done = most == 0

    def write(self, body: bytes) -> None:
        """The records of one message. Raises BrokenPipeError."""
        out: list[bytes] = []
        for raw in body.splitlines():
            if self.done:
                break
            made = self._made(raw)
            if made is None:
                continue
            out.append(made)
            if self._left is not None:
                self._left -= 1
                self.done = self._left == 0
        if out:
            sys.stdout.buffer.write(b"".join(out))
            sys.stdout.buffer.flush()

    def _made(self, raw: bytes) -> bytes | None:
        if self._as_json:
            return _CONTROL.sub(b"?", raw) + b"\n"  # there are none in a record, unless a shard was taken over
        try:
            record: Any = json.loads(raw)
        except (ValueError, RecursionError):
            return None
        if not isinstance(record, dict):
            return None
        lines = [line(record), *(bodies(record) if self._with_bodies else ())]
        return "".join(one + "\n" for one in lines).encode(sys.stdout.encoding or "utf-8", "backslashreplace")


def main(directory: str, request: Request, *, as_json: bool, with_bodies: bool, most: int | None) -> int:
    """Returns the exit code: 0 after --count, Ctrl-C, or when nobody reads any more. Raises CollectorError."""
    connection = Connection(directory, request)
    output = Output(as_json=as_json, with_bodies=with_bodies, most=most)
    try:
        _follow(connection, output)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # what Python would write at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    finally:
        connection.close()
        if connection.lost:
            logs.say(f"collector: {connection.lost} records were not shown: this reader was too slow; they were delivered")
    return errors.EXIT_OK


def _follow(connection: Connection, output: Output) -> None:
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    poll.register(1, 0)  # says when the other end of a pipe is closed, also while no record comes
    told, next_notice = 0, 0.0
    while not output.done:
        for fd, _event in poll.poll(1000):
            if fd == 1:
                raise BrokenPipeError
        for _head, body in connection.receive():
            output.write(body)
            if output.done:
                return
        if connection.lost != told and sys.stderr.isatty() and time.monotonic() > next_notice:
            logs.say(f"collector: {connection.lost - told} records not shown")
            told, next_notice = connection.lost, time.monotonic() + _NOTICE_SECONDS
