"""The arrows between the parts: nobody imports against the direction of the data."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "collector"
PARTS = ("attribution", "eyes", "health", "kubernetes", "loader", "report", "router", "shards", "sink", "supervisor")

# Who may import whom, beside itself and the modules directly in collector/. The loader and the shards meet in the rings;
# the supervisor knows the settings of its children, and nothing of what they do.
ALLOWED = {
    "attribution": {"router"},
    "eyes": {"supervisor"},
    "health": set(),
    "kubernetes": {"attribution"},
    "loader": {"attribution", "kubernetes", "router"},
    "report": {"loader", "supervisor"},
    "router": set(),
    "shards": {"loader", "router"},
    "sink": {"router"},
    "supervisor": {"router"},
}


def imports(path: Path) -> set[str]:
    """Modules of the package that a Python file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("collector.")}


@pytest.mark.parametrize("part", PARTS)
def test_no_arrow_against_the_direction_of_the_data(part: str) -> None:
    for path in sorted((PACKAGE / part).rglob("*.py")):
        others = {name.split(".")[1] for name in imports(path)} & set(PARTS) - {part}
        assert others <= ALLOWED[part], f"{path.relative_to(PACKAGE)} imports {sorted(others - ALLOWED[part])}"


@pytest.mark.parametrize(
    "module",
    [
        "collector.supervisor.supervisor",
        "collector.supervisor.starting",
        "collector.supervisor.handover",
        "collector.loader.process",
        "collector.loader.compiler",
        "collector.loader.locate",
        "collector.sink.process",
        "collector.health.process",
        "collector.kubernetes.process",
        "collector.sink.destinations",
        "collector.eyes.tail",
        "collector.eyes.top",
    ],
)
def test_the_parser_is_loaded_by_the_shards_only(module: str) -> None:
    """Nor is the Kafka client loaded by anybody who does not deliver."""
    code = (
        f"import sys, {module}; print([name for name in sys.modules if name.startswith('collector.shards.') "
        "or name == 'kafka'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
