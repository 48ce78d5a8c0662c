"""Reading a stranger's file: nothing that it says, and nothing that its reader does, is believed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from collector.loader import elf, locate
from collector.loader.probes.probe import Found, Site, Unsupported
from tests.conftest import ROOT
from tests.demo import build
from tests.demo.source import PLACES, SOURCE

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["sites", "unsupported", "library", "values"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(path: Path, monkeypatch: pytest.MonkeyPatch, modules: list[str] | None = None) -> Found | Unsupported:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = os.open(path, os.O_RDONLY)
    job = locate.Job("demo", ["tests.demo.source"] if modules is None else modules, file, None)
    while (data := job.poll()) is None:
        time.sleep(0.01)
    found = locate.read_answer(data, list(PLACES), os.fstat(file).st_size)
    os.close(file)
    return found


def test_a_child_finds_what_the_source_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build.library("demo", tmp_path)
    with library.open("rb") as file:
        assert read(library, monkeypatch) == SOURCE.locate(ELFFile(file))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 500, os.urandom(4096)])
def test_damaged_files_are_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    path = tmp_path / "libdemo.so"
    path.write_bytes(data)
    assert isinstance(read(path, monkeypatch), Unsupported)


def test_another_library_is_unsupported_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(build.library("many", tmp_path), monkeypatch)
    assert found == Unsupported("not the demo library")


def test_a_child_that_cannot_begin_has_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(build.library("many", tmp_path), monkeypatch, ["no.such.module"])
    assert isinstance(found, Unsupported)


def test_a_child_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with build.library("demo", tmp_path).open("rb") as file:
        locate.Job("demo", ["tests.demo.source"], file.fileno(), None).kill()


@given(st.binary(max_size=200))
def test_no_answer_raises(data: bytes) -> None:
    assert isinstance(locate.read_answer(data, ["p"], 1000), (Found, Unsupported))


@given(JSON)
def test_only_places_in_the_file_for_known_programs_are_believed(message: object) -> None:
    found = locate.read_answer(json.dumps(message).encode(), ["p"], 1000)
    assert isinstance(found, Unsupported) or all(
        site.program == "p" and type(site.offset) is int and 0 <= site.offset < 1000 for site in found.sites
    )


@pytest.mark.parametrize(
    "sites",
    [
        [["p", 1000]],
        [["p", -1]],
        [["q", 1]],
        [["p", 1], ["p", 1]],
        [["p", True]],
        [["p", 1.0]],
        [["p", n] for n in range(locate.SITES + 1)],
    ],
)
def test_places_that_cannot_be(sites: list[object]) -> None:
    assert isinstance(
        locate.read_answer(
            json.dumps({"sites": sites, "library": "x-1", "values": []}).encode(), ["p"], 1000 if len(sites) < 9 else 1 << 20
        ),
        Unsupported,
    )


def test_functions_are_those_that_are_defined(tmp_path: Path) -> None:
    with build.library("demo", tmp_path).open("rb") as file:
        found = elf.functions(ELFFile(file), {"demo_read", "read", "no_such"})
        assert list(found) == ["demo_read"]
        assert elf.file_offset(ELFFile(file), 1 << 60) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"library": ""},
        {"library": "a b"},
        {"library": "x" * 48},
        {"library": 1},
        {"values": [1] * 9},
        {"values": [-1]},
        {"values": [1 << 64]},
    ],
)
def test_names_and_values_are_bounded(changed: dict[str, object]) -> None:
    message = {"sites": [["p", 1]], "library": "x-1", "values": [1, 2**64 - 1]}
    assert locate.read_answer(json.dumps(message).encode(), ["p"], 10) == Found((Site("p", 1),), "x-1", (1, 2**64 - 1))
    assert isinstance(locate.read_answer(json.dumps({**message, **changed}).encode(), ["p"], 10), Unsupported)
