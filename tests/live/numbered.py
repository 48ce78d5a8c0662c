"""Numbered exchanges, and what became of them: a client that logs what it made, and a reader of all that Kafka has."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.structs import TopicPartition

from tests.live.programs import answer, read_request
from tests.live.test_capture import http
from tests.live.test_sockets import Server

PARTITIONS = 3
THINKS_SECONDS = 0.02  # so at any moment each connection has an exchange that waits for its answer

Exchange = tuple[str, str]  # direction ("1": the server's record, "2": the client's), path


def slow_echo(sock: socket.socket) -> None:
    """Serve a connection, each answer after a while."""
    while (request := read_request(sock)) is not None:
        time.sleep(THINKS_SECONDS)
        sock.sendall(answer(*request))


class NumberedLoad:
    """Exchanges PREFIX/CONNECTION/NUMBER on keep-alive connections, one after the other on each, until stopped."""

    def __init__(self, prefix: str, connections: int = 8) -> None:
        self.answered = [0] * connections
        self.prefix = prefix
        self._server = Server(slow_echo)
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(connections)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        with self._server.connect() as sock:
            while not self._end.is_set():
                http(
                    sock, b"GET %s/%d/%d HTTP/1.1\r\nHost: h\r\n\r\n" % (self.prefix.encode(), number, self.answered[number])
                )
                self.answered[number] += 1

    def total(self) -> int:
        """Exchanges so far."""
        return sum(self.answered)

    def stop(self) -> set[Exchange]:
        """End it; what both sides' records must be of."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._server.close()
        return {
            (direction, f"{self.prefix}/{n}/{i}")
            for direction in "12"
            for n, count in enumerate(self.answered)
            for i in range(count)
        }


def make_topic(address: str, name: str) -> str:
    """A new topic; its name."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    admin.close()
    return name


class Reader:
    """Reads all of a topic, part after part."""

    def __init__(self, address: str, name: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=address, group_id=None, consumer_timeout_ms=200)
        self._partitions = [TopicPartition(name, n) for n in range(PARTITIONS)]
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning()

    def read(self) -> list[dict[str, str]]:
        """The records that have come since the last call: up to where the topic ends now."""
        ends = self._consumer.end_offsets(self._partitions)
        out: list[dict[str, str]] = []
        while any(self._consumer.position(p) < ends[p] for p in self._partitions):
            out.extend(json.loads(message.value) for message in self._consumer)
        return out

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


def exchanges(records: list[dict[str, str]], prefix: str) -> Counter[Exchange]:
    """How often each exchange of a load was recorded."""
    return Counter((r["direction"], r["path"]) for r in records if r["path"].startswith(prefix + "/"))
