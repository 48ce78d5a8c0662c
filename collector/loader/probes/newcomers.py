"""Processes that begin a program or map a file: where libraries are to be looked for at once. A source of no bytes."""

from __future__ import annotations

from collections.abc import Sequence

from collector.loader.probes.probe import RAW, Build, Jump, Probe, Program, ProgramType, Source, Tracepoint

MMAP = 9  # its number, x86-64
_LATE = "libraries of processes that run already, until all processes are looked at again"


class Newcomers(Source):
    """See the module. That a program begins is told by syscalls.py's tp_process_exec."""

    name = "newcomers"
    maps = ("newcomers", "newcomers_told")

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        if build.variant == RAW:
            return [Program("raw_exit_mmap", ProgramType.RAW_TRACEPOINT)]
        return [Program("tp_exit_mmap", ProgramType.TRACEPOINT)]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return [] if build.variant == RAW else [Probe("tp_exit_mmap", Tracepoint("syscalls", "sys_exit_mmap"), _LATE)]

    def jumps(self, build: Build) -> Sequence[Jump]:
        """As Source."""
        return [Jump("calls", MMAP, "raw_exit_mmap")] if build.variant == RAW else []
