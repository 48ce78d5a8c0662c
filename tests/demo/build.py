"""The libraries of the demo sources, compiled where a test wants them."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def library(name: str, directory: Path) -> Path:
    """lib`name`.so in a directory."""
    path = directory / f"lib{name}.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-fvisibility=hidden", "-o", path, HERE / f"{name}.c"], check=True
    )
    return path


@contextlib.contextmanager
def mapped(library: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    """This process has it loaded, and not any more afterwards: a collector of another test would find it."""
    try:
        yield library
    finally:
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(library._handle))
