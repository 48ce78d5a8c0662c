"""What one hit of a probe costs on this node: measured with a probe on code of our own, which nobody else runs.

A trap into the kernel is dear where a hypervisor takes part in it: the time of one `cpuid`, which always traps there, says
how dear. An instruction that the kernel emulates costs one trap, any other one is run under single step and costs two.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from collector.loader import kernel

CALLS = 4000  # of one round
ROUNDS = 5  # of which the fastest counts: whatever else runs makes it slower only
CPUID_TURNS = 2000
# void turns(int n) { do function(); while (--n); }, and the function: push rbp; pop rbp; ret
_TURNS = bytes.fromhex("e805000000 ffcf 75f7 c3".replace(" ", ""))
_FUNCTION = bytes.fromhex("555dc3")
_PUSH, _POP = len(_TURNS), len(_TURNS) + 1  # offsets: emulated, and not
# void turns(int n) { do cpuid(0); while (--n); }
_CPUID = bytes.fromhex("53 31c0 31c9 0fa2 ffcf 75f6 5b c3".replace(" ", ""))
_CODE_BYTES = 4096
_CPUID_AT = 64
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value
# BPF: r0 = 0; exit
_NOTHING = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds of one `cpuid`, and of one hit of a probe on an instruction that is emulated, or single-stepped. None: not
    measured, and ``why`` not.
    """

    cpuid_ns: float | None = None
    emulated_ns: float | None = None
    stepped_ns: float | None = None
    why: str = ""


@contextlib.contextmanager
def _code() -> Iterator[tuple[int, Callable[[int], None], Callable[[int], None]]]:
    """(descriptor of a file in memory with the code, functions that take turns: calls, cpuid). Raises OSError."""
    fd = os.memfd_create("collector-self-test", os.MFD_CLOEXEC)
    try:
        text = (_TURNS + _FUNCTION).ljust(_CPUID_AT, b"\x90") + _CPUID
        os.write(fd, text.ljust(_CODE_BYTES, b"\x90"))
        # not by the module mmap, whose objects give an address only when they are writable: there the kernel puts no probe
        begin = _libc.mmap(None, _CODE_BYTES, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
        if begin == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            make = ctypes.CFUNCTYPE(None, ctypes.c_int)
            yield fd, make(begin), make(begin + _CPUID_AT)
        finally:
            _libc.munmap(begin, _CODE_BYTES)
    finally:
        os.close(fd)


def _fastest(turns: Callable[[int], None], number: int) -> float:
    """Nanoseconds a turn."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        turns(number)
        best = min(best, (time.perf_counter_ns() - started) / number)
    return best


@contextlib.contextmanager
def _probe(fd: int, offset: int) -> Iterator[None]:
    """A probe with a program that does nothing, attached as the loader attaches those of libraries."""
    program = kernel.load_uprobe(_NOTHING, multi=True)
    try:
        if kernel.has_uprobe_multi(program):
            attached = kernel.attach_uprobes(program, f"/proc/self/fd/{fd}", [offset], returns=False)
        else:
            os.close(program)
            program = kernel.load_uprobe(_NOTHING, multi=False)
            attached = kernel.attach_uprobe(program, f"/proc/self/fd/{fd}", offset, returns=False)
        try:
            yield
        finally:
            os.close(attached)
    finally:
        os.close(program)


def measure() -> Cost:
    """Both, as far as we may: probes need the rights of capture. Takes a fifth of a second."""
    if platform.machine() != "x86_64":
        return Cost(why="measured on x86-64 only")
    try:
        with _code() as (fd, calls, cpuid):
            trap = _fastest(cpuid, CPUID_TURNS)
            plain = _fastest(calls, CALLS)
            try:
                with _probe(fd, _PUSH):
                    emulated = _fastest(calls, CALLS) - plain
                with _probe(fd, _POP):
                    stepped = _fastest(calls, CALLS) - plain
            except OSError as error:
                return Cost(trap, why=f"no probe can be tried: {error.strerror or error}")
    except OSError as error:
        return Cost(why=f"no code of our own can be run: {error.strerror or error}")
    return Cost(trap, emulated, stepped)
