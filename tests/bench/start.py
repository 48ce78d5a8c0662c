"""scripts/bench start: what a start costs when the kernel programs have to be compiled, and when an earlier one has.

scripts/bench start --starts 5     CPU s of the compiler's child by its parts, and of all processes up to "capturing"
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collector.loader import compiler, kernel, loading, offsets
from collector.loader.probes import sources
from collector.loader.probes.probe import SOCKET, TPX, Build
from collector.loader.program_cache import ProgramCache
from collector.loader.programs import compile_programs

TICKS = os.sysconf("SC_CLK_TCK")


def cpu(step: Callable[[], Any]) -> tuple[float, Any]:
    """CPU s of all threads, and what it returns."""
    before = time.process_time()
    result = step()
    return time.process_time() - before, result


def parts(directory: str) -> dict[str, float]:
    """CPU s of each part of what the child does, in this process."""
    os.environ["BCC_KERNEL_SOURCE"] = str(compiler.bpf_directory() / "headers")
    out: dict[str, float] = {}
    out["offsets from the kernel's BTF"], members = cpu(offsets.of_this_kernel)
    defines = {**compiler.DEFAULTS, "RINGS": 2, "CPUS": kernel.possible_cpus(), **members}
    recipe = compiler.Recipe.of(defines, Build(TPX, SOCKET), sources())
    out["key"], key = cpu(recipe.key)
    out["clang and LLVM"], image = cpu(lambda: compiler.compile_image(recipe))
    cache = ProgramCache(directory)
    out["writing the file"], _ = cpu(lambda: cache.write(key, image))
    out["reading the file"], kept = cpu(lambda: cache.read(key))
    assert kept == image
    maps: dict[str, int] = {}
    out["maps"], _ = cpu(lambda: loading.make_maps(kept, maps))
    for fd in maps.values():
        os.close(fd)
    out["maps and verifier"], loaded = cpu(lambda: loading.load(kept))
    for fd in (*loaded.maps.values(), *loaded.programs.values()):
        os.close(fd)
    cache.close()
    return out


def child(directory: str) -> dict[str, float]:
    """CPU s of the compiler's child; whether it compiles depends on what is in the directory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    defines = {**compiler.DEFAULTS, "RINGS": 2, "CPUS": kernel.possible_cpus()}
    loaded = compile_programs(defines, [TPX], SOCKET, cache=directory)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for fd in (*loaded.maps.values(), *loaded.programs.values()):
        os.close(fd)
    return {
        "cached": float(loaded.cached),
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
    }


def family(pid: int) -> list[int]:
    """A process and all below it."""
    out = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for below in (task / "children").read_text().split():
            out += family(int(below))
    return out


def used(pid: int) -> float:
    """CPU s of a process, its children, and those of them that have ended."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def start(directory: str) -> dict[str, float]:
    """CPU and wall s of a whole collector up to the line that says that it captures."""
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        environment = {
            **os.environ,
            "COLLECTOR_RUNTIME_DIR": f"{place}/run",
            "COLLECTOR_HEALTH_ADDRESS": "127.0.0.1:0",
            "COLLECTOR_PROGRAM_CACHE": directory,
        }
        with log.open("wb") as file:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "collector", "run", "--output", "null"], env=environment, stderr=file
            )
        while "capturing" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.01)
        took = {"wall": time.monotonic() - began, "cpu": used(process.pid)}
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait()
        return {**took, "stop": time.monotonic() - began}


def main(arguments: list[str]) -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/bench start", description=__doc__)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        child(directory)
        kept = [child(directory) for _ in range(options.starts)]
        compiled = [child("") for _ in range(options.starts)]
        assert all(one["cached"] for one in kept) and not any(one["cached"] for one in compiled)
        print(json.dumps({"parts": rounded(parts(directory))}))  # noqa: T201
        start(directory)
        for what, found in (
            ("child, kept", kept),
            ("child, compiled", compiled),
            ("start, kept", [start(directory) for _ in range(options.starts)]),
            ("start, compiled", [start("off") for _ in range(options.starts)]),
        ):
            print(json.dumps({what: summary(found)}))  # noqa: T201


def rounded(found: dict[str, float]) -> dict[str, float]:
    """To a millisecond."""
    return {name: round(value, 3) for name, value in found.items()}


def summary(found: list[dict[str, float]]) -> dict[str, list[float]]:
    """Median, least and most of each figure."""
    out = {}
    for name in found[0]:
        values = [one[name] for one in found]
        out[name] = [round(value, 2) for value in (statistics.median(values), min(values), max(values))]
    return out
