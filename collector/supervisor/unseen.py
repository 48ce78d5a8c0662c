"""Processes whose traffic the hooked calls do not show, as the loader tells: each name and reason is logged once."""

from __future__ import annotations

import logging
from typing import Any

from collector import metrics

log = logging.getLogger("supervisor")


class Unseen:
    """``rows``: as metrics.unseen."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int]] = []
        self._logged: set[tuple[str, str]] = set()

    def heard(self, rows: list[dict[str, Any]]) -> None:
        """All of them, each time."""
        self.rows = metrics.unseen(rows)
        for name, why in sorted({(row["name"], why) for row in rows for why in metrics.UNSEEN_REASONS if row[why]}):
            if (name, why) not in self._logged and len(self._logged) < metrics.UNSEEN_NAMES:
                self._logged.add((name, why))
                log.warning("process %r: %s", name, metrics.UNSEEN_REASONS[why][1])
