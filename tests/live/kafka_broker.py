"""A real single-node Apache Kafka in KRaft mode, from Maven Central's artifacts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

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


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Broker:
    """Start, kill, start again; data are kept until ``close``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.controller_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._jars = f"{libraries()}/*"
        (directory / "server.properties").write_text(
            "\n".join(
                (
                    "process.roles=broker,controller",
                    "node.id=1",
                    f"controller.quorum.voters=1@127.0.0.1:{self.controller_port}",
                    "controller.listener.names=CONTROLLER",
                    f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
                    f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
                    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
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
                    "",
                )
            )
        )
        identity = "AAAAAAAAAAAAAAAAAAAAAA"
        subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", "format", "-c", str(directory / "server.properties"), "-t", identity],
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )

    def _java(self) -> list[str]:
        return ["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", self._jars]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Until the port answers."""
        with open(self.directory / "broker.log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", str(self.directory / "server.properties")],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
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
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) != 0:
                    return
            time.sleep(0.05)

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
