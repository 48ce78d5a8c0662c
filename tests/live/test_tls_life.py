"""TLS and the life of the collector: connections that are older, and collectors that are killed."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from collector.loader.probes import SOURCES
from collector.loader.probes.probe import Found
from tests.bench.tls import certificate
from tests.live.harness import Collector, Nginx, wait_for
from tests.live.tlsplay import Player, attached, compare

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certificates")
    certificate(found)
    return found


@pytest.mark.parametrize("identity", ["socket", "descriptor"])
def test_a_connection_that_is_older_is_joined_at_its_next_message(
    live: None, folder: Path, tmp_path: Path, identity: str
) -> None:
    player = Player(folder, "joined")
    player.go()
    assert player.process.stdout is not None
    lines = [player.process.stdout.readline() for _ in range(2)]
    collector = Collector(tmp_path, COLLECTOR_IDENTITY=identity)
    try:
        wait_for(lambda: attached(collector, "libssl.so.3"), 60)
        player.go()
        made = player.exchanges()
        assert len(made) == 3 and not set(made) & {line.split()[0] for line in lines}
        # the server's thread stood in SSL_read when the probes came: that call's return is not seen
        seen = {("2", path) for path in made} | {("1", path) for path in list(made)[1:]}
        wait_for(lambda: len(collector.records("/joined/")) >= len(seen), 20, quiet=True)
        records = collector.records("/joined/")
        assert {(r["direction"], r["path"]) for r in records} == seen and len(records) == len(seen)
        first = {direction: min(r["path"] for r in records if r["direction"] == direction) for direction in ("1", "2")}
        for record in records:
            size, port = made[record["path"]]
            assert ("joined_mid_stream" in record["mark"]) == (record["path"] == first[record["direction"]]), record
            assert (record["tls"], record["responseSize"]) == ("true", str(size))
            assert record["ip"].rpartition(":")[2] in ((str(port),) if identity == "socket" else (str(port), "0"))
    finally:
        assert collector.stop() == 0, collector.log()


def test_programs_go_on_whenever_the_collector_is_killed(live: None, folder: Path, tmp_path: Path) -> None:
    """Transfers with checksums over TLS, in C and in Python, while collectors begin, attach and are killed."""
    body = random.Random(5).randbytes(300_000)
    with tempfile.TemporaryDirectory() as name:  # one that nginx's user reaches
        answers = Path(name)
        (answers / "file").write_bytes(body)
        transfers(answers, body, folder, tmp_path)


def transfers(answers: Path, body: bytes, folder: Path, tmp_path: Path) -> None:
    nginx = Nginx(answers, f"location / {{ alias {answers}/; }}", tls=(folder / "cert.pem", folder / "key.pem"))
    before = probed(nginx.workers()[0])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stop = threading.Event()
    problems: list[object] = []
    made = [0]

    def transfer() -> None:
        while not stop.is_set():
            try:
                connection = http.client.HTTPSConnection("127.0.0.1", nginx.port, context=context, timeout=20)
                for _ in range(20):
                    connection.request("GET", "/file")
                    if connection.getresponse().read() != body:
                        problems.append("other bytes")
                    made[0] += 1
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                problems.append(error)

    threads = [threading.Thread(target=transfer) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for number, victim in enumerate(("", "collector.loader.process", "collector.shards.process", "", "")):
            (directory := tmp_path / str(number)).mkdir()
            collector = Collector(directory)
            wait_for(lambda found=collector: attached(found, "libssl.so.3"), 60)  # type: ignore[misc]
            at = made[0]
            wait_for(lambda at=at: made[0] > at + 50, 30)  # type: ignore[misc]
            if victim:
                os.kill(collector.child(victim), signal.SIGKILL)
                wait_for(lambda found=collector: "ended with -9" in found.log(), 20)  # type: ignore[misc]
                assert collector.stop() in (0, 1)
            else:
                collector.process.kill()
                collector.process.wait()
            wait_for(lambda: probed(nginx.workers()[0]) == before, 30)
        at = made[0]
        wait_for(lambda: made[0] > at + 50, 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        nginx.close()
    assert not problems, problems[:3]


def probed(pid: int) -> bytes:
    """The bytes of OpenSSL's code in a process that differ when there are probes in it."""
    (source,) = (source for source in SOURCES if source.name == "openssl")
    maps = Path(f"/proc/{pid}/maps").read_text()
    path, begin, offset = next(
        (line.split()[5], int(line.split("-")[0], 16), int(line.split()[2], 16))
        for line in maps.splitlines()
        if "/libssl.so" in line and "r-xp" in line
    )
    with open(path, "rb") as file:
        found = source.locate(ELFFile(file))
    assert isinstance(found, Found)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return b"".join(os.pread(memory.fileno(), 1, begin + site.offset - offset) for site in found.sites)


@contextlib.contextmanager
def overlay(lower: Path, folder: Path) -> Iterator[Path]:
    """What a container of an image is: its own mount of the image's files, with room for what it changes."""
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for directory in (upper, work, merged):
        directory.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


def test_two_containers_of_one_image_are_told_once_and_a_copy_too(live: None, folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    for name in ("libssl.so.3", "libcrypto.so.3"):
        shutil.copy2(Path("/usr/lib/x86_64-linux-gnu", name), image / name)
    with contextlib.ExitStack() as stack:
        mounts = [stack.enter_context(overlay(image, tmp_path / name)) for name in ("one", "two")]
        assert len({(mount / "libssl.so.3").stat().st_dev for mount in mounts}) == 2
        assert len({(mount / "libssl.so.3").stat().st_ino for mount in mounts}) == 1
        players = [Player(folder, "plain", mount) for mount in mounts]
        collector = Collector(tmp_path)
        stack.callback(lambda: collector.stop())

        def ready(count: int) -> bool:
            return len(re.findall(r"attached: library '[^']*/merged/libssl\.so\.3'", collector.log())) >= count

        wait_for(lambda: ready(1), 60)
        wait_for(lambda: re.search(r"the same file: '[^']*/merged/libssl\.so\.3'", collector.log()), 60)
        for player in players:
            player.go()
            compare(collector, player.exchanges(), "/plain/")
            collector.forget_records()
        # the second container changes its file: a copy, under the same device and inode number
        library = mounts[1] / "libssl.so.3"
        before = library.stat()
        with library.open("ab"):
            pass
        os.utime(library)
        assert library.stat().st_ino == before.st_ino
        players = [Player(folder, "plain", mount) for mount in mounts]
        wait_for(lambda: ready(2), 30)
        for player in players:
            player.go()
            compare(collector, player.exchanges(), "/plain/")
            collector.forget_records()


def test_500_processes_of_one_library(live: None, folder: Path, tmp_path: Path) -> None:
    """It is attached once, all of them are covered, and the collector ends in time with all of them there."""
    players = [Player(folder, "plain") for _ in range(500)]
    try:
        collector = Collector(tmp_path)
        try:
            wait_for(lambda: attached(collector, "libssl.so.3"), 120)
            for player in players[::50]:
                player.go()
                compare(collector, player.exchanges(), "/plain/")
                collector.forget_records()
            assert len(re.findall(r"attached: library '[^']*/libssl\.so\.3'", collector.log())) == 1
        finally:
            assert collector.stop() == 0, collector.log()
    finally:
        for player in players:
            player.process.kill()
            player.process.communicate()


def test_processes_that_live_for_a_moment_on_a_library_that_is_known(live: None, folder: Path, tmp_path: Path) -> None:
    waiting = Player(folder, "plain")
    collector = Collector(tmp_path)
    try:
        wait_for(lambda: attached(collector, "libssl.so.3"), 60)
        for _ in range(20):
            player = Player(folder, "plain")
            player.go()
            compare(collector, player.exchanges(), "/plain/")
            collector.forget_records()
    finally:
        assert collector.stop() == 0, collector.log()
        waiting.go()
        waiting.exchanges()


LATE = """
import sys
print(sys.stdin.readline(), flush=True)
import http.client, ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
print("loaded", flush=True)
sys.stdin.readline()
connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context)
for number in range(3):
    connection.request("GET", f"/late/{number}")
    assert connection.getresponse().read() == b"late"
"""


def test_a_library_that_a_process_loads_when_it_has_run_for_a_while(live: None, folder: Path, tmp_path: Path) -> None:
    """One that nobody has used before: a copy."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for name in ("libssl.so.3", "libcrypto.so.3"):
        shutil.copy2(Path("/usr/lib/x86_64-linux-gnu", name), libraries / name)
    nginx = Nginx(tmp_path, "location / { return 200 'late'; }", tls=(folder / "cert.pem", folder / "key.pem"))
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", LATE, str(nginx.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
    ) as process:
        (tmp_path / "collector").mkdir()
        collector = Collector(tmp_path / "collector")
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            while process.stdout.readline() != "loaded\n":
                pass
            wait_for(lambda: f"attached: library '{libraries}/libssl.so.3'" in collector.log(), 60)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.wait(30) == 0
            records = collector.wait_records("/late/", 6)
            assert {r["direction"] for r in records} == {"1", "2"} and not [r for r in records if r["mark"]], records
        finally:
            assert collector.stop() == 0, collector.log()
            process.kill()
            nginx.close()


# Has a name that is chosen, but for one request; what it answers to each is the request's path
RENAMED = """
import ctypes, socket, ssl, sys, threading, time
client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
server.load_cert_chain(*sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0))

def answer():
    connection = server.wrap_socket(listener.accept()[0], server_side=True)
    while request := connection.recv(1000):
        for line in request.split(b"\\r\\n\\r\\n")[:-1]:
            path = line.split()[1]
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(path), path))

def call(name):
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
    time.sleep(2)

def ask(path):
    connection.sendall(b"GET " + path + b" HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")

call(b"chosen")
threading.Thread(target=answer, daemon=True).start()
connection = client.wrap_socket(socket.create_connection(listener.getsockname()))
ask(b"/renamed/1")
connection.recv(1000)
call(b"another")
ask(b"/renamed/2")
call(b"chosen")
ask(b"/renamed/3")
while not connection.recv(1000).endswith(b"3"):
    pass
"""


def test_a_program_that_is_left_alone_for_a_while(live: None, folder: Path, tmp_path: Path) -> None:
    """What it sent meanwhile is a hole: no answer to it is taken for that to another request."""
    library = Player(folder, "plain")  # keeps the library mapped until the collector has found it
    collector = Collector(tmp_path, TRACE_COMMS="chosen")
    try:
        wait_for(lambda: attached(collector, "libssl.so.3"), 60)
        subprocess.run([sys.executable, "-c", RENAMED, folder / "cert.pem", folder / "key.pem"], check=True, timeout=60)
        wait_for(lambda: len(collector.records("/renamed/")) >= 3, 20)
    finally:
        library.go()
        library.exchanges()
        code = collector.stop()
    assert code == 0, collector.log()
    records = collector.records("/renamed/")
    assert {r["direction"] for r in records if r["path"] == r["responsePayload"] == "/renamed/1"} == {"1", "2"}
    for record in records:
        answered = record["path"] == record["responsePayload"]
        assert answered or {"pairing_uncertain", "no_response"} & set(record["mark"]), record
