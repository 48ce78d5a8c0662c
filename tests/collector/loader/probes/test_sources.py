"""What sources say of themselves fits together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from collector.loader import compiler
from collector.loader.probes import SOURCES, sources
from collector.loader.probes.probe import DESCRIPTOR, RAW, SOCKET, TPX, Build, Program, ProgramType
from tests.demo import source as demo

BUILDS = [Build(variant, identity) for variant in (TPX, RAW) for identity in (SOCKET, DESCRIPTOR)]


@pytest.mark.parametrize("build", BUILDS)
def test_every_probe_and_jump_has_a_declared_program_of_its_type(build: Build) -> None:
    for source in sources(["tests.demo.source"]):
        types = {program.name: program.type for program in source.programs(build)}
        assert len(types) == len(source.programs(build)) and "/" not in source.name
        for probe in source.probes(build):
            assert types[probe.program] == probe.at.type and probe.without
            assert not probe.need or probe.need in compiler.STATS
        assert {jump.program for jump in source.jumps(build)} <= set(types)


def test_further_sources_are_named_by_code_and_once() -> None:
    assert sources() == SOURCES
    assert sources(["tests.demo.source"]) == (*SOURCES, demo.SOURCE)
    with pytest.raises(ValueError, match="same name: syscalls, .*demo, demo"):
        sources(["tests.demo.source", "tests.demo.source"])
    with pytest.raises(ImportError):
        sources(["no.such.module"])


def test_programs_are_those_that_were_compiled() -> None:
    build = BUILDS[0]
    names = [program.name for program in demo.SOURCE.programs(build)]
    types = compiler.program_types([demo.SOURCE], build)
    assert set(types) == set(names) and set(types.values()) == {ProgramType.UPROBE}
    compiler.check_declared(types, names)
    with pytest.raises(ValueError, match="differ: demo_freed"):
        compiler.check_declared(types, [name for name in names if name != "demo_freed"])
    with pytest.raises(ValueError, match="differ: undeclared"):
        compiler.check_declared(types, [*names, "undeclared"])
    assert compiler.program_types([demo.SOURCE, demo.SOURCE], build) == types, "sources may share programs"

    class Other(demo.Demo):
        def programs(self, build: Build) -> Sequence[Program]:  # noqa: ARG002
            return [Program(name, ProgramType.TRACEPOINT) for name in demo.PLACES]

    with pytest.raises(ValueError, match="two types"):
        compiler.program_types([demo.SOURCE, Other()], build)


def test_a_sources_own_text_is_compiled_before_the_assertions() -> None:
    text = compiler.text([*SOURCES, demo.SOURCE])
    assert text.index("int tp_enter_close") < text.index("int demo_made") < text.index("_Static_assert(CONN_HTTP")
