"""A broker with TLS and SASL, its certificates, and a folder of keys that a client may have."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.live.certificates import PAST, Authority
from tests.live.kafka_broker import Broker

NAMES = "IP:127.0.0.1,IP:::1"  # and not localhost


@dataclass(frozen=True)
class Secured:
    """``keys`` has ca.pem and foreign.pem, which nobody trusts; and .pem and .key of client, of late, which is out of date,
    and of stranger, which foreign has signed.
    """

    broker: Broker
    keys: Path
    authority: Authority
    foreign: Authority


def make_keys(keys: Path) -> tuple[Authority, Authority]:
    """The authority, and another one that nobody trusts."""
    authority, foreign = Authority(keys, "ca"), Authority(keys, "foreign")
    authority.issue("server", names=NAMES)
    authority.issue("out-of-date", names=NAMES, valid=PAST)
    authority.issue("client")
    authority.issue("late", valid=PAST)
    foreign.issue("stranger")
    return authority, foreign


@pytest.fixture(autouse=True)
def garbage(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The client leaves sockets behind that it could not connect: let them go here, where that is known. What it logs at its
    end may be an exception, with all frames.
    """
    yield
    caplog.get_records("call").clear()
    gc.collect()


@pytest.fixture(scope="package")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder without a broker."""
    if shutil.which("openssl") is None:
        skip_or_fail("needs openssl")
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder)
    return folder


@pytest.fixture(scope="package")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The broker runs."""
    for program in ("java", "mvn", "openssl"):
        if shutil.which(program) is None:
            skip_or_fail(f"needs {program} for a Kafka broker with TLS")
    folder = tmp_path_factory.mktemp("secured")
    authority, foreign = make_keys(folder)
    shutil.copy(folder / "server-all.pem", folder / "broker.pem")
    shutil.copy(folder / "out-of-date-all.pem", folder / "expired.pem")
    shutil.copy(folder / "ca.pem", folder / "trusted.pem")
    broker = Broker(tmp_path_factory.mktemp("kafka"), folder)
    broker.start()
    yield Secured(broker, folder, authority, foreign)
    broker.close()
