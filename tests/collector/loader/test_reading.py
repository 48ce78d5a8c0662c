"""In which order files are read."""

from __future__ import annotations

import os
from pathlib import Path

from collector.loader import mapped
from collector.loader.reading import WAITING, Reading, Request


def request(path: Path, owner: int) -> Request:
    path.touch()
    os.chown(path, owner, -1)
    fd = os.open(path, os.O_RDONLY)
    mapping = mapped.Mapping("0-1", "0:0", os.fstat(fd).st_ino, str(path), 0)
    return Request(os.getpid(), mapping, fd, mapped.stamp(fd), frozenset({"demo"}), by_name=True)


def test_who_maps_many_libraries_makes_nobody_else_wait(tmp_path: Path) -> None:
    reading = Reading({}, (), None, mapped.Proc())
    many = [request(tmp_path / f"{number}", 1000) for number in range(WAITING + 1)]
    one = request(tmp_path / "one", 1001)
    try:
        assert [reading.ask(file) for file in many] == [True] * WAITING + [False]
        assert reading.ask(one)
        assert [reading._next_library() for _ in range(3)] == [many[0], one, many[1]]
    finally:
        for file in (*many, one):
            os.close(file.fd)
