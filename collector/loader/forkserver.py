"""A process with all imports done, which forks a child for each file that probe sources are to read.

Starting Python for each file would take longer than reading most of them. The server itself reads no byte of a file and has
no descriptor of one: it is told which sources are asked, forks, and leaves the child one end of a socket pair. The child
becomes another user without capabilities, bounded in memory and time; only then it takes the descriptor from the pair,
writes a line for each source (locate.py), and ends. One file, one life.

    loader -> server    {"job": NUMBER, "sources": [NAME, ...]} with the child's end; {"kill": NUMBER}
    loader -> child     the descriptor
    child -> loader     a line for each source: [NAME, answer]

The server ends with its channel, and its children with it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from collector import control
from collector.loader import decode, locate
from collector.loader.probes import sources as probe_sources
from collector.loader.probes.probe import Source

_BEGIN = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from collector.loader import forkserver
forkserver.main()
"""
_REAP_SECONDS = 0.2


# ---- the loader's side


class Job:
    """A child that reads one file, as the loader sees it."""

    def __init__(self, number: int, channel: socket.socket) -> None:
        self.number = number
        self.overdue = False
        self._channel = channel
        self._deadline = time.monotonic() + locate.WAIT_SECONDS
        self._data = b""
        channel.setblocking(False)

    def poll(self) -> list[bytes] | None:
        """The whole lines that it wrote, once it has ended. Never blocks. If it is ``overdue`` then, it must be killed."""
        while len(self._data) <= locate.ANSWER_BYTES:
            try:
                piece = self._channel.recv(65536)
            except BlockingIOError:
                if time.monotonic() <= self._deadline:
                    return None
                self.overdue = True
                break
            except OSError:
                break
            if not piece:
                break
            self._data += piece
        else:
            self.overdue = True
        self._channel.close()
        return self._data.split(b"\n")[:-1]

    def close(self) -> None:
        """Let go of it."""
        self._channel.close()

    def fileno(self) -> int:
        """What becomes readable when there is something to poll for."""
        return self._channel.fileno()


class Server:
    """``modules``: those of the further sources; ``uid``: the user that children become, None when there is none: they only
    lose their capabilities. Raises OSError.
    """

    def __init__(self, modules: Sequence[str], uid: int | None) -> None:
        self._number = 0
        self._channel, theirs = control.pair()
        path = [str(Path(__file__).resolve().parents[2]), *(part for part in sys.path if part)]
        arguments = [json.dumps(path), str(theirs.fileno()), str(-1 if uid is None else uid), *modules]
        try:
            self._process = subprocess.Popen(
                # isolated and without site: nothing of the environment, and half of the time to start
                [sys.executable, "-I", "-S", "-c", _BEGIN, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            self._channel.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ended(self) -> bool:
        """Has it ended by itself?"""
        return self._process.poll() is not None

    def read(self, file: int, sources: Sequence[str]) -> Job:
        """Have a file read by these sources; the caller keeps the descriptor. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(ours, [b"\0"], [file])
                control.send(self._channel, {"job": self._number + 1, "sources": list(sources)}, [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        self._number += 1
        return Job(self._number, ours)

    def kill(self, job: Job) -> None:
        """End a child."""
        with contextlib.suppress(OSError):
            control.send(self._channel, {"kill": job.number})

    def close(self) -> None:
        """End all of it."""
        self._channel.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# ---- the server


def _child(pair: socket.socket, uid: int | None, asked: Sequence[Source]) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # whoever makes it use too much memory: it, and nobody else
    locate.confine(uid)
    _data, fds, _flags, _address = socket.recv_fds(pair, 1, 1)
    for source in asked:
        try:
            answer = locate.answer(source, fds[0])
        except Exception as error:  # a damaged file may make it raise anything
            answer = {"unsupported": f"the file could not be read: {type(error).__name__}"}
        line = json.dumps([source.name, answer])
        pair.sendall(line.encode() + b"\n")


class _Children:
    def __init__(self) -> None:
        self._by_pid: dict[int, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def add(self, pid: int, job: int) -> None:
        self._by_pid[pid] = job, time.monotonic() + locate.WAIT_SECONDS

    def kill(self, job: int) -> None:
        for pid, (number, _deadline) in self._by_pid.items():
            if number == job:
                os.kill(pid, signal.SIGKILL)

    def reap(self) -> None:
        """Those that have ended; those that should have are killed."""
        for pid, (_job, deadline) in list(self._by_pid.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._by_pid[pid]
            elif time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        for pid in self._by_pid:
            os.kill(pid, signal.SIGKILL)
        for pid in self._by_pid:
            os.waitpid(pid, 0)


def serve(channel: socket.socket, uid: int | None, sources: Sequence[Source]) -> None:
    """Until the channel ends."""
    by_name = {source.name: source for source in sources}
    children = _Children()
    gc.collect()
    gc.freeze()  # its children share what it has
    while True:
        ready = control.readable(channel, _REAP_SECONDS if children else None)
        children.reap()
        if not ready:
            continue
        received = control.receive(channel)
        if received is None:
            break
        message, fds = received
        if "kill" in message:
            children.kill(message["kill"])
            continue
        pair = socket.socket(fileno=fds[0])
        asked = [by_name[name] for name in message["sources"]]
        pid = os.fork()
        if not pid:
            status = 1
            try:
                channel.close()
                _child(pair, uid, asked)
                status = 0
            finally:
                os._exit(status)
        pair.close()
        children.add(pid, message["job"])
    children.end()


def main() -> None:
    """Entry of the server."""
    import elftools.elf.elffile  # noqa: F401  (here, once)
    import elftools.elf.sections  # noqa: F401

    decode.decoder()  # the same

    # the terminal signals the whole group: the order of the end is the loader's business
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(channel.fileno(), False)
    uid = int(sys.argv[3])
    serve(channel, None if uid < 0 else uid, probe_sources(sys.argv[4:]))
