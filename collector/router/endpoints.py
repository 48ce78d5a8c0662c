"""Names of the sockets between the processes.

They are files in a directory of mode 0700 that belongs to the collector's user, never abstract: with the host's
network namespace every local user could connect to an abstract socket. The names are relative: every child has made the
directory its working directory while it was still privileged, so the directories above need not be open to its user.
"""

from __future__ import annotations


def shard(number: int) -> str:
    """Where shard ``number`` receives spans."""
    return f"ipc://shard-{number}.sock"


def sink() -> str:
    """Where the sink receives batches."""
    return "ipc://sink.sock"
