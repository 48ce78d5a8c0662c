"""The compiled programs of the matrix, in build/matrix of the checkout. `python -m tests.live.matrix.build` makes all.

A program is made again only when a file of its sources has changed: the stamp beside it holds their hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, skip_or_fail

HERE = Path(__file__).resolve().parent
TARGET = ROOT / "build" / "matrix"
C_FLAGS = ("-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Recipe:
    """Sources (a file, or a folder with all that is in it), the command that compiles them, and how the result starts.

    In both commands {source} is its path and {out} the folder for what is made."""

    source: str
    make: tuple[str, ...]
    run: tuple[str, ...]


RECIPES = {
    "netty": Recipe(
        "netty",
        ("mvn", "-q", "-B", "-f", "{source}/pom.xml", "-DbuildDirectory={out}", "process-classes"),
        (
            "java",
            "-Xms64m",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            "{out}/classes:{out}/lib/*",
            "Server",
        ),
    ),
    "axum": Recipe(
        "axum",
        ("cargo", "build", "-q", "--release", "--locked", "--manifest-path", "{source}/Cargo.toml", "--target-dir", "{out}"),
        ("{out}/release/matrix-axum",),
    ),
    "beast": Recipe(
        "beast.cpp", ("g++", "-std=c++17", "-O1", "-Wall", "-pthread", "{source}", "-o", "{out}/beast"), ("{out}/beast",)
    ),
    "uring": Recipe("uring.c", ("gcc", *C_FLAGS, "{source}", "-o", "{out}/uring", "-luring"), ("{out}/uring",)),
    "tlsplay": Recipe(
        "tlsplay.c",
        ("gcc", *C_FLAGS, "{source}", "-o", "{out}/tlsplay", "-lssl", "-lcrypto", "-pthread"),
        ("{out}/tlsplay",),
    ),
    "mixed": Recipe("mixed.c", ("gcc", *C_FLAGS, "{source}", "-o", "{out}/mixed", "-luring", "-pthread"), ("{out}/mixed",)),
}


def digest(recipe: Recipe) -> str:
    """What a program is made of: its sources and its command."""
    source = HERE / recipe.source
    folder = sorted(p for p in source.rglob("*") if p.is_file() and "target" not in p.relative_to(source).parts)
    files = folder or [source, *sorted(HERE.glob("*.h"))]
    whole = hashlib.sha256(repr(recipe).encode())
    for file in files:
        whole.update(file.name.encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()


def build(name: str) -> str:
    """Make a program if need be; what went wrong, or nothing."""
    recipe, out = RECIPES[name], TARGET / name
    out.mkdir(parents=True, exist_ok=True)
    with (TARGET / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = out / ".stamp", digest(recipe)
        if stamp.exists() and stamp.read_text() == wanted:
            return ""
        if shutil.which(recipe.make[0]) is None:
            return f"needs {recipe.make[0]} (scripts/setup --test)"
        done = subprocess.run(
            words(recipe.make, recipe, out),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        if done.returncode:
            return f"{name} does not compile: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        stamp.write_text(wanted)
    return ""


def words(command: tuple[str, ...], recipe: Recipe, out: Path) -> list[str]:
    """A command with its paths."""
    return [w.replace("{source}", str(HERE / recipe.source)).replace("{out}", str(out)) for w in command]


def command(name: str) -> list[str]:
    """How to start a program, made now if need be."""
    problem = build(name)
    if problem:
        skip_or_fail(problem)
    first, *rest = words(RECIPES[name].run, RECIPES[name], TARGET / name)
    return [shutil.which(first) or first, *rest]


def main() -> None:
    """All of them."""
    problems = [problem for problem in map(build, RECIPES) if problem]
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
