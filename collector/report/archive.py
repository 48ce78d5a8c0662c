"""The archive: parts that are made one after the other, each within its time, each without addresses, and a list of them."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

MOST_BYTES = 8 << 20  # of a part


@dataclass(frozen=True)
class Part:
    """A file of the archive: ``make`` returns its text, or raises an error, which becomes the text."""

    name: str
    make: Callable[[], str]
    seconds: float = 10.0


@dataclass(frozen=True)
class Made:
    """``problem`` is "" for a part that is as it should be."""

    name: str
    text: str
    problem: str


def make(part: Part, mask: Callable[[str], str]) -> Made:
    """The part, or why there is none. What does not end in its time is left behind in a thread of its own, which does not
    hold up the end of the process.
    """
    said: list[str] = []
    failed: list[str] = []

    def work() -> None:
        try:
            said.append(mask(part.make()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are wanted
            failed.append(mask(f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=work, name=part.name, daemon=True)
    thread.start()
    thread.join(part.seconds)
    if said:
        cut = len(said[0]) > MOST_BYTES
        return Made(part.name, said[0][-MOST_BYTES:], f"only the last {MOST_BYTES >> 20} MiB" if cut else "")
    problem = failed[0] if failed else f"not done within {part.seconds:g} s"
    return Made(part.name, f"{problem}\n", problem)


class Archive:
    """Writes the tar file, gzip-compressed, below one directory ``top``. Raises OSError."""

    def __init__(self, file: BinaryIO, top: str) -> None:
        self._top = top
        self._tar = tarfile.open(fileobj=file, mode="w:gz")  # noqa: SIM115 - closed by `close`
        self._now = int(time.time())

    def add(self, name: str, text: str) -> int:
        """Add a file; its bytes."""
        data = text.encode("utf-8", "replace")
        entry = tarfile.TarInfo(f"{self._top}/{name}")
        entry.size, entry.mode, entry.mtime = len(data), 0o600, self._now
        self._tar.addfile(entry, io.BytesIO(data))
        return len(data)

    def close(self) -> None:
        """Write the end."""
        self._tar.close()
