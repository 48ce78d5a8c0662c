"""What an expression of PromQL asks for, and which metrics there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql

from tests.conftest import ROOT

_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|(.*?)\| ", re.MULTILINE)  # name, kind, labels
# of the targets of a Prometheus, whatever they are
TARGET_LABELS = frozenset({"instance", "job", "namespace", "pod", "node", "container"})


def metrics() -> dict[str, frozenset[str]]:
    """The names under which a Prometheus has the collector's metrics, with their labels; of docs/metrics.md, which is made
    of the declarations and tested to be so.
    """
    found: dict[str, frozenset[str]] = {}
    for name, kind, labels in _ROW.findall((ROOT / "docs" / "metrics.md").read_text()):
        names = frozenset(
            label.partition("=")[0]
            for part in labels.split(",")
            for label in re.findall(r"`?([a-z_]+(?:=[\w-]+)?)`?", part)[:1]
        )
        for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
            found[name + suffix] = names | ({"le"} if suffix == "_bucket" else frozenset())
    return found


def _parts(node: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector", "vector_selectors"):
        inner = getattr(node, name, None)
        if isinstance(inner, promql.Expr):
            yield from _parts(inner)
    for inner in getattr(node, "args", None) or ():
        yield from _parts(inner)


def complaints(expression: str) -> list[str]:
    """What is wrong with an expression: that it is none, or what it asks for that the collector does not have."""
    try:
        parsed = promql.parse(expression)
    except ValueError as error:
        return [f"{expression}: {error}"]
    known, found = metrics(), []
    selected: set[str] = set()
    names = []
    for part in _parts(parsed):
        if isinstance(part, promql.VectorSelector):
            names.append(part.name)
            if part.name not in known:
                found.append(f"there is no metric {part.name}")
                continue
            selected |= known[part.name]
            unknown = {matcher.name for matcher in part.matchers.matchers} - known[part.name] - TARGET_LABELS
            found += [f"{part.name} has no label {name}" for name in unknown]
    for labels in re.findall(r"\bby ?\(([^)]*)\)", expression):
        unknown = set(re.findall(r"\w+", labels)) - selected - TARGET_LABELS
        found += [f"nothing in {expression} has a label {name}" for name in unknown]
    return found if names else [f"{expression} asks for no metric"]
