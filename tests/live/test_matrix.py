"""Real servers and clients of many kinds: what they exchanged is what the records say.

Each row of KINDS gets numbered exchanges (tests/live/matrix/traffic.py), and then each record is compared with what is
known: none missing, none wrong, no marks, true addresses, the process that answered (tests/live/matrix/verdict.py).

MATRIX_SCALE=10 makes ten times as many exchanges; MATRIX_HOOKS=tpx,raw goes through all with both kinds of hooks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness import Collector
from tests.live.matrix.scenarios import Kind, beast_calls, through_varnish, with_io_uring
from tests.live.matrix.starting import busybox, compiled, inetd, python, script

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

MANY = (3_000, 20_000, 5_000, 60_000)
LONG = (200_000, 40, 200_000, 30_000, 600)

KINDS = (
    # accepted here, served there
    Kind("node_cluster", "Node cluster: two workers, to whom the primary passes connections", script("node", "cluster.js")),
    Kind("python_forking", "Python's http.server with ForkingMixIn", python("forking")),
    Kind("perl_forking", "Perl's HTTP::Daemon, a fork for each connection", script("perl", "daemon.pl")),
    Kind(
        "busybox",
        "busybox httpd with CGI: a fork for each connection, which passes on what the program prints",
        busybox,
        keep_alive=False,
        prefix="/cgi-bin/answer",
    ),
    Kind(
        "socat",
        "socat: fork, dup to 0 and 1, exec in place",
        inetd("socat", "TCP-LISTEN:PORT,bind=127.0.0.1,reuseaddr,backlog=512,fork", "EXEC:ANSWER,nofork"),
    ),
    Kind("tcpserver", "tcpserver: fork, dup to 0 and 1, exec", inetd("tcpserver", "-HRl0", "127.0.0.1", "PORT", "ANSWER")),
    Kind(
        "systemd_inetd",
        "systemd-socket-activate: accept, fork, dup to 0 and 1, exec",
        inetd("systemd-socket-activate", "--inetd", "-a", "-l", "127.0.0.1:PORT", "ANSWER"),
    ),
    Kind("passed", "a Python process sends accepted sockets to another by SCM_RIGHTS", python("passed")),
    Kind("dup", "an accepted socket is dup'd and closed before the first byte", python("dup")),
    Kind("getfd", "a process takes accepted sockets out of another by pidfd_getfd", python("getfd")),
    # one connection, two processes
    Kind("turns", "two processes answer the requests of one connection in turn", python("turns")),
    Kind("halves", "one process reads the requests of a connection, another answers", python("halves")),
    # runtimes, and calls with many buffers
    Kind("uvicorn", "uvicorn with uvloop", python("uvicorn")),
    Kind(
        "node_writes",
        "Node: 400 small writes in one turn, so a writev of over a thousand buffers",
        script("node", "writes.js"),
        sizes=MANY,
    ),
    Kind("netty", "Netty with epoll: answers of many small buffers", compiled("netty"), sizes=LONG),
    Kind("axum", "axum on hyper: answers streamed in many chunks", compiled("axum"), sizes=LONG),
    # clients whose first buffer is shorter than the method and its blank
    Kind("varnish", "Varnish before a small server: writev of `GET`, ` `, `/...`", python("plain"), run=through_varnish),
    Kind("beast", "Boost.Beast calls a small server: sendmsg of `GET`, ` /...`", python("plain"), run=beast_calls),
    # io_uring: the client's side is right; a wrong pair on the server's says `pairing_uncertain`; it is counted
    Kind("uring", "a server that accepts, receives and sends by io_uring only", compiled("uring"), run=with_io_uring),
    Kind("mixed", "a server that writes every second answer by io_uring", compiled("mixed"), run=with_io_uring),
)


@pytest.fixture(scope="module", params=os.environ.get("MATRIX_HOOKS", "tpx").split(","))
def collector(live: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Collector]:
    c = Collector(
        tmp_path_factory.mktemp("matrix"),
        COLLECTOR_HOOKS=request.param,
        COLLECTOR_BODY_BYTES="262144",
        COLLECTOR_RING_BYTES=str(64 << 20),
    )
    yield c
    assert c.stop() == 0, c.log()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kind(collector: Collector, kind: Kind, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    kind.run(collector, kind, tmp_path)
