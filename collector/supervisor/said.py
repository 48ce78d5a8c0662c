"""What children may say to the supervisor. Most have no privilege, and may have been taken over: a message that is not of
these forms, or not for that role to send, ends whoever sent it, and never us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from collector.supervisor.handover import KINDS


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 1 << 16


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def _batch_bytes(value: object) -> bool:
    return _number(value) and isinstance(value, int) and value < 1 << 31


def _rows(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


_FORMS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "ready": {},
    "problem": {"text": _text},
    "destination_gone": {"why": _text},
    "largest": {"bytes": _batch_bytes},
    "taken": {"epoch": _number, "records": _number},
    "followed": dict.fromkeys(("pods", "selected", "events", "lists", "errors", "behind"), _number),
    "unseen": {"rows": _rows},
    "unsupported": {"rows": _rows},
}
_MAY_SAY = {
    "health": ("ready",),
    "kubernetes": ("ready", "followed"),
    "shard": ("ready", "problem"),
    "sink": ("ready", "problem", "destination_gone", "largest", "taken"),
    "loader": ("ready", "problem", "unseen", "unsupported"),
}


def may_say(role: str, message: Mapping[str, Any], *, hands_over: bool) -> bool:
    """May a child of this role say this? ``hands_over``: it is the loader, and gives us what the kernel gave it; whether
    that is well formed handover.py says.
    """
    kind = message.get("kind")
    if kind in KINDS:
        return hands_over
    if kind not in _MAY_SAY[role]:
        return False
    return all(name in message and fits(message[name]) for name, fits in _FORMS[kind].items())
