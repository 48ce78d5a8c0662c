"""`collector status`: ask the collector of this node over its Unix socket."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from collector import errors, files, metrics, unsupported
from collector.supervisor.lock import OWN_NAME, STATUS_SOCKET, open_own, within

TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 1 << 22
_NOT_READ = 8  # processes that are named for people; all are in --json


_QUIC, _TLS = unsupported.QUIC.name, unsupported.TLS.name


class NoAnswerError(errors.CollectorError):
    """No collector is there, or it does not answer."""

    exit_code = errors.EXIT_NO_ANSWER


def ask(directory: str, seconds: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """What the collector whose COLLECTOR_RUNTIME_DIR is ``directory`` says of itself, each step of the conversation within
    ``seconds``. Raises NoAnswerError.
    """
    try:
        said = json.loads(page(directory, "/status", seconds))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise NoAnswerError("the collector's answer cannot be read")
    return said


def page(directory: str, name: str, seconds: float = TIMEOUT_SECONDS) -> bytes:
    """A page for the collector's own user, by its path (collector/health/pages.py), each step of the conversation within
    ``seconds``. Raises NoAnswerError.
    """
    fds: list[int] = []
    try:
        fds.append(files.open_directory(os.path.abspath(directory)))
        fds.append(open_own(fds[0]))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(seconds)
            sock.connect(within(fds[1], STATUS_SOCKET))
            sock.sendall(f"GET {name} HTTP/1.0\r\n\r\n".encode())
            answer = b""
            while len(answer) < _MOST_BYTES and (data := sock.recv(65536)):
                answer += data
    except OSError as error:
        why = getattr(error, "strerror", None) or error
        if isinstance(error, PermissionError):
            why = f"{why} (is this the user it runs as?)"
        raise NoAnswerError(f"no collector answers at {os.path.join(directory, OWN_NAME, STATUS_SOCKET)}: {why}") from None
    finally:
        for fd in fds:
            os.close(fd)
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        raise NoAnswerError(f"the collector's answer to {name} cannot be read")
    return body


def text(said: dict[str, Any]) -> str:
    """For people."""
    numbers = said["totals"]
    lines = [
        f"collector {said['version']}, process {said['pid']}",
        f"live      {'yes' if said['live'] else 'no'}: {said['live_words']}",
        f"ready     {'yes' if said['ready'] else 'no'}: {said['ready_words']}",
        f"health    {said['health_address']}" + (f": {said['health_problem']}" if said["health_problem"] else ""),
        f"policy    {said['policy']['words']}",
        "children  "
        + ", ".join(
            f"{child['name']} {child['pid'] or '-'}" + ("" if child["ready"] else " (not ready)")
            for child in said["children"]
        ),
        f"records   {numbers['records']} ({numbers['records_marked']} marked), {numbers['sink_delivered_records']} "
        f"delivered, {numbers['sink_dropped_records']} dropped, {numbers['sink_failed_records']} failed"
        + (f", {numbers['sink_spool_records']} in the spool" if numbers["sink_spool_records"] else ""),
        f"events    {numbers['events']}, {numbers['loader_kernel_dropped_events']} lost, {numbers['holes']} holes",
        f"memory    {numbers['supervisor_memory_pss_bytes'] >> 20} MiB",
    ]
    lines += [f"not read  {what}" for what in not_read(said)]
    return "\n".join([*lines, *(f"note      {note}" for note in said["notes"])]) + "\n"


def not_read(said: dict[str, Any]) -> list[str]:
    """Traffic that was noticed and cannot be captured, by process, in words; the most connections first."""
    rows = sorted(said["unsupported"], key=lambda row: -row[3])
    out = [f"{process}: {number} QUIC connections as a {role}" for name, role, process, number in rows if name == _QUIC]
    out += [f"{process}: {number} TLS connections by {library}" for name, library, process, number in rows if name == _TLS]
    words = {label: what for label, what in metrics.UNSEEN_REASONS.values() if label != "quic"}  # its connections are above
    out += [f"{unsupported.clean(process)}: {words[why]}" for process, why, _number in said["unseen"] if why in words]
    return out if len(out) <= _NOT_READ else [*out[:_NOT_READ], f"and {len(out) - _NOT_READ} more: --json"]


def main(directory: str, *, live: bool, as_json: bool) -> int:
    """Returns the exit code. Raises NoAnswerError."""
    said = ask(directory)
    sys.stdout.write(json.dumps(said) + "\n" if as_json else text(said))
    return errors.EXIT_OK if said["live" if live else "ready"] else errors.EXIT_FAILURE
