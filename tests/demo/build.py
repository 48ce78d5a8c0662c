"""The libraries of the demo sources, compiled where a test wants them."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def library(name: str, directory: Path) -> Path:
    """lib`name`.so in a directory."""
    path = directory / f"lib{name}.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-fvisibility=hidden", "-o", path, HERE / f"{name}.c"], check=True
    )
    return path
