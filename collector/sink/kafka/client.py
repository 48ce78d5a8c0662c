"""The client's connections, with a fault of kafka-python 3.0.12 repaired.

It takes a connection whose login or certificate was refused after the handshake for one that succeeded, and forgets the
back-off: with a topic known, it came back 107 to 141 times a second, at the cost of 0.7 to 0.9 cores of ours, and locks
accounts. `KafkaProducer` takes the class of its client as an argument.
"""

from __future__ import annotations

from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector


class Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Backs off until a connection works."""

    def reset_backoff(self, node_id: object) -> None:
        """Called when an attempt to connect has ended, whether it failed or not."""
        connection = self._conns.get(node_id)
        if connection is not None and connection.connected:
            super().reset_backoff(node_id)
        else:
            self.update_backoff(node_id)


class Client(KafkaNetClient):  # type: ignore[misc]
    """For the argument `kafka_client`."""

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        self.manager = Manager(net, **configs)
        super().__init__(net, self.manager, **configs)
