"""What the log says of a broker that takes nothing: the cause, within five seconds, and not a line more each second."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from collector.sink.kafka import causes
from collector.sink.kafka.causes import Causes
from collector.sink.kafka.security import Security
from tests.collector.sink.kafka.client import Environment, sasl, secured_by, tls
from tests.collector.sink.kafka.conftest import Secured
from tests.collector.sink.kafka.test_destination import batch, delivery, settings
from tests.live.harness import wait_for
from tests.live.kafka_broker import free_port

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::ResourceWarning")]

SECONDS = 5.0


def wrong_password(mechanism: str, keys: Path, *, encrypted: bool) -> Environment:
    return {**(tls(keys) if encrypted else {}), **sasl(mechanism, "not-the-password")}


FAULTS: dict[str, tuple[str, Callable[[Path], Environment], str]] = {
    "wrong-ca": (
        "SSL",
        lambda keys: tls(keys, "client", ca="foreign"),
        r"the broker's certificate is not signed by an authority in /\S+/foreign.pem \(.*unable to get local issuer",
    ),
    "no-ca": (
        "SSL",
        lambda keys: {**tls(keys, "client"), "COLLECTOR_KAFKA_TLS_CA_FILE": ""},
        "not signed by an authority in the system's store, and COLLECTOR_KAFKA_TLS_CA_FILE is not set",
    ),
    "wrong-name": (
        "SSL localhost",
        lambda keys: tls(keys, "client"),
        "the broker's certificate is for another name .*not valid for 'localhost'",
    ),
    "broker-expired": ("EXPIRED", tls, r"the broker's certificate.* has expired \(its own on 2024-02-01 00:00:00 UTC\)"),
    "client-expired": (
        "SSL",
        lambda keys: tls(keys, "late"),
        r"the broker refuses our certificate /\S+/late.pem .*: it expired on 2024-02-01",
    ),
    "client-unknown": (
        "SSL",
        lambda keys: tls(keys, "stranger"),
        r"the broker refuses our certificate /\S+/stranger.pem .*: is it signed by an authority that the broker knows",
    ),
    "no-client-certificate": ("SSL", tls, "the broker wants a client certificate, and COLLECTOR_KAFKA_TLS_CERT_FILE is not"),
    "clear-text-to-tls": ("SSL", lambda _keys: {}, "it speaks TLS on this port, and COLLECTOR_KAFKA_TLS is not on"),
    "tls-to-clear-text": ("", tls, "it speaks Kafka without TLS on this port, and COLLECTOR_KAFKA_TLS is on"),
    "no-login": ("SASL_PLAINTEXT", lambda _keys: {}, r"does it want a login \(COLLECTOR_KAFKA_SASL\)\?"),
    "unwanted-login": ("", lambda _keys: sasl("SCRAM-SHA-512"), "it wants no login on this port, and SASL is on"),
    **{
        f"wrong-password-{mechanism}-{listener}": (
            listener,
            partial(wrong_password, mechanism, encrypted=listener == "SASL_SSL"),
            f"it refuses user name or password of 'alice', SASL {mechanism} ",
        )
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
        for listener in ("SASL_SSL", "SASL_PLAINTEXT")
    },
}


def lines(caplog: pytest.LogCaptureFixture, name: str = "sink.kafka") -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == name]


@pytest.mark.live
@pytest.mark.parametrize("fault", FAULTS)
def test_the_cause_is_in_the_log_at_once_and_only_once(
    fault: str, secured: Secured, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causes, "LOOK_SECONDS", 0.3)  # so that a second line would come soon
    listener, environment, line = FAULTS[fault]
    name, _, host = listener.partition(" ")
    address = secured.broker.at[name] if name else secured.broker.address
    if host:
        address = f"{host}:{address.rpartition(':')[2]}"
    looks = 0
    turn = Causes.turn

    def counted(self: Causes) -> None:
        nonlocal looks
        turn(self)
        looks += 1

    monkeypatch.setattr(Causes, "turn", counted)
    with delivery(settings(address), security=secured_by(environment(secured.keys))) as out:
        out.submit(batch(b"x"))
        wait_for(lambda: any(re.search(line, one) for one in lines(caplog)), SECONDS)
        at = looks
        wait_for(lambda: looks >= at + 3, 20)  # it lasts, and is looked at again
        assert out.totals.delivered == 0 and not out.gone
    said = [one for one in lines(caplog) if one.startswith("broker ")]
    assert said == [one for one in said if re.match(f"broker {re.escape(address)}: .*{line}", one)] and len(said) == 1, said
    assert not [record for record in caplog.records if record.name.startswith("kafka.net")], "what the client says itself"
    assert "not-the-password" not in caplog.text


def test_the_cause_is_in_the_log_before_there_is_a_record(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with delivery(settings(f"127.0.0.1:{port}")):
        wait_for(lambda: f"broker 127.0.0.1:{port}: cannot connect: Connection refused" in lines(caplog), SECONDS)


def test_a_name_that_cannot_be_one_is_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    """Ours is refused at the start (collector/config_values.py); brokers name each other, too."""
    Causes(Security, "a..b:9092").turn()
    assert lines(caplog) == [
        "broker a..b:9092: the name cannot be resolved: a label that is empty, or has more than 63 characters"
    ]


def test_a_cause_is_repeated_once_a_minute_and_a_new_one_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    port = free_port()
    one = Causes(Security, f"127.0.0.1:{port}", clock=lambda: now)
    for _ in range(3):
        one.turn()
    assert lines(caplog) == [f"broker 127.0.0.1:{port}: cannot connect: Connection refused"]
    now += causes.REPEAT_SECONDS
    one.turn()
    assert len(lines(caplog)) == 2
    with socket.create_server(("127.0.0.1", port)) as server:
        server.listen()
        silent = Causes(Security, f"127.0.0.1:{port}")
        silent._said, one._said = one._said, {}
        silent.turn()
    assert lines(caplog)[2:] == [f"broker 127.0.0.1:{port}: it does not answer within 2 s"]


def test_the_brokers_that_the_client_tried_are_looked_at_and_the_configured_ones_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    configured, advertised = free_port(), free_port()
    one = Causes(Security, f"127.0.0.1:{configured},[::1]:{configured}")
    one.turn()
    assert [line.split(" ")[1] for line in lines(caplog)] == [f"127.0.0.1:{configured}:", f"[::1]:{configured}:"]
    caplog.clear()
    manager = logging.getLogger("kafka.net.manager")
    text = "Initializing connection for node_id %s at %s:%s (rack=%s)"
    one.emit(manager.makeRecord(manager.name, logging.INFO, "", 0, text, (1, "127.0.0.1", advertised, None), None))
    one.turn()
    assert [line.split(" ")[1] for line in lines(caplog)] == [f"127.0.0.1:{advertised}:"]


def test_the_client_says_which_broker_it_tries_in_the_words_that_are_looked_for(caplog: pytest.LogCaptureFixture) -> None:
    """A newer kafka-python may word it differently: then the configured brokers only would be looked at."""
    port = free_port()
    caplog.set_level(logging.INFO, "kafka.net.manager")
    with delivery(settings(f"127.0.0.1:{port}")) as out:
        destination = out.destination
        tried: dict[tuple[str, int], None] = {}
        emit = destination._causes.emit  # type: ignore[attr-defined]

        def watched(record: logging.LogRecord) -> None:
            emit(record)
            tried.update(destination._causes._tried)  # type: ignore[attr-defined]

        destination._causes.emit = watched  # type: ignore[attr-defined]
        out.submit(batch(b"x"))
        wait_for(lambda: ("127.0.0.1", port) in tried, 10)


def test_what_nothing_explains_is_said_in_the_clients_words(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collector.sink.kafka import probe

    monkeypatch.setattr(probe.Probe, "cause", lambda _self: "")
    now = 1000.0
    one = Causes(Security, "127.0.0.1:1", clock=lambda: now)
    logger = logging.getLogger("kafka.net.connection")
    one.emit(logger.makeRecord(logger.name, logging.ERROR, "", 0, "Connection %s", ("lost",), None))
    for _ in range(causes.UNEXPLAINED_LOOKS + 1):
        now += causes.ROW_SECONDS + 1  # one connection that was idle, now and then
        one.turn()
    assert not lines(caplog)
    for _ in range(causes.UNEXPLAINED_LOOKS):
        now += 1
        one.turn()
    assert lines(caplog) == ["the client: Connection lost"]


def test_what_the_client_says_of_topics_is_passed_on_and_no_reason_to_look(caplog: pytest.LogCaptureFixture) -> None:
    one = Causes(Security, "127.0.0.1:1")
    logger = logging.getLogger("kafka.cluster")
    for _ in range(3):
        text = "Topic %s is not authorized for this client"
        one.emit(logger.makeRecord(logger.name, logging.ERROR, "", 0, text, ("t",), None))
    assert lines(caplog) == ["the client: Topic t is not authorized for this client"] and not one._wake.is_set()
    one.emit(logger.makeRecord(logger.name, logging.ERROR, "", 0, "Metadata refresh: failed %s", ("x",), None))
    assert len(lines(caplog)) == 1 and one._wake.is_set()


def test_a_login_in_clear_text_is_no_reason_to_look() -> None:
    one = Causes(Security, "127.0.0.1:1")
    logger = logging.getLogger("kafka.net.sasl.plain")
    one.emit(logger.makeRecord(logger.name, logging.WARNING, "", 0, "Sending username and password in the clear", (), None))
    assert not one._wake.is_set()


def test_the_loggers_are_left_as_they_were() -> None:
    loggers = [logging.getLogger(name) for name in ("kafka.net", "kafka.net.manager", "kafka.cluster")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    one = Causes(Security, "127.0.0.1:1")
    one.start()
    assert loggers[0].handlers and not loggers[0].propagate
    one.stop()
    assert [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers] == before


def test_an_answer_that_is_not_kafkas_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                client, _address = server.accept()
                with client:
                    client.recv(1000)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[31m")

        thread = threading.Thread(target=answer)
        thread.start()
        started = time.monotonic()
        Causes(Security, f"127.0.0.1:{server.getsockname()[1]}").turn()
        assert time.monotonic() - started < SECONDS
        thread.join()
    assert len(lines(caplog)) == 1 and "its answer is not Kafka's" in lines(caplog)[0]
    assert "\x1b" not in caplog.text
