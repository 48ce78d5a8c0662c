"""What the broker has got."""

from __future__ import annotations

import time

from tests.events import validate
from tests.live.numbered import Reader

NAME = "akto.api.logs"


class Topic:
    """Records of Akto's topic, from its beginning on."""

    def __init__(self, address: str) -> None:
        self._reader = Reader(address, NAME)
        self._records: list[dict] = []

    def records(self, part: str) -> list[dict]:
        """Those that are there now, validated, whose path has ``part`` in it. Copies are counted once."""
        self._records += map(validate, self._reader.read())
        return list({one["recordId"]: one for one in self._records if part in one["path"]}.values())

    def wait(self, part: str, count: int, seconds: float = 40) -> list[dict]:
        """At least ``count``, by path."""
        deadline = time.monotonic() + seconds
        while len(found := self.records(part)) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(found) >= count, (len(found), [(r["direction"], r["path"], r["marks"]) for r in found][:8])
        return found

    def close(self) -> None:
        """Let go of the broker."""
        self._reader.close()
