"""What a topic takes at once: its max.message.bytes, which bounds a batch as it is sent, and so a record.

Asked of the brokers, in a thread, when they are reached and now and then; found out by halving where they do not say (that
needs a right that writing does not). The shards are told, and make no batch that is larger.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from collector.sink.kafka.probe import Probe
from collector.sink.kafka.security import Security

log = logging.getLogger("sink.kafka")

ASK_SECONDS, ASK_AGAIN_SECONDS = 600.0, 5.0  # between two questions; the second after a refusal
LEAST_BYTES = 8192
# Of what the topic takes, where the broker writes batches anew: before compression a batch has up to twice the bytes that
# the shards are told, and one more record.
WRITTEN_ANEW = 3


class TopicLimit:
    """``bytes``: the largest batch, as it is sent; ``record_bytes``: the largest record; 0 while nothing is known.
    ``brokers``: (host, port) of each.
    """

    def __init__(self, brokers: Sequence[tuple[str, int]], topic: str, security: Callable[[], Security]) -> None:
        self.bytes = self.record_bytes = 0
        self._brokers = brokers
        self._topic = topic
        self._security = security
        self._next = 0.0
        self._said = 0
        self._asking = threading.Lock()

    def look(self, now: float) -> None:
        """Some broker is reached: ask, if it is time to."""
        if now >= self._next and self._asking.acquire(blocking=False):
            self._next = now + ASK_SECONDS
            try:
                threading.Thread(target=self._ask, name="topic limit", daemon=True).start()
            except RuntimeError as error:  # no more threads: it is a question that can wait
                self._asking.release()
                log.warning("cannot ask what topic %s takes: %s", self._topic, error)

    def refused(self, size: int) -> None:
        """A batch of so many bytes was too large, which says nothing of its records. What is said of the topic may be old,
        or the broker writes batches anew (compression.type), and their size before compression counts.
        """
        if size <= self._said:
            self.bytes = min(self.bytes, max(LEAST_BYTES, self._said // WRITTEN_ANEW))
        elif not 0 < self.bytes < size:
            self.bytes = max(LEAST_BYTES, size // 2)
        self._ask_soon()

    def refused_record(self, size: int) -> None:
        """A record of so many bytes was too large by itself."""
        if not 0 < self.record_bytes < size:
            self.record_bytes = max(LEAST_BYTES, size // 2)
            self.bytes = min(self.bytes or self.record_bytes, self.record_bytes)
        self._ask_soon()

    def _ask_soon(self) -> None:
        self._next = min(self._next, time.monotonic() + ASK_AGAIN_SECONDS)

    def _ask(self) -> None:
        try:
            for host, port in self._brokers:
                most = Probe(host, port, self._security()).most_bytes(self._topic)
                if most:
                    if most != self._said:  # else what was found out since is less, and true: the broker compresses anew
                        self._said = self.bytes = self.record_bytes = most
                    return
        except Exception:
            log.exception("cannot find out what topic %s takes", self._topic)
        finally:
            self._asking.release()
