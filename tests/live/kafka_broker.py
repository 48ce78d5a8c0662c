"""A real single-node Apache Kafka in KRaft mode, from Maven Central's artifacts."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from collector.config import IGNORED_PORTS
from tests.conftest import skip_or_fail

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "collector-tests"
VERSION = "4.3.1"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
<scope>runtime</scope></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version>
<scope>runtime</scope></dependency></dependencies></project>"""
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def libraries() -> Path:
    """The folder of jars, fetched once."""
    target = CACHE / f"kafka-{VERSION}"
    if not (target / ".complete").exists():
        target.mkdir(parents=True, exist_ok=True)
        (target / "pom.xml").write_text(_POM)
        subprocess.run(
            [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(target / "pom.xml"),
                _PLUGIN,
                "-DincludeScope=runtime",
                f"-DoutputDirectory={target}",
            ],
            check=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        (target / ".complete").touch()
    return target


def classes() -> Path:
    """The JVM's archive of Kafka's classes as it has them in memory, made once: with it a broker starts in two thirds of the
    time and half of the CPU time. (A JVM that cannot use it reads the classes as without.)
    """
    java = Path(shutil.which("java") or "").resolve()
    target = CACHE / f"kafka-{VERSION}-{zlib.crc32(f'{java} {java.stat().st_mtime_ns}'.encode()):08x}.jsa"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=libraries().parent) as name:
            one = Broker(Path(name), jvm=f"-XX:ArchiveClassesAtExit={name}/classes")
            one.start()
            one.end()
            (Path(name) / "classes").replace(target)
    return target


def needs_broker() -> None:
    """Skip the test, or fail, where a broker cannot be started."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            skip_or_fail(f"needs {program} for a Kafka broker")


_PORTS = sorted(set(range(11000, 32000)) - set(IGNORED_PORTS))


def free_port() -> int:
    """A TCP port that nobody uses now, and that no client is given before its server is there: it is not one of those that
    the kernel hands out (net.ipv4.ip_local_port_range begins with 32768).
    """
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


USER, PASSWORDS = "alice", {"PLAIN": "plain-secret", "SCRAM-SHA-256": "secret-256", "SCRAM-SHA-512": "secret-512"}
_MODULES = {"PLAIN": "plain.PlainLoginModule", "SCRAM": "scram.ScramLoginModule"}
# name of a listener (which gets a port) -> protocol, host
SECURED = {
    "SSL": ("SSL", "127.0.0.1"),  # with client certificates
    "SIX": ("SSL", "[::1]"),  # the same
    "EXPIRED": ("SSL", "127.0.0.1"),  # its certificate is out of date
    "SASL_PLAINTEXT": ("SASL_PLAINTEXT", "127.0.0.1"),
    "SASL_SSL": ("SASL_SSL", "127.0.0.1"),
}


def _secured(keys: Path) -> list[str]:
    """Properties of the listeners of SECURED: TLS with broker.pem (key and certificate), clients as trusted.pem has it; the
    mechanisms of PASSWORDS.
    """
    out = [
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={keys}/broker.pem",
        "ssl.truststore.type=PEM",
        f"ssl.truststore.location={keys}/trusted.pem",
        "ssl.client.auth=required",
        "listener.name.sasl_ssl.ssl.client.auth=none",
        "listener.name.expired.ssl.client.auth=none",
        "listener.name.expired.ssl.keystore.type=PEM",
        f"listener.name.expired.ssl.keystore.location={keys}/expired.pem",
        f"sasl.enabled.mechanisms={','.join(PASSWORDS)}",
        "connection.failed.authentication.delay.ms=0",
    ]
    for listener in ("sasl_plaintext", "sasl_ssl"):
        for name, password in PASSWORDS.items():
            module = f"org.apache.kafka.common.security.{_MODULES[name.partition('-')[0]]} required"
            user = f' user_{USER}="{password}"' if name == "PLAIN" else ""
            out.append(f"listener.name.{listener}.{name.lower()}.sasl.jaas.config={module}{user};")
    return out


def _takes_connections(address: str) -> bool:
    """HOST:PORT, an IPv6 address in brackets."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


class Broker:
    """Start, kill, start again; data are kept until ``close``. With ``keys``, a folder of broker.pem, expired.pem and
    trusted.pem, there are the listeners of SECURED as well; ``at`` has their addresses. ``first``: the broker of a cluster
    that is its controller, if this is not that one; ``node``: its number there. ``host`` is where it is reached, and
    ``inside`` the command that starts it there. ``jvm``: an option in place of that for `classes`.
    """

    def __init__(
        self,
        directory: Path,
        keys: Path | None = None,
        *,
        node: int = 1,
        first: Broker | None = None,
        host: str = "127.0.0.1",
        inside: Sequence[str] = (),
        jvm: str = "",
    ) -> None:
        self.directory = directory
        self.host, self.node = host, node
        self._inside = inside
        self._jvm = jvm or f"-XX:SharedArchiveFile={classes()}"
        secured = SECURED if keys is not None else {}
        self.at = {name: f"{host}:{free_port()}" for name, (_protocol, host) in secured.items()}
        listeners = "".join(f",{name}://{address}" for name, address in self.at.items())
        protocols = "".join(f",{name}:{protocol}" for name, (protocol, _host) in secured.items())
        self.port = free_port()
        self.controller_port: int = free_port() if first is None else first.controller_port
        roles = "broker" if first is not None else "broker,controller"
        controller = "" if first is not None else f",CONTROLLER://127.0.0.1:{self.controller_port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._jars = f"{libraries()}/*"
        (directory / "server.properties").write_text(
            "\n".join(
                (
                    f"process.roles={roles}",
                    f"node.id={node}",
                    f"controller.quorum.voters=1@127.0.0.1:{self.controller_port}",
                    "controller.listener.names=CONTROLLER",
                    f"listeners=PLAINTEXT://{host}:{self.port}{controller}{listeners}",
                    f"advertised.listeners=PLAINTEXT://{host}:{self.port}{listeners}",
                    f"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}",
                    "inter.broker.listener.name=PLAINTEXT",
                    f"log.dirs={directory}/data",
                    "offsets.topic.replication.factor=1",
                    "transaction.state.log.replication.factor=1",
                    "transaction.state.log.min.isr=1",
                    "broker.session.timeout.ms=2000",
                    "broker.heartbeat.interval.ms=500",
                    "log.cleaner.enable=false",
                    "num.partitions=3",
                    "auto.create.topics.enable=true",
                    *([] if keys is None else _secured(keys)),
                    "",
                )
            )
        )
        identity = ["-t", "AAAAAAAAAAAAAAAAAAAAAA"]
        for name, password in PASSWORDS.items() if keys is not None else ():
            if name != "PLAIN":
                identity += ["--add-scram", f"{name}=[name={USER},password={password}]"]
        subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", "format", "-c", str(directory / "server.properties"), *identity],
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )

    def _java(self) -> list[str]:
        options = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", self._jvm]
        return ["java", *options, "-cp", self._jars]

    def alter(self, *arguments: str) -> None:
        """As kafka-configs.sh --alter."""
        command = ["java", "-cp", self._jars, "kafka.admin.ConfigCommand", "--bootstrap-server", self.address, "--alter"]
        subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=60)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def answers(self) -> bool:
        """Does it take connections?"""
        return _takes_connections(self.address)

    def start(self) -> None:
        """Until every listener answers: the broker opens one after the other."""
        with open(self.directory / "broker.log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, *self._java(), "kafka.Kafka", str(self.directory / "server.properties")],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if all(map(_takes_connections, (self.address, *self.at.values()))):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError("the broker did not start: " + (self.directory / "broker.log").read_text()[-2000:])

    def kill(self) -> None:
        """kill -9, and wait until the port refuses: a dying process answers for a moment."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        while self.answers():
            time.sleep(0.05)

    def end(self) -> None:
        """Let it end by itself."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)
        self._process = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end: it is there, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.directory / "data", ignore_errors=True)
