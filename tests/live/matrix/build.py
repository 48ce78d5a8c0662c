"""The compiled programs of both matrices and of HTTP/3, in build/matrix of the checkout. `python -m tests.live.matrix.build`
makes all but the slow ones.

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

LIVE = Path(__file__).resolve().parents[1]
TARGET = ROOT / "build" / "matrix"
C_FLAGS = ("-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror")
STATIC_OPENSSL = ("-Wl,-Bstatic", "-lssl", "-lcrypto", "-Wl,-Bdynamic", "-ldl")


@dataclass(frozen=True)
class Recipe:
    """Sources (a file with the headers beside it, or a folder with all that is in it; from tests/live), the command that
    compiles them, and how the result starts.

    In both commands {source} is its path and {out} the folder for what is made."""

    source: str
    make: tuple[str, ...]
    run: tuple[str, ...]
    slow: bool = False


def go(*flags: str) -> Recipe:
    """A build of the Go program of the TLS matrix."""
    return Recipe("tls/matrix.go", ("go", "build", *flags, "-o", "{out}/matrix", "{source}"), ("{out}/matrix",))


RECIPES = {
    "netty": Recipe(
        "matrix/netty",
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
        "matrix/axum",
        ("cargo", "build", "-q", "--release", "--locked", "--manifest-path", "{source}/Cargo.toml", "--target-dir", "{out}"),
        ("{out}/release/matrix-axum",),
    ),
    "beast": Recipe(
        "matrix/beast.cpp",
        ("g++", "-std=c++17", "-O1", "-Wall", "-pthread", "{source}", "-o", "{out}/beast"),
        ("{out}/beast",),
    ),
    "tlsplay": Recipe(
        "matrix/tlsplay.c",
        ("gcc", *C_FLAGS, "{source}", "-o", "{out}/tlsplay", "-lssl", "-lcrypto", "-pthread"),
        ("{out}/tlsplay",),
    ),
    "uring": Recipe("matrix/uring.c", ("gcc", *C_FLAGS, "{source}", "-o", "{out}/uring", "-luring"), ("{out}/uring",)),
    "mixed": Recipe(
        "matrix/mixed.c", ("gcc", *C_FLAGS, "{source}", "-o", "{out}/mixed", "-luring", "-pthread"), ("{out}/mixed",)
    ),
    "overlap": Recipe(
        "matrix/overlap.c", ("gcc", *C_FLAGS, "{source}", "-o", "{out}/overlap", "-pthread"), ("{out}/overlap",)
    ),
    "tls-openssl": Recipe(
        "tls/openssl.c",
        ("gcc", *C_FLAGS, "{source}", "-o", "{out}/openssl", *STATIC_OPENSSL, "-pthread"),
        ("{out}/openssl",),
    ),
    "tls-gnutls": Recipe(
        "tls/gnutls.c", ("gcc", *C_FLAGS, "{source}", "-o", "{out}/gnutls", "-lgnutls", "-pthread"), ("{out}/gnutls",)
    ),
    "tls-boring": Recipe(
        "tls/boring",
        ("cargo", "build", "-q", "--release", "--locked", "--manifest-path", "{source}/Cargo.toml", "--target-dir", "{out}"),
        ("{out}/release/matrix-boring",),
        slow=True,
    ),
    "tls-go": go(),
    "tls-go-stripped": go("-ldflags", "-s -w"),
    "tls-go-pie": go("-buildmode=pie"),
    "http3-quicgo": Recipe("http3/quicgo", ("go", "build", "-C", "{source}", "-o", "{out}/quicgo", "."), ("{out}/quicgo",)),
    "h2-go": Recipe("h2/golang", ("go", "-C", "{source}", "build", "-o", "{out}/h2", "."), ("{out}/h2",)),
}


def digest(recipe: Recipe) -> str:
    """What a program is made of: its sources and its command."""
    source = LIVE / recipe.source
    folder = sorted(p for p in source.rglob("*") if p.is_file() and "target" not in p.relative_to(source).parts)
    files = folder or [source, *sorted(source.parent.glob("*.h"))]
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
    return [w.replace("{source}", str(LIVE / recipe.source)).replace("{out}", str(out)) for w in command]


def command(name: str) -> list[str]:
    """How to start a program, made now if need be."""
    problem = build(name)
    if problem:
        skip_or_fail(problem)
    first, *rest = words(RECIPES[name].run, RECIPES[name], TARGET / name)
    return [shutil.which(first) or first, *rest]


def main() -> None:
    """All of them, but for those that take minutes."""
    problems = [problem for name, recipe in RECIPES.items() if not recipe.slow and (problem := build(name))]
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
