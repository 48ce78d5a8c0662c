"""What children may say: whoever says something else is ended, and the supervisor is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.supervisor.said import may_say

ROLES = ("loader", "shard", "sink", "health")
GOOD: list[tuple[str, dict[str, Any]]] = [
    *((role, {"kind": "ready"}) for role in ROLES),
    ("shard", {"kind": "problem", "text": "x"}),
    ("sink", {"kind": "destination_gone", "why": ""}),
    ("sink", {"kind": "largest", "bytes": 1 << 20}),
    ("sink", {"kind": "taken", "epoch": (1 << 64) - 1, "records": 0}),
    ("loader", {"kind": "unseen", "rows": [{"name": "x"}]}),
    ("loader", {"kind": "unsupported", "rows": []}),
]


@pytest.mark.parametrize(("role", "message"), GOOD)
def test_each_role_says_its_own(role: str, message: dict[str, Any]) -> None:
    assert may_say(role, message, hands_over=False)
    others = {other for other in ROLES if may_say(other, message, hands_over=False)}
    assert others == {other for other, said in GOOD if said["kind"] == message["kind"]} | (
        {"loader", "sink"} if message["kind"] == "problem" else set()
    )


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"kind": None},
        {"kind": ["ready"]},
        {"kind": {"ready": 1}},
        {"kind": "largest"},
        {"kind": "largest", "bytes": "x"},
        {"kind": "largest", "bytes": -1},
        {"kind": "largest", "bytes": 1 << 40},
        {"kind": "largest", "bytes": True},
        {"kind": "taken", "epoch": 1},
        {"kind": "taken", "epoch": 1, "records": 1.5},
        {"kind": "problem", "text": ["x"]},
        {"kind": "destination_gone", "why": "x" * 70_000},
        {"kind": "held", "names": []},
    ],
)
def test_what_is_malformed(message: dict[str, Any]) -> None:
    assert not may_say("sink", message, hands_over=False)


def test_only_the_loader_hands_over() -> None:
    assert may_say("loader", {"kind": "held"}, hands_over=True)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(ROLES), st.dictionaries(st.sampled_from(["kind", "bytes", "rows", "why", "text", "epoch"]), anything))
def test_whatever_is_said_is_judged(role: str, message: dict[str, Any]) -> None:
    may_say(role, message, hands_over=False)
