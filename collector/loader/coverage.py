"""Is a file that a process has mapped one in which our probes are already, under another device number?

Every mount of an overlay file system has a device of its own, so the same file of an image is another device:inode in each
container, and probes in two of them would tell each byte twice. Nor does the inode number say that it is the same: it
stays when a container has written to its copy (the file was copied up). What decides is the process's own memory: where a
probe is, the kernel has put a breakpoint (docs/decisions/0019-one-attachment-per-file.md).
"""

from __future__ import annotations

from collector.loader.mapped import Mapping, Proc
from collector.loader.probes.attachments import Target

BREAKPOINT = 0xCC


def alike(one: Target, other: Target) -> bool:
    """May both be the same file, on different devices? By inode number, size and time of modification, which a copy has
    too.
    """
    return (
        one.file != other.file
        and one.inode == other.inode
        and bool(one.stamp)
        and one.stamp.split(".")[1:3] == other.stamp.split(".")[1:3]
    )


def covered(proc: Proc, pid: int, mapping: Mapping, offset: int, own: int) -> bool | None:
    """Has process ``pid`` a breakpoint where it has mapped the byte at ``offset`` of the file? ``own``: what the file has
    there. None when nobody can tell: the process is gone, or that byte is not in this mapping.
    """
    begin, end = (int(part, 16) for part in mapping.place.split("-"))
    address = begin + offset - mapping.offset
    there = proc.peek(pid, address) if begin <= address < end else None
    return None if there is None or own == BREAKPOINT else there == BREAKPOINT
