"""TLS and SASL: from the settings, and the files that they name, to what the Kafka client is made with.

    supervisor   check(config)      settings that contradict each other
                 read(config)       reads the files with its privileges and tries them out
                 hand_over(...)     into memory of which the sink gets a descriptor, at its start and whenever a file changes
    sink         received(fd)       the same in the sink, which can read no file
                 Security           the TLS context, the client's arguments, the change while the client runs

Nothing secret is in a start message, a log line, an exception or a representation. There is no way from TLS to clear
text: without a context no client is made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from collector import memfd
from collector.config import Config
from collector.config_setting import Setting
from collector.config_values import NO_SASL
from collector.errors import ConfigError, ProtocolError
from collector.settings import Message
from collector.sink.kafka import certificates

if TYPE_CHECKING:
    import ssl

    from kafka import KafkaProducer

    from collector.sink.destination import Notes

log = logging.getLogger("sink.kafka")

FILE_BYTES = 1 << 20  # the largest bundle of authorities in use has a quarter of that

_CA, _CERTIFICATE, _KEY = (
    Config.COLLECTOR_KAFKA_TLS_CA_FILE,
    Config.COLLECTOR_KAFKA_TLS_CERT_FILE,
    Config.COLLECTOR_KAFKA_TLS_KEY_FILE,
)
# a secret, or the file that holds it
_KEY_PASSWORD = (Config.COLLECTOR_KAFKA_TLS_KEY_PASSWORD, Config.COLLECTOR_KAFKA_TLS_KEY_PASSWORD_FILE)
_USERNAME = (Config.COLLECTOR_KAFKA_USERNAME, Config.COLLECTOR_KAFKA_USERNAME_FILE)
_PASSWORD = (Config.COLLECTOR_KAFKA_PASSWORD, Config.COLLECTOR_KAFKA_PASSWORD_FILE)
_PAIRS = (_KEY_PASSWORD, _USERNAME, _PASSWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings(Message):
    """What the files hold (PEM texts), and what is to be done with it. ``mechanism`` is that of SASL, "" for none;
    ``ca_file`` and ``certificate_file`` are names for log lines.
    """

    tls: bool = False
    verify: bool = True
    ca: str = ""
    ca_file: str = ""
    certificate: str = ""
    certificate_file: str = ""
    key: str = field(default="", repr=False)
    key_password: str = field(default="", repr=False)
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)


# ---- in the supervisor -------------------------------------------------------------------------------------------


def mechanism(config: Config) -> str:
    """The SASL mechanism in force, "" for none."""
    if config.COLLECTOR_KAFKA_SASL:
        return "" if config.COLLECTOR_KAFKA_SASL == NO_SASL else config.COLLECTOR_KAFKA_SASL
    return "PLAIN" if config.IS_AUTH_IMPLEMENTED else ""


def check(config: Config) -> None:
    """Refuse settings that do not go together, and warn of those that are dangerous. A name of Akto's that has no effect in
    Akto's collector either is only warned about: its manifests must go on to work. Raises ConfigError.
    """
    tls, sasl = config.COLLECTOR_KAFKA_TLS, mechanism(config)
    for value, file in _PAIRS:
        if _source(config, value) and _source(config, file):
            raise ConfigError(f"{_source(config, value)} and {file.name}: only one of them can be set")
    if _source(config, _KEY) and not _source(config, _CERTIFICATE):
        raise ConfigError(f"{_KEY.name} without {_CERTIFICATE.name}: a key needs its certificate")
    if (name := _named(config, _KEY_PASSWORD)) and not _source(config, _CERTIFICATE):
        raise ConfigError(f"{name} without {_CERTIFICATE.name}: there is no key that it could open")
    if not tls:
        for setting in (_CA, _CERTIFICATE):
            _no_effect(config, _source(config, setting), "needs COLLECTOR_KAFKA_TLS=true (or USE_TLS)")
    if sasl:
        for pair, what in ((_USERNAME, "user name"), (_PASSWORD, "password")):
            if not _named(config, pair):
                raise ConfigError(f"SASL {sasl} needs a {what}: {pair[0].name} or {pair[1].name}")
    else:
        for pair in (_USERNAME, _PASSWORD):
            _no_effect(config, _named(config, pair), "needs COLLECTOR_KAFKA_SASL, the name of the mechanism")
    if tls and config.COLLECTOR_KAFKA_TLS_SKIP_VERIFY:
        config.warnings.append(
            f"{_source(config, Config.COLLECTOR_KAFKA_TLS_SKIP_VERIFY)} is set: the certificates of the Kafka brokers are "
            "not verified; whoever is on the way can read and change everything, "
            + ("user name and password included" if sasl == "PLAIN" else "the records included")
        )
    if sasl == "PLAIN" and not tls:
        config.warnings.append("SASL PLAIN without TLS: user name and password cross the network in clear text")


def _source(config: Config, setting: Setting[Any]) -> str:
    """The variable that sets it, "" when none does."""
    source = config.values[setting.name].source
    return "" if source == "default" else source


def _named(config: Config, pair: tuple[Setting[str], Setting[str]]) -> str:
    return _source(config, pair[0]) or _source(config, pair[1])


def _no_effect(config: Config, name: str, why: str) -> None:
    if name.startswith("COLLECTOR_"):
        raise ConfigError(f"{name} {why}")
    if name:
        config.warnings.append(f"{name} has no effect: it {why}")


def wanted(config: Config) -> bool:
    """Is anything but clear text without a login asked for?"""
    return config.COLLECTOR_KAFKA_TLS or bool(mechanism(config))


def files(config: Config) -> tuple[str, ...]:
    """The names of all files that `read` reads."""
    settings: list[Setting[str]] = []
    if config.COLLECTOR_KAFKA_TLS:
        settings += [_CA, _CERTIFICATE, _KEY, _KEY_PASSWORD[1]]
    if mechanism(config):
        settings += [_USERNAME[1], _PASSWORD[1]]
    return tuple(path for setting in settings if (path := config.values[setting.name].value))


def _read(config: Config, setting: Setting[str]) -> str:
    """The contents of the file that a setting names, "" when it names none. Raises ConfigError."""
    path = config.values[setting.name].value
    if not path:
        return ""
    name = f"{_source(config, setting)}={path!r}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe must not hold us up
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{name}: not a regular file")
            data = os.read(fd, FILE_BYTES + 1)  # whole, of a regular file
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ConfigError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > FILE_BYTES:
        raise ConfigError(f"{name}: longer than {FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(
            f"{name}: not a text" + ("" if setting in (*_USERNAME, *_PASSWORD) else "; PEM is needed")
        ) from None


def _secret(config: Config, pair: tuple[Setting[str], Setting[str]]) -> str:
    value, file = pair
    if not _source(config, file):
        text = str(config.values[value.name].value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{_source(config, value)}: is not UTF-8") from None
        return text
    text = _read(config, file).rstrip("\r\n")
    where = f"{file.name}={config.values[file.name].value!r}"
    if not text:
        raise ConfigError(f"{where}: the file is empty")
    if "\0" in text or text.startswith("\ufeff"):  # the first parts the fields of SASL PLAIN; nobody sees the second
        raise ConfigError(f"{where}: holds a NUL character, or begins with a byte order mark")
    return text


def _certificates(config: Config, setting: Setting[str], pem: str) -> list[tuple[float, float]]:
    """The validity of each certificate in the file of a setting. Raises ConfigError."""
    name = f"{_source(config, setting)}={config.values[setting.name].value!r}"
    try:
        valid = [certificates.validity(der) for der in certificates.certificates(pem)]
    except ValueError as error:
        raise ConfigError(f"{name}: holds a damaged certificate ({error})") from None
    if not valid:
        raise ConfigError(f"{name}: holds no certificate in PEM form")
    return valid


def read(config: Config) -> SecuritySettings:
    """Everything that the settings name, read and tried out; what is out of date is logged. Raises ConfigError."""
    sasl = mechanism(config)
    username, password = (_secret(config, _USERNAME), _secret(config, _PASSWORD)) if sasl else ("", "")
    if not config.COLLECTOR_KAFKA_TLS:
        return SecuritySettings(mechanism=sasl, username=username, password=password)
    ca, certificate = _read(config, _CA), _read(config, _CERTIFICATE)
    key = (_read(config, _KEY) if _source(config, _KEY) else certificate) if certificate else ""
    settings = SecuritySettings(
        tls=True,
        verify=not config.COLLECTOR_KAFKA_TLS_SKIP_VERIFY,
        ca=ca,
        ca_file=config.COLLECTOR_KAFKA_TLS_CA_FILE,
        certificate=certificate,
        certificate_file=config.COLLECTOR_KAFKA_TLS_CERT_FILE,
        key=key,
        key_password=_secret(config, _KEY_PASSWORD),
        mechanism=sasl,
        username=username,
        password=password,
    )
    now = time.time()
    if config.COLLECTOR_KAFKA_TLS_CERT_FILE:
        for begin, end in _certificates(config, _CERTIFICATE, certificate)[:1]:
            _complain(config, _CERTIFICATE, begin, end, now)
        if not certificates.has_key(key):
            source = _KEY if _source(config, _KEY) else _CERTIFICATE
            raise ConfigError(
                f"{source.name}={config.values[source.name].value!r}: holds no private key in PEM form"
                + ("" if source is _KEY else f", and {_KEY.name} is not set")
            )
    if config.COLLECTOR_KAFKA_TLS_CA_FILE:
        valid = _certificates(config, _CA, ca)
        _complain(config, _CA, min(begin for begin, _end in valid), max(end for _begin, end in valid), now)
    make_context(settings)
    return settings


def _complain(config: Config, setting: Setting[str], begin: float, end: float, now: float) -> None:
    """It may be renewed any moment, so this ends nothing."""
    name = f"{_source(config, setting)}={config.values[setting.name].value!r}"
    if now > end:
        log.error("%s: expired on %s", name, certificates.date(end))
    elif now < begin:
        log.error("%s: is not valid before %s", name, certificates.date(begin))


def hand_over(settings: SecuritySettings) -> int:
    """A descriptor of memory that holds them; the caller closes it. Raises OSError."""
    data = json.dumps(settings.to_message()).encode()
    fd = memfd.create("collector-kafka-security", len(data))
    os.pwrite(fd, data, 0)
    return fd


# ---- in both -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _name(text: str) -> Any:
    """A file name for a text, for a library that reads keys from files only: it never is on a disk. The kernel lets a
    process have its own /proc/self/fd whatever privileges it has given up.
    """
    fd = os.memfd_create("collector-pem", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(text.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def make_context(settings: SecuritySettings) -> ssl.SSLContext:
    """The TLS context of a client. Raises ConfigError when certificate and key do not work."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if settings.ca:
            # comments between the certificates may be in any language, and it takes nothing but ASCII
            context.load_verify_locations(cadata=settings.ca.encode("ascii", "replace").decode("ascii"))
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Java's clients: what is in the file is trusted
        elif settings.verify:
            context.load_default_certs()
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{settings.ca_file}: damaged: {getattr(error, 'reason', None) or error}") from None
    if settings.certificate:
        try:
            with _name(settings.certificate) as certificate, _name(settings.key) as key:
                # with an empty password OpenSSL asks no terminal
                context.load_cert_chain(certificate, key, password=settings.key_password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"{settings.certificate_file}: {_refused(error, settings)}") from None
    return context


def _refused(error: Exception, settings: SecuritySettings) -> str:
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return "the private key does not belong to this certificate"
    if "ENCRYPTED" in settings.key:
        return "the private key is encrypted, and " + (
            "its password is wrong" if settings.key_password else f"{_KEY_PASSWORD[0].name} (or _FILE) is not set"
        )
    return f"the certificate or its private key cannot be used ({reason or 'damaged'})"


# ---- in the sink -------------------------------------------------------------------------------------------------


def received(fd: int | None) -> SecuritySettings:
    """What `hand_over` made; without a descriptor, clear text. Raises ProtocolError."""
    if fd is None:
        return SecuritySettings()
    try:
        message = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    except ValueError:
        raise ProtocolError("the security settings are no message") from None
    return SecuritySettings.from_message(message)


class Security:
    """What connections are made with from now on. Made before the process drops its privileges, or after."""

    def __init__(self, settings: SecuritySettings | None = None) -> None:
        self.settings = settings or SecuritySettings()
        self.context = make_context(self.settings) if self.settings.tls else None

    @classmethod
    def of(cls, fd: int | None) -> Self:
        """What was handed over. Raises ProtocolError, ConfigError."""
        return cls(received(fd))

    @property
    def protocol(self) -> str:
        """As Kafka calls it."""
        return ("SASL_" if self.settings.mechanism else "") + ("SSL" if self.settings.tls else "PLAINTEXT")

    @property
    def username(self) -> str:
        """As the client takes it: it does not encode the two characters that SCRAM reserves (RFC 5802 section 5.1)."""
        name = self.settings.username
        return name.replace("=", "=3D").replace(",", "=2C") if self.settings.mechanism.startswith("SCRAM") else name

    def client(self) -> dict[str, Any]:
        """Arguments for connections: KafkaProducer hands them down."""
        arguments: dict[str, Any] = {"security_protocol": self.protocol}
        if self.context is not None:
            arguments["ssl_context"] = self.context
        if self.settings.mechanism:
            arguments["sasl_mechanism"] = self.settings.mechanism
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.settings.password
        return arguments

    def renew(self, producer: KafkaProducer) -> None:
        """Let a client that runs make its next connections with this. Those that it has go on. A connection takes its
        settings from this dictionary when it is made (kafka.net.manager, 3.0.12); a test with a real broker watches that.
        """
        producer._sender._client._manager.config.update(self.client())

    def expiry(self) -> tuple[int, int]:
        """Until when (Unix times, 0 without one) the first of our own certificates is valid, and the last of the
        authorities': from then on nothing verifies.
        """
        own, authorities = (
            [int(certificates.validity(der)[1]) for der in certificates.certificates(pem)]
            for pem in (self.settings.certificate, self.settings.ca)
        )
        return min(own, default=0), max(authorities, default=0)

    def note(self, notes: Notes) -> None:
        """Set the numbers that become metrics."""
        notes["tls_certificate_expiry"], notes["tls_ca_expiry"] = self.expiry()
