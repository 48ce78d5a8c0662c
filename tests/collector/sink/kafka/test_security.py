"""TLS and SASL: what is refused before there is a client, what arrives at a real broker, and files that change."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from collector import counter_names, files, metrics
from collector.errors import ConfigError, ProtocolError
from collector.sink import destinations
from collector.sink.kafka import certificates, security
from collector.sink.kafka.causes import Causes
from collector.sink.kafka.destination import Kafka
from collector.sink.kafka.security import Security, SecuritySettings
from tests.collector.sink.kafka.client import Environment, loaded, sasl, secured_by, tls
from tests.collector.sink.kafka.conftest import Secured
from tests.collector.sink.kafka.test_destination import batch, delivery, finished, messages, settings, topic
from tests.collector.test_command_line import COLLECTOR
from tests.collector.test_files import HEAD, data, stream_lines
from tests.conftest import skip_or_fail
from tests.events import GET, OK
from tests.live.certificates import Authority
from tests.live.harness import wait_for
from tests.live.kafka_broker import PASSWORDS, USER

pytestmark = [pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore::ResourceWarning")]

T, F = "COLLECTOR_KAFKA_TLS", "COLLECTOR_KAFKA_TLS_CERT_FILE"
LOGIN = {"COLLECTOR_KAFKA_USERNAME": "u", "COLLECTOR_KAFKA_PASSWORD": "geheim"}


# ---- what goes together


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({T: "true", "COLLECTOR_KAFKA_TLS_KEY_FILE": "k"}, f"COLLECTOR_KAFKA_TLS_KEY_FILE without {F}"),
        ({T: "true", "COLLECTOR_KAFKA_TLS_KEY_PASSWORD": "geheim"}, f"COLLECTOR_KAFKA_TLS_KEY_PASSWORD without {F}"),
        ({F: "c"}, f"{F} needs COLLECTOR_KAFKA_TLS=true"),
        ({"COLLECTOR_KAFKA_TLS_CA_FILE": "c"}, "COLLECTOR_KAFKA_TLS_CA_FILE needs COLLECTOR_KAFKA_TLS=true"),
        ({"IS_AUTH_IMPLEMENTED": "true"}, "SASL PLAIN needs a user name: COLLECTOR_KAFKA_USERNAME or"),
        ({"COLLECTOR_KAFKA_SASL": "scram-sha-512", "KAFKA_USERNAME": "u"}, "SASL SCRAM-SHA-512 needs a password"),
        ({"COLLECTOR_KAFKA_USERNAME": "u"}, "COLLECTOR_KAFKA_USERNAME needs COLLECTOR_KAFKA_SASL"),
        ({"COLLECTOR_KAFKA_PASSWORD_FILE": "p"}, "COLLECTOR_KAFKA_PASSWORD_FILE needs COLLECTOR_KAFKA_SASL"),
        (
            {"COLLECTOR_KAFKA_SASL": "PLAIN", **LOGIN, "COLLECTOR_KAFKA_PASSWORD_FILE": "p"},
            "COLLECTOR_KAFKA_PASSWORD and COLLECTOR_KAFKA_PASSWORD_FILE: only one of them",
        ),
        ({"USE_TLS": "true", T: "false"}, "COLLECTOR_KAFKA_TLS and USE_TLS are the same setting"),
        ({"COLLECTOR_KAFKA_PASSWORD": "geheim", "KAFKA_PASSWORD": "b"}, "COLLECTOR_KAFKA_PASSWORD and KAFKA_PASSWORD are"),
    ],
)
def test_what_contradicts_itself_is_refused(environment: Environment, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(environment)
    assert words in str(error.value) and "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "protocol", "words"),
    [
        ({}, "PLAINTEXT", ""),
        ({"USE_TLS": "false", "INSECURE_SKIP_VERIFY": "true", "IS_AUTH_IMPLEMENTED": "false"}, "PLAINTEXT", ""),
        ({"TLS_CA_CERT_PATH": "./ca.crt"}, "PLAINTEXT", "TLS_CA_CERT_PATH has no effect: it needs COLLECTOR_KAFKA_TLS"),
        ({"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "geheim"}, "PLAINTEXT", "KAFKA_PASSWORD has no effect"),
        (
            {"IS_AUTH_IMPLEMENTED": "true", "KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "geheim"},
            "SASL_PLAINTEXT",
            "SASL PLAIN without TLS: user name and password cross the network in clear text",
        ),
        ({"COLLECTOR_KAFKA_SASL": "none", "IS_AUTH_IMPLEMENTED": "true"}, "PLAINTEXT", ""),
        ({"COLLECTOR_KAFKA_SASL": "SCRAM-SHA-256", "IS_AUTH_IMPLEMENTED": "true", **LOGIN}, "SASL_PLAINTEXT", ""),
        ({"USE_TLS": "true"}, "SSL", ""),
        ({"USE_TLS": "true", "INSECURE_SKIP_VERIFY": "true"}, "SSL", "INSECURE_SKIP_VERIFY is set: the certificates of the"),
        ({T: "true", "COLLECTOR_KAFKA_SASL": "PLAIN", **LOGIN}, "SASL_SSL", ""),
    ],
)
def test_names_of_ours_and_of_aktos_and_what_is_warned_about(environment: Environment, protocol: str, words: str) -> None:
    settings_ = loaded(environment)
    assert words in "\n".join(settings_.warnings) and bool(words) == bool(settings_.warnings)
    assert "geheim" not in "\n".join(settings_.warnings)
    one = Security(security.read(settings_))
    assert one.protocol == one.client()["security_protocol"] == protocol
    assert security.wanted(settings_) == (protocol != "PLAINTEXT")


def test_verification_is_on_unless_it_is_switched_off_by_name() -> None:
    import ssl

    for environment, on in (({T: "true"}, True), ({T: "true", "COLLECTOR_KAFKA_TLS_SKIP_VERIFY": "true"}, False)):
        context = secured_by(environment).context
        assert context is not None and context.check_hostname == on
        assert context.verify_mode == (ssl.CERT_REQUIRED if on else ssl.CERT_NONE)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_password_is_nowhere_but_in_the_clients_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    environment = {"COLLECTOR_KAFKA_SASL": "PLAIN", T: "true", **LOGIN}
    one = secured_by(environment)
    assert one.client()["sasl_plain_password"] == "geheim"
    shown = repr(one.settings) + repr(one) + json.dumps(Kafka.options(loaded(environment))) + Kafka.describe("", loaded({}))
    assert "geheim" not in shown
    environ = {**os.environ, "AKTO_KAFKA_BROKER_MAL": "b:1", **environment}
    done = subprocess.run(
        [*COLLECTOR, "config", "--all"], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert "(set)" in done.stdout and "geheim" not in done.stdout + done.stderr + capfd.readouterr().err


def test_scram_gets_the_two_reserved_characters_encoded() -> None:
    for mechanism, name in (("SCRAM-SHA-256", "a=3Db=2Cc"), ("PLAIN", "a=b,c")):
        one = Security(SecuritySettings(mechanism=mechanism, username="a=b,c", password="p"))
        assert one.client()["sasl_plain_username"] == name


# ---- files


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def encrypted(keys: Path, tmp_path: Path) -> str:
    path = tmp_path / "encrypted.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(keys / "client.key"), "-out", str(path), "-passout", "pass:geheim"]
    subprocess.run(command, check=True, capture_output=True)
    return str(path)


CLIENT = ("COLLECTOR_KAFKA_TLS_CERT_FILE", "COLLECTOR_KAFKA_TLS_KEY_FILE", "COLLECTOR_KAFKA_TLS_CA_FILE")

BAD_FILES: dict[str, tuple[Callable[[Path, Path], Environment], str]] = {
    "absent": (lambda _keys, _tmp: {CLIENT[2]: "/nowhere/ca.pem"}, "CA_FILE='/nowhere/ca.pem': No such file"),
    "akto": (
        lambda _keys, _tmp: {CLIENT[2]: "", "TLS_CA_CERT_PATH": "/nowhere"},
        "TLS_CA_CERT_PATH='/nowhere': No such file",
    ),
    "directory": (lambda _keys, tmp: {CLIENT[2]: str(tmp)}, "not a regular file"),
    "pipe": (lambda _keys, tmp: {CLIENT[2]: (os.mkfifo(tmp / "p"), str(tmp / "p"))[1]}, "not a regular file"),
    "large": (
        lambda _keys, tmp: {CLIENT[2]: write(tmp / "l", b"x" * (security.FILE_BYTES + 1))},
        "longer than 1048576 bytes",
    ),
    "binary": (lambda _keys, tmp: {CLIENT[2]: write(tmp / "b", b"\x30\x82\xff\xfe")}, "not a text; PEM is needed"),
    "no-pem": (lambda _keys, tmp: {CLIENT[2]: write(tmp / "t", "hello")}, "holds no certificate in PEM form"),
    "key-as-ca": (lambda keys, _tmp: {CLIENT[2]: str(keys / "client.key")}, "holds no certificate in PEM form"),
    "damaged": (
        lambda keys, tmp: {CLIENT[2]: write(tmp / "d", (keys / "ca.pem").read_text().replace("MII", "MIJ"))},
        "damaged",
    ),
    "cut-off": (
        lambda keys, tmp: {CLIENT[2]: write(tmp / "d", (keys / "ca.pem").read_text()[:300])},
        "holds no certificate in PEM form",
    ),
    "other-key": (
        lambda keys, _tmp: {CLIENT[1]: str(keys / "stranger.key")},
        "client.pem: the private key does not belong to this certificate",
    ),
    "no-key": (
        lambda _keys, _tmp: {CLIENT[1]: ""},
        "holds no private key in PEM form, and COLLECTOR_KAFKA_TLS_KEY_FILE is not set",
    ),
    "certificate-as-key": (lambda keys, _tmp: {CLIENT[1]: str(keys / "client.pem")}, "holds no private key in PEM form"),
    "key-needs-password": (
        lambda keys, tmp: {CLIENT[1]: encrypted(keys, tmp)},
        "the private key is encrypted, and COLLECTOR_KAFKA_TLS_KEY_PASSWORD (or _FILE) is not set",
    ),
    "wrong-key-password": (
        lambda keys, tmp: {CLIENT[1]: encrypted(keys, tmp), "COLLECTOR_KAFKA_TLS_KEY_PASSWORD": "verraten"},
        "the private key is encrypted, and its password is wrong",
    ),
    "empty-secret": (
        lambda _keys, tmp: {
            "COLLECTOR_KAFKA_SASL": "PLAIN",
            "COLLECTOR_KAFKA_USERNAME": "u",
            "COLLECTOR_KAFKA_PASSWORD_FILE": write(tmp / "e", "\n"),
        },
        "the file is empty",
    ),
    "secret-with-nul": (
        lambda _keys, tmp: {
            "COLLECTOR_KAFKA_SASL": "PLAIN",
            "COLLECTOR_KAFKA_USERNAME": "u",
            "COLLECTOR_KAFKA_PASSWORD_FILE": write(tmp / "e", "geh\0eim"),
        },
        "holds a NUL character, or begins with a byte order mark",
    ),
    "secret-with-byte-order-mark": (
        lambda _keys, tmp: {
            "COLLECTOR_KAFKA_SASL": "PLAIN",
            "COLLECTOR_KAFKA_USERNAME": "u",
            "COLLECTOR_KAFKA_PASSWORD_FILE": write(tmp / "e", "\ufeffgeheim"),
        },
        "holds a NUL character, or begins with a byte order mark",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_named(case: str, keys: Path, tmp_path: Path) -> None:
    changes, words = BAD_FILES[case]
    with pytest.raises(ConfigError) as error:
        security.read(loaded({**tls(keys, "client"), **changes(keys, tmp_path)}))
    assert words in str(error.value)
    assert "verraten" not in str(error.value) and "PRIVATE KEY--" not in str(error.value)


def test_one_file_may_hold_certificate_and_key_and_the_key_may_be_encrypted(keys: Path, tmp_path: Path) -> None:
    both = write(tmp_path / "both.pem", (keys / "client.key").read_bytes() + (keys / "client.pem").read_bytes())
    assert secured_by({**tls(keys), F: both}).context is not None
    secret = write(tmp_path / "secret", "geheim\n")
    environment = {**tls(keys, "client"), CLIENT[1]: encrypted(keys, tmp_path)}
    assert secured_by({**environment, "COLLECTOR_KAFKA_TLS_KEY_PASSWORD_FILE": secret}).context is not None


def test_comments_between_certificates_may_be_in_any_language(keys: Path, tmp_path: Path) -> None:
    """As in the bundle of authorities that Mozilla's is made into."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(
        "# Főtanúsítvány\n" + (keys / "ca.pem").read_text() + "# Κόμβος\n" + (keys / "foreign.pem").read_text()
    )
    made = secured_by({"COLLECTOR_KAFKA_TLS": "true", "COLLECTOR_KAFKA_TLS_CA_FILE": str(bundle)})
    assert made.context is not None and len(made.context.get_ca_certs()) == 2


def test_what_is_out_of_date_is_said_and_ends_nothing(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = secured_by(tls(keys, "late"))
    assert f"{F}='{keys}/late.pem': expired on 2024-02-01 00:00:00 UTC" in caplog.text
    own, authorities = one.expiry()
    assert own == 1706745600 and 6.9 * 86400 < authorities - time.time() < 7.1 * 86400
    caplog.clear()
    assert secured_by(tls(keys, "client")).expiry()[0] > time.time() and not caplog.text


def test_the_dates_are_those_that_openssl_reads(keys: Path, tmp_path: Path) -> None:
    far = Authority(tmp_path, "far")
    far.issue("distant", valid=("19991231235959Z", "21500601000000Z"))
    for path in (keys / "ca.pem", keys / "late.pem", tmp_path / "distant.pem"):
        (der,) = certificates.certificates(path.read_text())
        command = ["openssl", "x509", "-in", str(path), "-noout", "-dates", "-dateopt", "iso_8601"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        begin, end = certificates.validity(der)
        expected = [line.partition("=")[2].replace("Z", " UTC") for line in shown.splitlines()]
        assert [certificates.date(begin), certificates.date(end)] == expected


def test_every_damage_of_a_certificate_is_an_error_or_a_date(keys: Path) -> None:
    (der,) = certificates.certificates((keys / "client.pem").read_text())
    refused = 0
    for at in range(len(der)):
        for damaged in (der[:at], der[:at] + bytes([der[at] ^ 0x81]) + der[at + 1 :]):
            try:
                certificates.validity(damaged)
            except ValueError:
                refused += 1
    assert refused > 100
    assert certificates.certificates("-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der).decode()) == []


def test_the_dates_become_metrics_and_follow_the_files(keys: Path) -> None:
    notes: dict[str, int] = {}

    def told(environment: Environment) -> int:
        return security.hand_over(security.read(loaded(environment)))

    fd = told(tls(keys, "late"))
    one = Kafka.make(Kafka.options(loaded({})), fd=fd, notes=notes, settled=lambda *_: False)
    os.close(fd)
    assert notes["tls_certificate_expiry"] == 1706745600 and notes["tls_ca_expiry"] > time.time()
    one.reopen(told(tls(keys, "client")), 1)
    assert notes["tls_certificate_expiry"] > time.time() and notes.pop("output_number") == 1
    Kafka.make(Kafka.options(loaded({})), fd=None, notes=notes, settled=lambda *_: False)
    assert notes == {"tls_certificate_expiry": 0, "tls_ca_expiry": 0}
    assert set(notes) <= set(counter_names.SINK_NAMES)
    exported = {metric.key for metric in metrics.METRICS if metric.name == "collector_kafka_tls_expiry_timestamp_seconds"}
    assert exported == set(notes)


def test_what_is_handed_over_is_what_was_read(keys: Path) -> None:
    given = security.read(loaded({**tls(keys, "client"), **sasl("PLAIN")}))
    fd = security.hand_over(given)
    try:
        assert security.received(fd) == given and security.received(fd) == given  # also for the next life of the sink
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        os.ftruncate(other := os.memfd_create("other"), 3)
        with pytest.raises(ProtocolError):
            security.received(other)
        os.close(other)
    finally:
        os.close(fd)
    assert security.received(None) == SecuritySettings()


def test_a_process_without_privileges_makes_a_context_of_what_it_got(keys: Path) -> None:
    """As the sink does it when certificates are renewed: it is nobody, may gain nothing, is not dumpable, and limited."""
    if os.geteuid() != 0:
        skip_or_fail("needs root to give it up")
    fd = security.hand_over(security.read(loaded(tls(keys, "client"))))
    program = (
        "import sys; from collector import confine; from collector.runtime import drop_privileges; import kafka, ssl\n"
        "from collector.sink.kafka.security import Security; drop_privileges(65534)\n"
        "confine.limit_files(confine.network_rules(), network=True)\n"
        "confine.limit_calls(confine.sink(files=False, network=True)); one = Security.of(int(sys.argv[1]))\n"
        "print(one.context.cert_store_stats()['x509'], one.expiry()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(fd)], pass_fds=[fd], capture_output=True, text=True, timeout=60
    )
    os.close(fd)
    assert done.returncode == 0, done.stderr
    count, expiry = done.stdout.split()
    assert count == "1" and int(expiry) > time.time()


def test_every_file_of_the_settings_is_watched_and_its_change_shows(keys: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "geheim")
    environment = {**tls(keys, "client"), "COLLECTOR_KAFKA_SASL": "PLAIN", "KAFKA_USERNAME": "u"}
    settings_ = loaded({**environment, "COLLECTOR_KAFKA_PASSWORD_FILE": secret})
    output = destinations.chosen(settings_)
    before = output.made_of(settings_)
    assert set(before) == {*(environment[name] for name in CLIENT), secret} and None not in before.values()
    assert output.reopen(settings_, shared=False) is not None
    assert output.made_of(settings_) == before
    write(tmp_path / "secret", "anders")
    assert output.made_of(settings_) != before
    # as Kubernetes replaces the files of a secret: a link leads elsewhere
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "file", "same")
    (tmp_path / "data").symlink_to("1")
    first = files.signature(str(tmp_path / "data" / "file"))
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").replace(tmp_path / "data")
    assert first is not None and files.signature(str(tmp_path / "data" / "file")) != first
    assert files.signature(str(tmp_path / "nothing")) is None


# ---- a real broker


ARRIVES: dict[str, tuple[str, Callable[[Path], Environment]]] = {
    "mtls": ("SSL", lambda keys: tls(keys, "client")),
    "mtls-ipv6": ("SIX", lambda keys: tls(keys, "client")),
    "unverified": (
        "EXPIRED",
        lambda keys: {"USE_TLS": "true", "INSECURE_SKIP_VERIFY": "true", "TLS_CA_CERT_PATH": str(keys / "foreign.pem")},
    ),
    "plain-tls": ("SASL_SSL", lambda keys: {**tls(keys), **sasl("PLAIN")}),
    "scram-256-tls": ("SASL_SSL", lambda keys: {**tls(keys), **sasl("SCRAM-SHA-256")}),
    "scram-512-tls": ("SASL_SSL", lambda keys: {**tls(keys), **sasl("SCRAM-SHA-512")}),
    "scram-512": ("SASL_PLAINTEXT", lambda _keys: sasl("SCRAM-SHA-512")),
    "akto": (
        "SASL_SSL",
        lambda keys: {
            "USE_TLS": "true",
            "TLS_CA_CERT_PATH": str(keys / "ca.pem"),
            "IS_AUTH_IMPLEMENTED": "true",
            "KAFKA_USERNAME": USER,
            "KAFKA_PASSWORD": PASSWORDS["PLAIN"],
        },
    ),
}


@pytest.mark.live
@pytest.mark.parametrize("how", ARRIVES)
def test_records_arrive(how: str, secured: Secured, caplog: pytest.LogCaptureFixture) -> None:
    listener, environment = ARRIVES[how]
    name = topic(secured.broker, how)
    caplog.clear()
    with delivery(settings(secured.broker.at[listener], name), security=secured_by(environment(secured.keys))) as out:
        out.submit(batch(b"a", b"b"))
        out.submit(finished(b"c"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed) == (3, 0)
    assert not caplog.records, "nothing to complain about"
    assert {record for record, _headers in messages(secured.broker, name, 3)} == {b"a", b"b", b"c"}


@pytest.mark.live
@pytest.mark.parametrize("how", ARRIVES)
def test_records_of_the_whole_collector_arrive(how: str, secured: Secured, tmp_path: Path) -> None:
    """From a sink that is limited (collector/confine.py)."""
    listener, environment = ARRIVES[how]
    recorded = tmp_path / "a.streams.jsonl"
    recorded.write_text(stream_lines(HEAD, data("c2s", 0, GET), data("s2c", 0, OK)))
    name = topic(secured.broker, f"{how}-replayed")
    kafka = {"AKTO_KAFKA_BROKER_MAL": secured.broker.at[listener], "COLLECTOR_KAFKA_TOPIC": name}
    done = subprocess.run(
        [*COLLECTOR, "replay", str(recorded)],
        env={**os.environ, **environment(secured.keys), **kafka},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0 and "1 delivered, 0 dropped, 0 failed" in done.stderr, done.stderr
    assert len(messages(secured.broker, name, 1)) == 1


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the client began to connect."""
    out: list[float] = []
    emit = Causes.emit

    def watched(self: Causes, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Initializing connection"):
            out.append(time.monotonic())
        emit(self, record)

    monkeypatch.setattr(Causes, "emit", watched)
    return out


def goes_on(
    environment: Environment,
    listener: str,
    secured: Secured,
    change: Callable[[], Environment],
    refused: str,
    caplog: pytest.LogCaptureFixture,
    attempts: list[float],
) -> None:
    """Deliver; change the broker's side and cut all connections: what was valid is ``refused``, and tried again at ever
    longer intervals; deliver with the new settings what came meanwhile.
    """
    with delivery(settings(secured.broker.at[listener], "renewed"), security=secured_by(environment)) as out:
        out.submit(finished(b"before"))
        wait_for(lambda: out.totals.delivered == 1, 30)
        changed = change()
        secured.broker.kill()
        out.submit(finished(b"during"))
        secured.broker.start()
        wait_for(lambda: refused in caplog.text, 30)
        first = len(attempts)
        wait_for(lambda: len(attempts) > first + 5, 30)
        assert attempts[first + 5] - attempts[first] > 1, "without a back-off it is some hundredths"
        assert out.totals.delivered == 1
        out.reopen(security.hand_over(security.read(loaded(changed))), 1)
        out.submit(finished(b"after"))
        wait_for(lambda: out.totals.delivered == 3, 30)
        assert (out.totals.failed, out.totals.dropped, out.gone) == (0, 0, "")


@pytest.mark.live
def test_certificates_of_both_sides_are_renewed_by_another_authority_and_delivery_goes_on(
    secured: Secured, tmp_path: Path, caplog: pytest.LogCaptureFixture, attempts: list[float]
) -> None:
    keys = secured.keys
    kept = {name: (keys / name).read_bytes() for name in ("broker.pem", "trusted.pem")}
    later = Authority(tmp_path, "later")
    later.issue("server", names="IP:127.0.0.1")
    later.issue("client")

    def change() -> Environment:
        shutil.copy(tmp_path / "server-all.pem", keys / "broker.pem")
        shutil.copy(tmp_path / "later.pem", keys / "trusted.pem")
        return tls(tmp_path, "client", ca="later")

    try:
        goes_on(tls(keys, "client"), "SSL", secured, change, "not signed by an authority in", caplog, attempts)
    finally:
        for name, contents in kept.items():
            (keys / name).write_bytes(contents)
        secured.broker.kill()
        secured.broker.start()


@pytest.mark.live
def test_a_password_is_changed_and_delivery_goes_on(
    secured: Secured, caplog: pytest.LogCaptureFixture, attempts: list[float]
) -> None:
    def set_password(password: str) -> None:
        admin = KafkaAdminClient(bootstrap_servers=secured.broker.address)
        admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_256, password)])
        admin.close()

    def change() -> Environment:
        set_password("another-secret")
        return {**tls(secured.keys), **sasl("SCRAM-SHA-256", "another-secret")}

    try:
        login = {**tls(secured.keys), **sasl("SCRAM-SHA-256")}
        goes_on(login, "SASL_SSL", secured, change, "refuses user name or password", caplog, attempts)
    finally:
        set_password(PASSWORDS["SCRAM-SHA-256"])


@pytest.mark.live
def test_connections_that_there_are_go_on_when_files_change(secured: Secured) -> None:
    """Also with files that no new connection could be made with."""
    with delivery(settings(secured.broker.at["SSL"], "goes-on"), security=secured_by(tls(secured.keys, "client"))) as out:
        out.submit(batch(b"before"))
        wait_for(lambda: out.totals.delivered == 1, 30)
        out.reopen(security.hand_over(security.read(loaded(tls(secured.keys, "stranger")))), 1)
        out.submit(batch(b"after"))
        wait_for(lambda: out.totals.delivered == 2, 30)
        assert out.totals.errors == 0


@pytest.mark.live
def test_the_whole_collector_with_files_that_only_root_can_read(secured: Secured, tmp_path: Path) -> None:
    """A replay: the sink is nobody there. Its secrets come from the supervisor."""
    for path in secured.keys.iterdir():
        path.chmod(0o600)
    recorded = tmp_path / "a.streams.jsonl"
    recorded.write_text(stream_lines(HEAD, data("c2s", 0, GET), data("s2c", 0, OK)))
    password = tmp_path / "password"
    password.write_text(PASSWORDS["SCRAM-SHA-512"] + "\n")
    password.chmod(0o600)
    name = topic(secured.broker, "replayed")
    environment = {**tls(secured.keys, "client"), **sasl("SCRAM-SHA-512"), "COLLECTOR_KAFKA_PASSWORD_FILE": str(password)}
    del environment["COLLECTOR_KAFKA_PASSWORD"]
    done = subprocess.run(
        [*COLLECTOR, "replay", str(recorded)],
        env={
            **os.environ,
            **environment,
            "AKTO_KAFKA_BROKER_MAL": secured.broker.at["SASL_SSL"],
            "COLLECTOR_KAFKA_TOPIC": name,
            "AKTO_LOG_LEVEL": "DEBUG",
        },
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert PASSWORDS["SCRAM-SHA-512"] not in done.stderr and "PRIVATE KEY" not in done.stderr
    ((record, _headers),) = messages(secured.broker, name, 1)
    assert json.loads(record)["path"] == "/x"


@pytest.mark.live
def test_the_whole_collector_goes_on_when_a_file_is_put_right(secured: Secured, tmp_path: Path) -> None:
    """The supervisor notices, and the sink, which is nobody, gets it. No signal is needed."""
    recorded, errors, ca = tmp_path / "a.streams.jsonl", tmp_path / "stderr", tmp_path / "ca.pem"
    recorded.write_text(stream_lines(HEAD, data("c2s", 0, GET), data("s2c", 0, OK)))
    shutil.copy(secured.keys / "foreign.pem", ca)
    name = topic(secured.broker, "put-right")
    environment = {**tls(secured.keys, "client"), "COLLECTOR_KAFKA_TLS_CA_FILE": str(ca), "COLLECTOR_KAFKA_TOPIC": name}
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*COLLECTOR, "replay", str(recorded)],
            env={**os.environ, **environment, "AKTO_KAFKA_BROKER_MAL": secured.broker.at["SSL"], "AKTO_LOG_LEVEL": "INFO"},
            stderr=stderr,
        )
    try:
        wait_for(lambda: f"is not signed by an authority in {ca}" in errors.read_text(), 30)
        shutil.copy(secured.keys / "client.key", ca)  # not yet
        wait_for(lambda: "files of the output have changed: " in errors.read_text(), 10)
        assert f"COLLECTOR_KAFKA_TLS_CA_FILE='{ca}': holds no certificate" in errors.read_text() and process.poll() is None
        (tmp_path / "new").write_bytes((secured.keys / "ca.pem").read_bytes())
        (tmp_path / "new").replace(ca)
        wait_for(lambda: process.poll() is not None, 30)
        assert process.returncode == 0, errors.read_text()
    finally:
        process.kill()
        process.wait()
    assert len(messages(secured.broker, name, 1)) == 1
    assert "1 delivered, 0 dropped, 0 failed" in errors.read_text()
