"""The viewer's end: from the command line to the collector of this node (collector/viewing.py)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from collector import errors, files, viewing
from collector.errors import ProtocolError
from collector.status import NoAnswerError
from collector.supervisor.lock import OWN_NAME, open_own, within
from collector.viewing import VIEW_SOCKET, Request

TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 4 << 20  # of one message
_AT_ONCE = 64


class RefusedError(errors.CollectorError):
    """The collector does not take this viewer."""

    exit_code = errors.EXIT_FAILURE


class EndedError(errors.CollectorError):
    """The collector has ended."""

    exit_code = errors.EXIT_NO_ANSWER


class Connection:
    """To the collector whose COLLECTOR_RUNTIME_DIR is ``directory``. Raises NoAnswerError, RefusedError."""

    def __init__(self, directory: str, request: Request) -> None:
        self.sock = _connect(directory)
        self._lost: dict[int, int] = {}  # by shard, of this life of it
        self.lost = 0  # what was not shown, from the beginning
        self.shards = 1
        try:
            self.sock.sendall(json.dumps(request.to_message()).encode())
            answer, _ = viewing.unpack(self.sock.recv(_MOST_BYTES))
        except (OSError, ProtocolError) as error:
            self.sock.close()
            raise NoAnswerError(f"the collector does not answer: {getattr(error, 'strerror', None) or error}") from None
        if answer.get("refused"):
            self.sock.close()
            raise RefusedError(f"the collector refuses: {answer['refused']}")
        self.shards = int(answer.get("shards", 1))
        self.sock.setblocking(False)

    def receive(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The messages that are here, at most some. Raises EndedError."""
        for _ in range(_AT_ONCE):
            try:
                data = self.sock.recv(_MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                raise EndedError("the collector has ended")
            try:
                head, body = viewing.unpack(data)
                self._count(head)
            except (ProtocolError, KeyError, TypeError, ValueError):
                continue  # a shard that was taken over can say anything; it is no reason to end
            yield head, body

    def _count(self, head: dict[str, Any]) -> None:
        """What a new life of a shard has lost begins at zero."""
        shard, lost = int(head["shard"]), int(head["lost"])
        last = self._lost.get(shard, 0)
        self.lost += lost - last if lost >= last else lost
        self._lost[shard] = lost

    def close(self) -> None:
        """Go."""
        self.sock.close()


def _connect(directory: str) -> socket.socket:
    """Raises NoAnswerError."""
    fds: list[int] = []
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(TIMEOUT_SECONDS)
        fds.append(files.open_directory(os.path.abspath(directory)))
        fds.append(open_own(fds[0]))
        sock.connect(within(fds[1], VIEW_SOCKET))
    except OSError as error:
        sock.close()
        why = error.strerror or str(error)
        if isinstance(error, PermissionError):
            why = f"{why} (is this the user it runs as?)"
        raise NoAnswerError(f"no collector answers at {os.path.join(directory, OWN_NAME, VIEW_SOCKET)}: {why}") from None
    finally:
        for fd in fds:
            os.close(fd)
    return sock
