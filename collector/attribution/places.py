"""Where a process is: its control groups, by its number while it lives, and by the number of its group of version 2, which
the kernel programs tell, when it has ended.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence

from collector.attribution.containers import Place, parse_cgroups
from collector.attribution.owners import began_at, parse_stat

KNOWN = 8192  # groups that are remembered
ROOT_GROUP = 1  # its number: of processes that version 2 has not sorted
TREE_SECONDS = 0.02  # between two looks at all groups, and
TREE_SHARE = 50  # so many times what the last one took, but no more than
TREE_MOST_SECONDS = 0.4  # this: records wait for it, and not for longer than COLLECTOR_POD_WAIT_MS
MOST_GROUPS = 50_000
# Where the tree of version 2 may be: of the host's first process, or mounted for us, before what our own namespace shows
TREES = tuple(f"{root}/sys/fs/cgroup{part}" for root in ("/proc/1/root", "/host", "") for part in ("", "/unified"))
MOUNTED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_FIRST_LINE = "0::"
_PIDFD_INFO = struct.Struct("=QQ48s")  # mask, cgroupid, and what is not asked for
_PIDFD_INFO_CGROUPID = 1 << 2
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO.size << 16 | 0xFF << 8 | 11
_ENDED = (b"Z", b"X", b"x")  # states of proc_pid_stat(5)


class Places:
    """``proc``: where processes are seen; ``trees``: candidates for the mounted tree of version 2; ``mounted``: where it is
    mounted for us, from the root of our namespace on. Not thread-safe.
    """

    def __init__(self, proc: str = "/proc", trees: Sequence[str] = TREES, mounted: Sequence[str] = MOUNTED) -> None:
        self._proc = proc
        self._tree = next((tree for tree in trees if os.path.exists(f"{tree}/cgroup.procs")), "")
        self._mounted = mounted
        self._ask_kernel = proc == "/proc"
        self._root: str | None = None
        self._known: collections.OrderedDict[int, Place] = collections.OrderedDict()
        self._looked, self._next_look = -1.0, 0.0

    def find(self, tgid: int, start_ns: int, group: int, now: float) -> tuple[Place | None, int]:
        """(where it is, when it began) of a process that began at ``start_ns`` (CLOCK_BOOTTIME; 0 for any) and was in the
        group of that number (0: not known); None for the place when nobody can say any more. ``now``: time.monotonic().
        """
        place = self._known.get(group) if group > ROOT_GROUP else None
        if place is not None:
            self._known.move_to_end(group)
            return place, start_ns
        found = self._read(tgid, start_ns)
        if found is not None:
            text, began_ns = found
            place = parse_cgroups(text)
            # where only version 1 sorts containers, many of them share one group of version 2
            unified = next((line for line in text.splitlines() if line.startswith(_FIRST_LINE)), "")
            # it may have been moved since it was in that group
            if group > ROOT_GROUP and parse_cgroups(unified) == place and self._is_in(tgid, group, unified):
                self._keep(group, place)
            return place, start_ns or began_ns
        if group > ROOT_GROUP and self._tree and now >= self._next_look:
            began = time.monotonic()
            for number, path in _groups(self._tree):
                place = parse_cgroups(f"{_FIRST_LINE}{path}")
                if number not in self._known and (place.pod or place.containers):  # for the same reason
                    self._keep(number, place)
            pause = max(TREE_SECONDS, TREE_SHARE * (time.monotonic() - began))
            self._looked, self._next_look = now, now + min(pause, TREE_MOST_SECONDS)
            return self._known.get(group), start_ns
        return None, start_ns

    def may_look(self, now: float) -> bool:
        """Is it time for the next look at all groups?"""
        return now >= self._next_look

    def may_be_found(self, group: int, since: float) -> bool:
        """Could `find` say more by and by of who was in that group at ``since``, and has ended? Once all groups were looked
        at after that, it could not.
        """
        return group > ROOT_GROUP and bool(self._tree) and self._looked < since

    def of_group(self, group: int) -> Place | None:
        """Where processes of the group of that number are, as far as that is known."""
        return self._known.get(group) if group > ROOT_GROUP else None

    def _is_in(self, tgid: int, group: int, line: str) -> bool:
        """Is that process in that group now, whose path this is?"""
        number = kernel_says(tgid) if self._ask_kernel else None
        return group == (self._number(line) if number is None else number)

    def _number(self, line: str) -> int:
        """Of the group that a line of /proc/PID/cgroup names, 0 when that cannot be seen."""
        if not self._tree or not line:
            return 0
        if self._root is None:
            self._root = self._our_root()
        path = os.path.normpath(f"/{self._root}/{line.removeprefix(_FIRST_LINE)}").lstrip("/")
        with contextlib.suppress(OSError):
            return os.stat(f"{self._tree}/{path}").st_ino
        return 0

    def _our_root(self) -> str:
        """The path, in the tree, of the group that /proc/PID/cgroup shows us as `/`: in a cgroup namespace of our own it is
        not the tree's root (cgroup_namespaces(7)).
        """
        for mounted in self._mounted:
            with contextlib.suppress(OSError):
                if os.path.exists(f"{mounted}/cgroup.procs"):
                    number = os.stat(mounted).st_ino
                    if number != os.stat(self._tree).st_ino:
                        return next((path for found, path in _groups(self._tree) if found == number), "")
                    break
        return ""

    def _keep(self, group: int, place: Place) -> None:
        self._known[group] = place
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def _read(self, tgid: int, start_ns: int) -> tuple[str, int] | None:
        """(its groups, its start), if it is that process - the number may be another one's by now -, and has not ended:
        who has is in the root of version 1, wherever it was.
        """
        try:
            with open(f"{self._proc}/{tgid}/cgroup", encoding="utf-8", errors="replace") as file:
                text = file.read()
            with open(f"{self._proc}/{tgid}/stat", "rb") as file:
                stat = file.read()
        except OSError:
            return None
        found = parse_stat(stat)
        if not text or found is None or stat.rpartition(b")")[2].split()[0] in _ENDED:
            return None
        if start_ns and not began_at(start_ns, found[1]):
            return None
        return text, found[1]


def kernel_says(tgid: int) -> int | None:
    """The number of the group of version 2 that a process of our /proc is in, by PIDFD_GET_INFO (include/uapi/linux/pidfd.h,
    kernel 6.13 and later). None when it does not say.
    """
    try:
        fd = os.pidfd_open(tgid)
    except OSError:
        return None
    info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_CGROUPID, 0, b""))
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    finally:
        os.close(fd)
    mask, number, _rest = _PIDFD_INFO.unpack(info)
    return number if mask & _PIDFD_INFO_CGROUPID else None


def _groups(tree: str) -> Iterator[tuple[int, str]]:
    """(number, path) of all groups, as far as there are not too many."""
    waiting, left = [""], MOST_GROUPS
    while waiting and left:
        below = waiting.pop()
        try:
            with os.scandir(f"{tree}{below}") as entries:
                for entry in entries:
                    if left and entry.is_dir(follow_symlinks=False):
                        left -= 1
                        yield entry.inode(), f"{below}/{entry.name}"
                        waiting.append(f"{below}/{entry.name}")
        except OSError:  # it has just been removed
            continue
