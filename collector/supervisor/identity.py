"""User ids that nobody else has, for the children without privilege.

A process may signal, trace and limit the other processes of its user. So the children become users of this start alone:
ids from a range that neither distributions nor directories of users give out (docs/architecture.md, Privileges), in no
list of users and of no running process.
"""

from __future__ import annotations

import os
import pwd
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

# Above the ranges of users, containers (systemd-nspawn, subordinate ids) and directory services (sssd: to 2,000,200,000),
# below 2^31, from which on programs read ids as negative numbers.
HIGH = range(2_010_000_000, 2_147_000_000)
# In a user namespace that maps no high ids: what systemd takes for its dynamic users.
LOW = range(61_184, 65_520)

_NEEDED = 1 << 0 | 1 << 6 | 1 << 7 | 1 << 8  # CAP_CHOWN, CAP_SETGID, CAP_SETUID, CAP_SETPCAP

Map = list[tuple[int, int]]  # [(first id, number of ids)] as seen inside


@dataclass(frozen=True)
class Choice:
    """``ids`` are the numbers to become (user and group); empty when there are none, and ``why`` says why."""

    ids: tuple[int, ...]
    why: str = ""


def parse_map(text: str) -> Map:
    """/proc/self/uid_map: the ids that exist in this user namespace."""
    rows = [line.split() for line in text.splitlines()]
    return [(int(row[0]), int(row[2])) for row in rows if len(row) == 3]


def candidates(maps: Iterable[Map], within: range) -> list[range]:
    """The parts of ``within`` that all of ``maps`` have."""
    parts = [within]
    for one in maps:
        parts = [range(max(part.start, first), min(part.stop, first + number)) for part in parts for first, number in one]
        parts = [part for part in parts if part]
    return parts


def pick(parts: list[range], count: int, taken: set[int], reserved: list[range]) -> list[int]:
    """``count`` different numbers out of ``parts`` at random, none of them taken; fewer when there are no more."""
    found: list[int] = []
    sizes = [len(part) for part in parts]
    source = random.SystemRandom()
    for _ in range(1000 if parts else 0):
        number = source.choice(source.choices(parts, sizes)[0])
        if number not in taken and number not in found and not any(number in part for part in reserved):
            found.append(number)
            if len(found) == count:
                break
    return found


def ids_in_use() -> set[int]:
    """All user and group ids of the processes that we can see."""
    used: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                    for line in file:
                        if line.startswith(("Uid:", "Gid:", "Groups:")):
                            used.update(map(int, line.split()[1:]))
            except (OSError, ValueError):
                continue
    return used


def subordinate_ids() -> list[range]:
    """The ranges that users may have in namespaces of their own."""
    out: list[range] = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for found in re.finditer(r"^[^:#\n]*:([0-9]{1,10}):([0-9]{1,10})\s*$", file.read(), re.MULTILINE):
                    out.append(range(int(found[1]), int(found[1]) + int(found[2])))
        except OSError:
            continue
    return out


def _listed(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True


def _may_become_others() -> bool:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        held = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
    return held & _NEEDED == _NEEDED


def choose(count: int) -> Choice:
    """``count`` ids for this start."""
    if os.geteuid() != 0:
        return Choice((), "not root: the children keep our user, whose other processes can signal them")
    if not _may_become_others():
        return Choice((), "no capability to become another user: the children keep user 0, whose processes can signal them")
    try:
        maps = []
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/self/{name}", encoding="ascii") as file:
                maps.append(parse_map(file.read()))
    except OSError:
        maps = [[(0, 0xFFFFFFFF)]]
    taken, reserved = ids_in_use(), subordinate_ids()
    for within in (HIGH, LOW):
        found = pick(candidates(maps, within), count, taken, reserved)
        if len(found) == count and not any(map(_listed, found)):
            return Choice(tuple(found))
    return Choice((), "this user namespace has no ids to spare: the children keep user 0 of it, without capabilities")
