"""The Go programs of the tests, in build/golang of the checkout, made again only when their sources have changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, skip_or_fail

HERE = Path(__file__).resolve().parent
TARGET = ROOT / "build" / "golang"


@dataclass(frozen=True)
class Kind:
    """How a program is linked. ``other``: with a crypto/tls in which the cheap places are not what they are."""

    flags: tuple[str, ...] = ()
    cgo: bool = False
    other: bool = False


STRIPPED = "-ldflags=-s -w"
KINDS = {
    "plain": Kind(),
    "stripped": Kind((STRIPPED,)),
    "pie": Kind(("-buildmode=pie",)),
    "pie-stripped": Kind(("-buildmode=pie", STRIPPED)),
    "cgo-external": Kind(("-ldflags=-s -w -linkmode=external",), cgo=True),
    "cgo-external-pie": Kind(("-buildmode=pie", "-ldflags=-s -w -linkmode=external"), cgo=True),
    "other-shape": Kind((STRIPPED,), other=True),
}
SOURCES = {"golang": "main.go", "plaintext": "plaintext/main.go"}


def go(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """What the go tool prints."""
    path = shutil.which("go") or "/usr/local/go/bin/go"
    if not os.path.exists(path):
        skip_or_fail("needs go")
    env = {**os.environ, "GOFLAGS": "", "GOENV": "off", "CGO_ENABLED": "0", **(environment or {})}
    done = subprocess.run([path, *arguments], env=env, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()


def program(kind: str = "plain", toolchain: str = "", name: str = "golang", **environment: str) -> Path:
    """The program of SOURCES, linked in one of KINDS, by another version of Go if ``toolchain`` names one."""
    how = KINDS[kind]
    if toolchain:
        environment["GOTOOLCHAIN"] = toolchain
    env = {"CGO_ENABLED": "1" if how.cgo else "0", **environment}
    texts = [(HERE / SOURCES[name]).read_text(), Path(__file__).read_text()]
    made_of = [*texts, kind, go("version", environment=env), repr(env)]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    out = TARGET / digest / f"{name}-{kind}"
    TARGET.mkdir(parents=True, exist_ok=True)
    with (TARGET / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            flags = list(how.flags)
            if how.other:
                flags += ["-overlay", str(other_shape(out.parent, env))]
            part = out.with_suffix(".part")
            go("build", "-trimpath", *flags, "-o", str(part), SOURCES[name], environment=env)
            part.rename(out)
    return out


def other_shape(folder: Path, environment: dict[str, str]) -> Path:
    """An overlay for `go build`: a (*Conn).Read that copies in two places, a writeRecordLocked that encrypts in two."""
    original = Path(go("env", "GOROOT", environment=environment)) / "src/crypto/tls/conn.go"
    text = original.read_text()
    changes = (
        (
            "\tn, _ := c.input.Read(b)\n",
            "\tn, _ := c.input.Read(b[:(len(b)+1)/2])\n\tm, _ := c.input.Read(b[n:])\n\tn += m\n",
        ),
        (
            "\t\toutBuf, err = c.out.encrypt(outBuf, data[:m], c.config.rand())\n",
            "\t\tif m > 100 {\n\t\t\toutBuf, err = c.out.encrypt(outBuf, data[:m], c.config.rand())\n\t\t} else {\n"
            "\t\t\toutBuf, err = c.out.encrypt(outBuf, data[:m], c.config.rand())\n\t\t}\n",
        ),
    )
    for before, after in changes:
        if text.count(before) != 1:
            raise RuntimeError(f"crypto/tls has changed: {before!r}")
        text = text.replace(before, after)
    changed = folder / "conn.go"
    changed.write_text(text)
    overlay = folder / "overlay.json"
    overlay.write_text(json.dumps({"Replace": {str(original): str(changed)}}))
    return overlay


def layout(path: Path) -> dict[str, int]:
    """Where the program says things are."""
    done = subprocess.run([path, "layout"], capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def symbols(path: Path) -> dict[str, int]:
    """Address by name, of a program that was not stripped."""
    lines = go("tool", "nm", str(path)).splitlines()
    return {found[2]: int(found[1], 16) for line in lines if (found := re.match(r"\s*([0-9a-f]+) [TtrRdD] (.+)$", line))}
