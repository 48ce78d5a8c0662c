"""What is wrong with the brokers, in one line each.

kafka-python logs three errors for each attempt to connect, several times a second, and none of them has the cause when
a certificate or a login is refused (probe.py). So what its network part logs is not passed on: it is the sign that
something is wrong, upon which each broker that the client tried lately gets one look. A cause is logged when it is new,
and again while it lasts, once a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from collector.sink.kafka.probe import Probe, address
from collector.sink.kafka.security import Security

log = logging.getLogger("sink.kafka")

LOOK_SECONDS = 2.0  # between two looks
REPEAT_SECONDS = 60.0
BROKERS = 8  # of one look
UNEXPLAINED_LOOKS = 3  # so often in a row nothing was found, and the client complains all the same
ROW_SECONDS = 20.0  # between two looks of one row

_NETWORK, _CLUSTER = "kafka.net", "kafka.cluster"
_OF_THE_NETWORK = ("Metadata refresh", "No node available")  # what the second says of it; the rest is about topics
_SASL = "kafka.net.sasl"  # says at each login that it is not encrypted; so do we, once
_MANAGER = "kafka.net.manager"
_CONNECTING = "Initializing connection for node_id"


@dataclass(slots=True)
class _Said:
    text: str
    at: float


class Causes(logging.Handler):
    """A handler for the client's network loggers between `start` and `stop`, and a thread that looks. ``security`` gives
    what connections are made with now; ``brokers`` is HOST:PORT[,HOST:PORT...].
    """

    def __init__(self, security: Callable[[], Security], brokers: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.INFO)
        self._security = security
        self._clock = clock
        self.configured = [
            (host.strip("[]"), int(port)) for host, _, port in (b.rpartition(":") for b in brokers.split(","))
        ]
        self._tried: dict[tuple[str, int], None] = {}  # by the client, the latest last
        self._complaint = ""
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._said: dict[str, _Said] = {}
        self._unexplained, self._looked_at = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="causes", daemon=True)
        self._levels: dict[str, tuple[int, bool]] = {}

    def start(self) -> None:
        """Take what the client logs, and look for once: the client connects when it has the first record, and what is wrong
        shall be known before.
        """
        if self._thread.ident is not None:  # another client is made
            return
        for name in (_NETWORK, _CLUSTER, _MANAGER):
            logger = logging.getLogger(name)
            self._levels[name] = logger.level, logger.propagate
            logger.setLevel(logging.WARNING)
        logging.getLogger(_MANAGER).setLevel(logging.INFO)  # it tells which brokers it connects to
        for name in (_NETWORK, _CLUSTER):
            logger = logging.getLogger(name)
            logger.propagate = False
            logger.addHandler(self)
        self._thread.start()
        self.look()

    def stop(self, seconds: float = 1.0) -> None:
        """The client is closed. A look that takes longer than ``seconds`` is not waited for."""
        self._ending.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        for name in (_NETWORK, _CLUSTER):
            logging.getLogger(name).removeHandler(self)
        for name, (level, propagate) in self._levels.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.propagate = propagate

    def look(self) -> None:
        """Something is wrong: look soon. From any thread."""
        self._wake.set()

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the client's network part."""
        if record.name.startswith(_SASL):
            return
        if record.name == _CLUSTER and not str(record.msg).startswith(_OF_THE_NETWORK):
            if record.levelno >= logging.ERROR:
                self._say("the client", record.getMessage(), record.levelno)
        elif record.levelno >= logging.WARNING:
            self._complaint = record.getMessage()
            self._wake.set()
        elif record.name == _MANAGER and str(record.msg).startswith(_CONNECTING) and isinstance(record.args, tuple):
            _node, host, port = record.args[:3]
            if isinstance(host, str) and isinstance(port, int):
                tried = dict(self._tried)
                tried.pop((host, port), None)
                tried[host, port] = None
                self._tried = dict(list(tried.items())[-BROKERS:])

    # -- the thread

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._ending.is_set():
                return
            self._wake.clear()
            try:
                self.turn()
            except Exception:
                log.exception("cannot find out what is wrong with the brokers")
            self._ending.wait(LOOK_SECONDS)

    def turn(self) -> None:
        """One look at the brokers that the client tried lately; at those that are configured, if it tried none."""
        security, complaint = self._security(), self._complaint
        found = False
        tried, self._tried = self._tried, {}
        for host, port in list(tried) or self.configured[:BROKERS]:
            if self._ending.is_set():
                return
            where = f"broker {address(host, port)}"
            cause = Probe(host, port, security).cause()
            if cause:
                found = True
                self._say(where, cause, logging.ERROR)
            elif self._said.pop(where, None) is not None:
                log.info("%s: reached", where)
        now, before = self._clock(), self._looked_at
        self._looked_at = now
        self._unexplained = 0 if found or now - before > ROW_SECONDS else self._unexplained + 1
        if self._unexplained >= UNEXPLAINED_LOOKS and complaint:
            self._say("the client", complaint[:300], logging.WARNING)

    def _say(self, where: str, text: str, level: int) -> None:
        now, said = self._clock(), self._said.get(where)
        if said is not None and said.text == text and now - said.at < REPEAT_SECONDS:
            return
        if len(self._said) > 100:
            self._said.clear()
        self._said[where] = _Said(text, now)
        log.log(level, "%s: %s", where, text)
