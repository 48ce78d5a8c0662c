"""Names of the sockets between the processes.

They are files in a directory of mode 0700 that belongs to the collector's user, never abstract: with the host's
network namespace every local user could connect to an abstract socket.
"""

from __future__ import annotations


def shard(directory: str, number: int) -> str:
    """Where shard ``number`` receives spans."""
    return f"ipc://{directory}/shard-{number}.sock"


def sink(directory: str) -> str:
    """Where the sink receives batches."""
    return f"ipc://{directory}/sink.sock"
