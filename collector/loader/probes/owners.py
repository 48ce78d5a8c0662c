"""Processes that begin as another one does: whether they are captured is inherited. A source of no bytes; what a process
begins to execute is told by syscalls.py's tp_process_exec.
"""

from __future__ import annotations

from collections.abc import Sequence

from collector.loader.probes.probe import SOCKET, Build, Probe, Program, ProgramType, RawTracepoint, Source

_WITHOUT = "processes that do not execute a program of their own: captured, or not, some seconds too late"


class Owners(Source):
    """See the module. Used only where processes are selected by their owners."""

    name = "owners"

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program(probe.program, ProgramType.RAW_TRACEPOINT) for probe in self.probes(build)]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        if build.identity != SOCKET:
            return []
        return [Probe("raw_process_fork", RawTracepoint("sched_process_fork"), _WITHOUT)]
