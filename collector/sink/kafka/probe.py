"""Why can a broker not be reached? A connection of our own says it, step by step: address, TCP, TLS, SASL.

kafka-python keeps the answer to itself: a refused login and a refused certificate look like a lost connection there
(the broker's answer and the end of the connection arrive together, and it throws the answer away). Requests and SASL
mechanisms are the library's; only the socket is ours. No record is sent, and no password where TLS is wanted and there
is none.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from typing import Any

from kafka.errors import KafkaError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.admin import DescribeConfigsRequest
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from collector.sink.kafka import certificates
from collector.sink.kafka.security import Security

log = logging.getLogger("sink.kafka")

SECONDS = 2.0  # for one connection; two are made at most
ANSWER_BYTES = 1 << 20

_EXPIRED, _NOT_YET_VALID = 10, 9  # X509_V_ERR_*, from OpenSSL's x509_vfy.h
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 24, 27})
_OTHER_NAME = frozenset({62, 64})
_UNSUPPORTED_MECHANISM, _ILLEGAL_SASL_STATE, _AUTHENTICATION_FAILED = 33, 34, 58  # Kafka's error codes
_TOPIC, _MOST_BYTES = 2, "max.message.bytes"  # a kind of resource, and what is asked of it
_CUT_OFF = (ConnectionResetError, BrokenPipeError, EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Refused(Exception):
    """A step failed; the text is for the operator."""


def address(host: str, port: int) -> str:
    """HOST:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _clean(text: object) -> str:
    """What a broker says, as part of one line."""
    return re.sub(r"[^ -~]+", " ", str(text))[:300].strip()


class Probe:
    """One look at one broker. ``seconds`` is the time for each connection."""

    def __init__(self, host: str, port: int, security: Security, seconds: float = SECONDS) -> None:
        self._host, self._port, self._security = host, port, security
        self._seconds = seconds
        self._deadline = 0.0

    def cause(self) -> str:
        """Why this broker takes no records; "" when nothing is wrong that a new connection shows."""
        try:
            with self._connect() as raw, self._encrypt(raw) as sock:
                talk = self._begin(sock)
                if not self._security.settings.mechanism:
                    self._ask_for_brokers(talk)
        except Refused as refused:
            return str(refused)
        except TimeoutError:
            return f"it does not answer within {self._seconds:g} s"
        except (OSError, EOFError) as error:
            return f"the connection is lost: {_clean(error)}"
        except (KafkaError, ValueError, LookupError) as error:
            return f"its answer is not Kafka's ({_clean(error) or type(error).__name__})"
        return ""

    def most_bytes(self, topic: str) -> int:
        """The topic's max.message.bytes; 0 when this broker does not say, for which it asks a right of its own."""
        try:
            with self._connect() as raw, self._encrypt(raw) as sock:
                wanted = DescribeConfigsRequest.DescribeConfigsResource(
                    resource_type=_TOPIC, resource_name=topic, configuration_keys=[_MOST_BYTES]
                )
                answer = self._begin(sock).ask(DescribeConfigsRequest(version=1, resources=[wanted], include_synonyms=False))
                for result in answer.results:
                    for entry in result.configs or ():
                        if entry.name == _MOST_BYTES and str(entry.value).isdigit():
                            return int(entry.value)
        except (Refused, OSError, EOFError, KafkaError, ValueError, LookupError) as error:
            log.debug("%s does not say what topic %s takes: %s", address(self._host, self._port), topic, error)
        return 0

    def _begin(self, sock: socket.socket) -> _Talk:
        talk = _Talk(sock, self._deadline)
        self._greet(talk)
        if self._security.settings.mechanism:
            self._log_in(talk)
        return talk

    # -- TCP

    def _connect(self) -> socket.socket:
        self._deadline = time.monotonic() + self._seconds
        try:
            return socket.create_connection((self._host, self._port), self._seconds)
        except socket.gaierror as error:
            raise Refused(f"the name cannot be resolved: {error.strerror}") from None
        except UnicodeError:  # a broker that has such a name for another
            raise Refused("the name cannot be resolved: a label that is empty, or has more than 63 characters") from None
        except TimeoutError:
            raise Refused(f"no connection within {self._seconds:g} s: is there a firewall on the way?") from None
        except OSError as error:
            raise Refused(f"cannot connect: {error.strerror}") from None

    # -- TLS

    def _encrypt(self, raw: socket.socket) -> socket.socket:
        context = self._security.context
        if context is None:
            return raw
        try:
            return context.wrap_socket(raw, server_hostname=self._host.rstrip("."))
        except ssl.SSLCertVerificationError as error:
            raise Refused(self._unverified(error)) from None
        except (ssl.SSLError, OSError) as error:
            self._refused_certificate(error)
            if self._speaks_clear_text():
                raise Refused("it speaks Kafka without TLS on this port, and COLLECTOR_KAFKA_TLS is on") from None
            reason = getattr(error, "reason", None) or _clean(error) or type(error).__name__
            raise Refused(f"the TLS handshake failed ({reason}): is this a port for TLS?") from None

    def _unverified(self, error: ssl.SSLCertVerificationError) -> str:
        code, words = error.verify_code, _clean(error.verify_message).rstrip(".")
        if code in (_EXPIRED, _NOT_YET_VALID):
            begin, end = self._validity()
            if code == _EXPIRED:
                return "the broker's certificate, or one that it was signed with, has expired" + (
                    f" (its own on {certificates.date(end)})" if 0 < end < time.time() else ""
                )
            return "the broker's certificate is not valid yet" + (f" (from {certificates.date(begin)} on)" if begin else "")
        if code in _UNKNOWN_AUTHORITY:
            where = self._security.settings.ca_file or "the system's store, and COLLECTOR_KAFKA_TLS_CA_FILE is not set"
            return f"the broker's certificate is not signed by an authority in {where} ({words})"
        if code in _OTHER_NAME:
            return f"the broker's certificate is for another name ({words})"
        return f"the broker's certificate is refused ({words})"

    def _validity(self) -> tuple[float, float]:
        """Of the broker's own certificate, (0, 0) when it cannot be had."""
        try:
            with self._connect() as raw, self._anonymous().wrap_socket(raw) as sock:
                return certificates.validity(sock.getpeercert(binary_form=True) or b"")
        except (Refused, OSError, ValueError):
            return 0.0, 0.0

    @staticmethod
    def _anonymous() -> ssl.SSLContext:
        """For handshakes after which nothing is said."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def _refused_certificate(self, error: Exception) -> None:
        """Raise Refused when the broker said that it does not like our certificate. With TLS 1.3 it says so after the
        handshake, and Java's says `certificate unknown` whatever it is.
        """
        reason = str(getattr(error, "reason", None) or "")
        if "ALERT" not in reason:
            return
        if not any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")):
            raise Refused(f"the broker ends the TLS handshake ({reason})")
        settings = self._security.settings
        if not settings.certificate:
            raise Refused(f"the broker wants a client certificate, and COLLECTOR_KAFKA_TLS_CERT_FILE is not set ({reason})")
        expired = self._security.expiry()[0]
        why = (
            f"it expired on {certificates.date(expired)}"
            if expired < time.time()
            else "is it signed by an authority that the broker knows, and not revoked?"
        )
        raise Refused(f"the broker refuses our certificate {settings.certificate_file} ({reason}): {why}")

    # -- Kafka

    def _greet(self, talk: _Talk) -> None:
        try:
            talk.ask(ApiVersionsRequest(version=0))
        except ssl.SSLError as error:
            self._refused_certificate(error)
            raise
        except (*_CUT_OFF, KafkaError) as error:  # an alert is read as an answer of a wrong length
            if self._security.context is None and self._speaks_tls():
                raise Refused("it speaks TLS on this port, and COLLECTOR_KAFKA_TLS is not on") from None
            if isinstance(error, KafkaError):
                raise
            raise Refused("it ends the connection at the first request: is this a port of a Kafka broker?") from None

    def _speaks_clear_text(self) -> bool:
        try:
            with self._connect() as sock:
                _Talk(sock, self._deadline).ask(ApiVersionsRequest(version=0))
        except (Refused, OSError, EOFError, KafkaError, ValueError, LookupError):
            return False
        return True

    def _speaks_tls(self) -> bool:
        try:
            with self._connect() as raw, self._anonymous().wrap_socket(raw):
                return True
        except ssl.SSLError as error:
            return "ALERT" in str(error.reason)
        except (Refused, OSError):
            return False

    def _ask_for_brokers(self, talk: _Talk) -> None:
        try:
            talk.ask(MetadataRequest(version=1, topics=[]))
        except _CUT_OFF:
            raise Refused(
                "it ends the connection at the first request: does it want a login (COLLECTOR_KAFKA_SASL)?"
            ) from None

    def _log_in(self, talk: _Talk) -> None:
        name = self._security.settings.mechanism
        answer = talk.ask(SaslHandshakeRequest(mechanism=name, version=1))
        if answer.error_code == _UNSUPPORTED_MECHANISM:
            offered = _clean(", ".join(answer.mechanisms))
            raise Refused(f"it does not take SASL {name} on this port; it offers {offered or 'none'}")
        if answer.error_code == _ILLEGAL_SASL_STATE:
            raise Refused("it wants no login on this port, and SASL is on (COLLECTOR_KAFKA_SASL, IS_AUTH_IMPLEMENTED)")
        self._judge(answer.error_code, "", name)
        mechanism = get_sasl_mechanism(name)(host=self._host, **self._security.client())
        while not mechanism.is_done():
            answer = talk.ask(SaslAuthenticateRequest(mechanism.auth_bytes(), version=0))
            self._judge(answer.error_code, answer.error_message, name)
            try:
                mechanism.receive(answer.auth_bytes)
            except (ValueError, LookupError):
                raise Refused(f"its part of SASL {name} is wrong: it does not know the password itself") from None

    def _judge(self, code: int, message: str | None, name: str) -> None:
        if code == 0:
            return
        words = _clean(message or for_code(code).__name__)
        if code == _AUTHENTICATION_FAILED:
            raise Refused(f"it refuses user name or password of {self._security.settings.username!r}, SASL {name} ({words})")
        raise Refused(f"the login fails, SASL {name} ({words})")


class _Talk:
    """Requests and answers, one after the other, until a moment of the monotonic clock."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._protocol = KafkaProtocol(client_id="collector", receive_message_max_bytes=ANSWER_BYTES)

    def ask(self, request: Any) -> Any:
        """The answer to a request. Raises OSError, EOFError, KafkaError."""
        self._protocol.send_request(request)
        self._wait()
        self._sock.sendall(self._protocol.send_bytes())
        while True:
            self._wait()
            data = self._sock.recv(65536)
            if not data:
                raise EOFError("the broker ends the connection")
            for _number, answer in self._protocol.receive_bytes(data):
                return answer

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
