"""Finding the libraries that processes have mapped."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader import forkserver, kernel, libraries, reading
from collector.loader.catalogue import NUMBERS, SIZE, Catalogue
from collector.loader.choice import Choice
from collector.loader.demand import WATCHED
from collector.loader.libraries import NEWCOMERS_LOOKS, RELEASE_LOOKS, Libraries
from collector.loader.mapped import Mapping, Proc, Process, mappings
from collector.loader.newcomers import RING_BYTES, Newcomers
from collector.loader.probes.attachments import Attachments, Target
from collector.loader.probes.probe import SOCKET, TPX, Build, Found, Probe
from collector.loader.ringbuffer import Ring, memfd_ring
from tests.collector.loader.test_demand import ask, state
from tests.conftest import skip_or_fail
from tests.demo import build, pair
from tests.demo.source import ALWAYS, ON_DEMAND, SOURCE
from tests.live.harness import wait_for

BUILD = Build(TPX, SOCKET)
Look = Callable[..., Libraries]

MAPS = rb"""55d0c0e00000-55d0c0e2c000 r--p 00000000 fe:01 131 /usr/bin/x
55d0c0e2c000-55d0c0f00000 r-xp 0002c000 fe:01 131 /usr/bin/x
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7f0000002000-7f0000003000 r-xp 00001000 00:2f 77                         /a b/lib demo.so (deleted)
7ffe00000000-7ffe00002000 r-xp 00000000 00:00 0                          [vdso]
7f0000004000-7f0000005000 r-xs 00000000 fe:01 9 /new\012line
"""


def test_mapped_files_that_are_executable() -> None:
    assert list(mappings(MAPS)) == [
        ("55d0c0e2c000-55d0c0f00000", "fe:01", 131, "/usr/bin/x", 0x2C000),
        ("7f0000002000-7f0000003000", "00:2f", 77, "/a b/lib demo.so (deleted)", 0x1000),
        ("7f0000004000-7f0000005000", "fe:01", 9, "/new\\012line", 0),
    ]


@given(st.binary(max_size=400))
def test_any_text_is_read(data: bytes) -> None:
    list(mappings(data))


def test_our_own_mappings_open_to_the_same_files() -> None:
    for mapping in Proc().mappings(os.getpid()):
        fd = Proc().open(os.getpid(), mapping)
        assert os.path.samestat(os.fstat(fd), os.stat(mapping.path))
        os.close(fd)
        with pytest.raises(OSError, match=r"another file|No such"):
            Proc().open(os.getpid(), mapping._replace(inode=mapping.inode + 1))


def test_nobody_waits_for_the_holder_of_a_lease(tmp_path: Path) -> None:
    """Anybody can have a lease of a file of their own, and whoever opens it waits until it is given back."""
    path = tmp_path / "libdemo.so"
    path.write_bytes(bytes(mmap.PAGESIZE))
    fd = os.open(path, os.O_RDONLY)
    with mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC):
        mapping = next(mapping for mapping in Proc().mappings(os.getpid()) if mapping.path == str(path))
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # by which the kernel asks for it
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            began = time.monotonic()
            with pytest.raises(BlockingIOError):
                Proc().open(os.getpid(), mapping)
            assert time.monotonic() - began < 5
        finally:
            os.close(fd)
            signal.signal(signal.SIGIO, before)


def test_a_process_is_known_by_its_start() -> None:
    process = Proc().process(os.getpid())
    assert process is not None and Process.read(str(process)) == process
    assert 0 < process.started <= time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    assert Proc().process(1 << 22) is None
    assert Proc().program(os.getpid()) in {mapping.path for mapping in Proc().mappings(os.getpid())}


def catalogue() -> Catalogue:
    """One with a table of its own."""
    table = kernel.create_array(SIZE, NUMBERS)
    return Catalogue(table)


class Recorder(Attachments):
    """Attaches nothing, and says what it was told to."""

    def __init__(self, *, multi: bool) -> None:
        super().__init__({}, "", multi=multi)
        self.places: list[tuple[str, str, tuple[int, ...]]] = []
        self.held: set[str] = set()
        self.soon = False  # the last release
        self.withdrawn: list[str] = []
        self.alone: dict[Process, list[tuple[str, str, tuple[int, ...]]]] = {}

    def attach(
        self,
        probe: Probe,
        target: Target | None = None,
        offsets: Sequence[int] = (),
        *,
        cookie: int = 0,
        process: Process | None = None,
    ) -> None:
        """The file must be there now."""
        assert target is not None
        assert os.stat(target.path).st_ino == target.inode
        assert cookie
        if process is not None:
            self.alone.setdefault(process, []).append((target.key, probe.program, tuple(offsets)))
            return
        self.places.append((target.key, probe.program, tuple(offsets)))
        self.held.add(target.key)

    def targets(self) -> set[str]:
        """Those with anything."""
        return self.held

    def withdraw(self, target: str) -> None:
        """Only noted."""
        self.withdrawn.append(target)

    def restore(self, target: str) -> None:
        """Likewise."""
        self.withdrawn.remove(target)

    def release(self, target: str, *, soon: bool = False) -> None:
        """At once."""
        self.held.discard(target)
        self.soon = soon

    def processes(self) -> set[Process]:
        """Those with anything of their own."""
        return set(self.alone)

    def release_process(self, process: Process) -> None:
        """At once."""
        self.alone.pop(process, None)


class Ours(Proc):
    """Only what this process has mapped of one directory: other tests and other processes may have a libdemo.so too."""

    def __init__(self, directory: Path, pids: Sequence[int] = (os.getpid(),)) -> None:
        super().__init__()
        self._directory = f"{directory}/"
        self.processes = list(pids)

    def pids(self) -> list[int]:
        return self.processes

    def mappings(self, pid: int) -> list[Mapping]:
        return [mapping for mapping in super().mappings(pid) if mapping.path.startswith(self._directory)]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Libraries]]:
    """Makes one that looks all the time, at this process and this directory."""
    monkeypatch.setattr(libraries, "LOOK_SECONDS", 0)
    made: list[Libraries] = []

    def make(recorder: Recorder, *, asked: int | None = None, sources=(SOURCE,), modules=("tests.demo.source",), **options):
        proc = Ours(tmp_path)
        found = Libraries(sources, modules, BUILD, recorder, catalogue(), None, wanting=asked, proc=proc, **options)
        made.append(found)
        return found

    yield make
    for found in made:
        found.close()


@pytest.mark.parametrize("multi", [True, False])
def test_a_library_is_found_read_attached_and_released(tmp_path: Path, look: Look, multi: bool) -> None:
    path = build.library("demo", tmp_path)
    library = ctypes.CDLL(str(path))
    recorder = Recorder(multi=multi)
    recorder.held.add("fe:01:1")  # of an earlier loader, and gone meanwhile
    found = look(recorder)

    def turned() -> bool:
        found.turn(time.monotonic())
        return len(recorder.places) == (6 if multi else 7) and "fe:01:1" not in recorder.held

    assert wait_for(turned, 30)
    assert [program for _key, program, _places in recorder.places] == [*ALWAYS, *(() if multi else ("demo_enter",))]
    (key,) = {key for key, _program, _places in recorder.places}
    assert key.split(":")[2] == str(path.stat().st_ino)
    opened = set(os.listdir("/proc/self/fd"))
    for _ in range(200):
        found.turn(time.monotonic())
    assert len(recorder.places) == (6 if multi else 7) and set(os.listdir("/proc/self/fd")) <= opened
    ctypes.CDLL(None).dlclose(ctypes.c_void_p(library._handle))

    def released() -> bool:
        found.turn(time.monotonic())
        return not recorder.held

    assert wait_for(released, 30)


def test_a_library_that_is_mapped_again_before_it_is_released_keeps_its_probes(tmp_path: Path, look: Look) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    found = look(recorder)

    def turned(what: Callable[[], object]) -> bool:
        found.turn(time.monotonic())
        return bool(what())

    with mapped(path):
        assert wait_for(lambda: turned(lambda: len(recorder.places) == 6), 30)
    assert wait_for(lambda: turned(lambda: recorder.withdrawn), 30) and recorder.held
    with mapped(path):
        assert wait_for(lambda: turned(lambda: not recorder.withdrawn), 30)
        for _ in range(50):
            found.turn(time.monotonic())
        assert recorder.held and len(recorder.places) == 6
    assert wait_for(lambda: turned(lambda: not recorder.held), 30)


def test_no_library_is_released_while_somebody_who_has_just_begun_may_map_it(tmp_path: Path, look: Look, told: int) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    newcomers = Newcomers(Ring(memfd_ring(RING_BYTES), RING_BYTES, memfd=True), told)
    found = look(recorder, newcomers=newcomers)
    with mapped(path):
        assert turn_until(found, lambda: len(recorder.places) == 6)
    newcomers.add(os.getpid(), time.monotonic() + 3600)
    for _ in range(RELEASE_LOOKS + 1):
        whole_looks(found, 0)
        assert recorder.held
    whole_looks(found, NEWCOMERS_LOOKS)
    assert not recorder.held, "but not for ever, where somebody always has just begun"


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """This process has it mapped, executable."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC):
        yield


def turn_until(found: Libraries, condition: Callable[[], bool]) -> bool:
    def turned() -> bool:
        found.turn(time.monotonic())
        return condition()

    return wait_for(turned, 30)


def whole_looks(found: Libraries, count: int = 3) -> None:
    """So many from begin to end."""
    for _ in range(count + 1):
        found._next_look = 0.0
        turn_until(found, lambda: found._pids is None)
        found.turn(time.monotonic())


def rewrite(path: Path) -> None:
    """In place, by someone who keeps the size and the time of modification."""
    time.sleep(0.02)  # the kernel's clock of such times moves with its ticks
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(byte)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_library_that_is_rewritten_in_place_is_released_and_read_again(tmp_path: Path, look: Look) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    found = look(recorder)
    with mapped(path):
        assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work)
        (before,) = recorder.held
        rewrite(path)
        assert turn_until(found, lambda: before not in recorder.held) and recorder.soon
        assert turn_until(found, lambda: len(recorder.places) == 12 and not found._work)
        (after,) = recorder.held
        assert after != before and Target.of_key(after).file == Target.of_key(before).file
        whole_looks(found)
        assert len(recorder.places) == 12
        # a new loader sees whether it was rewritten meanwhile
        rewrite(path)
        found = look(recorder)
        assert turn_until(found, lambda: after not in recorder.held)
        assert turn_until(found, lambda: len(recorder.places) == 18 and not found._work)


def test_files_are_compared_each_second_however_rarely_all_processes_are_looked_at(tmp_path: Path, look: Look) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    found = look(recorder)
    found._look_seconds = 3600.0
    with mapped(path):
        found._next_look = 0.0
        assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work and found._pids is None)
        assert found._next_look > time.monotonic() + 3000
        (before,) = recorder.held
        rewrite(path)
        assert turn_until(found, lambda: before not in recorder.held) and recorder.soon
        assert turn_until(found, lambda: len(recorder.places) == 12 and not found._work)


@pytest.mark.parametrize("attached", [0, 1, 6])
def test_a_library_that_is_rewritten_while_it_is_attached(tmp_path: Path, look: Look, attached: int) -> None:
    path = build.library("demo", tmp_path)

    class Rewriting(Recorder):
        def attach(
            self,
            probe: Probe,
            target: Target | None = None,
            offsets: Sequence[int] = (),
            *,
            cookie: int = 0,
            process: Process | None = None,
        ) -> None:
            super().attach(probe, target, offsets, cookie=cookie, process=process)
            if len(self.places) == attached:
                rewrite(path)

    recorder = Rewriting(multi=True)
    found = look(recorder)
    with mapped(path):
        assert turn_until(found, lambda: bool(found._files))
        if not attached:
            rewrite(path)
        assert turn_until(found, lambda: len(recorder.places) == attached + 6 and not found._work)
        assert len(recorder.held) == 1
        (key,) = recorder.held
        assert len({program for name, program, _places in recorder.places if name == key}) == 6
    assert turn_until(found, lambda: not recorder.held)


def test_a_file_that_was_no_library_is_read_again_when_it_is_rewritten(tmp_path: Path, look: Look) -> None:
    path = tmp_path / "libdemo.so"
    path.write_bytes(bytes(5000))
    recorder = Recorder(multi=True)
    found = look(recorder)
    (tmp_path / "true").mkdir()
    true = build.library("demo", tmp_path / "true").read_bytes()
    with mapped(path):
        assert turn_until(found, lambda: any(not library.busy for library in found._libraries.values()))
        path.write_bytes(true)
        assert turn_until(found, lambda: len(recorder.places) == 6)


def test_nobody_hides_a_library_by_mapping_it_under_another_path(tmp_path: Path, look: Look) -> None:
    path = build.library("demo", tmp_path)
    other = tmp_path / "innocent"
    os.link(path, other)
    recorder = Recorder(multi=True)
    found = look(recorder)
    with mapped(other):
        whole_looks(found, 1)
        assert not found._files
        with mapped(path):
            assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work)
        whole_looks(found)  # it is mapped all the same
        assert recorder.held
    assert turn_until(found, lambda: not recorder.held)


def test_a_library_that_was_unlinked_before(tmp_path: Path, look: Look) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    with mapped(path):
        path.unlink()
        found = look(recorder)
        try:
            place = next(one.place for one in Proc().mappings(os.getpid()) if str(path) in one.path)
            os.close(os.open(f"/proc/self/map_files/{place}", os.O_RDONLY))
        except PermissionError:
            skip_or_fail("needs CAP_CHECKPOINT_RESTORE")
        assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work)
        found = look(recorder)  # a new loader
        assert turn_until(found, lambda: len(recorder.places) == 12 and not found._work)
        whole_looks(found)
        assert len(recorder.held) == 1


def test_a_child_that_cannot_be_started_is_tried_again(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    found = look(recorder)
    failed = []

    def fail(*_arguments: object) -> None:
        failed.append(1)
        raise BlockingIOError(11, "no more processes")

    with mapped(path):
        with monkeypatch.context() as patch:
            patch.setattr(forkserver, "Server", fail)
            patch.setattr(reading, "RESTART_SECONDS", 0.01)
            patch.setattr(libraries, "RETRY_SECONDS", 0.01)
            found._reading.close()
            assert turn_until(found, lambda: len(failed) == 3)
        assert caplog.text.count("cannot start a child") == 1
        assert turn_until(found, lambda: len(recorder.places) == 6)


def test_more_libraries_than_may_be_are_told_of_once_a_minute(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(libraries, "LIBRARIES", 0)
    path = build.library("demo", tmp_path)
    found = look(Recorder(multi=True))
    with mapped(path):
        whole_looks(found)
        assert not found._files and caplog.text.count("others are left alone") == 1


def test_without_a_source_of_libraries_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proc, "pids", lambda *_arguments: pytest.fail("looked"))
    Libraries([], [], BUILD, Recorder(multi=True), catalogue(), None).turn(0)


def attached_for(recorder: Recorder) -> list[str]:
    """Programs, in the order in which they were attached for this process."""
    (places,) = recorder.alone.values()
    return [program for _key, program, _places in places]


def test_what_is_on_demand_is_attached_in_all_files_of_a_process_in_the_order_of_the_probes(
    tmp_path: Path, look: Look, wanting: int
) -> None:
    recorder = Recorder(multi=True)
    found = look(recorder, asked=wanting, sources=[pair.SOURCE], modules=["tests.demo.pair"])
    first, second = build.library("demo", tmp_path), build.library("many", tmp_path)
    with mapped(first), mapped(second):
        assert turn_until(found, lambda: {len(library.demand) for library in found._libraries.values()} == {1, 2})
        assert [program for _key, program, _places in recorder.places] == ["pair_always"] and not recorder.alone
        ask(wanting, os.getpid())
        assert turn_until(found, lambda: state(wanting, os.getpid()) == WATCHED)
        assert attached_for(recorder) == ["pair_first", "pair_second", "pair_third"]
        # a new loader: the files are read again before that is all
        ask(wanting, os.getpid())
        recorder.alone.clear()
        found = look(recorder, asked=wanting, sources=[pair.SOURCE], modules=["tests.demo.pair"])
        assert turn_until(found, lambda: state(wanting, os.getpid()) == WATCHED)
        assert attached_for(recorder) == ["pair_first", "pair_second", "pair_third"]


def test_a_library_that_a_watched_process_maps_later(tmp_path: Path, look: Look, wanting: int) -> None:
    recorder = Recorder(multi=True)
    found = look(recorder, asked=wanting, sources=[pair.SOURCE], modules=["tests.demo.pair"])
    ask(wanting, os.getpid())
    assert turn_until(found, lambda: state(wanting, os.getpid()) == WATCHED) and not recorder.alone
    with mapped(build.library("many", tmp_path)):
        assert turn_until(found, lambda: bool(recorder.alone))
        assert attached_for(recorder)[:2] == ["pair_first", "pair_third"]


def test_a_file_is_read_once_for_all_sources_that_want_it(tmp_path: Path, look: Look) -> None:
    recorder = Recorder(multi=True)
    found = look(recorder, sources=[SOURCE, pair.SOURCE], modules=["tests.demo.source", "tests.demo.pair"])
    asked: list[frozenset[str]] = []
    ask_reading = found._reading.ask
    found._reading.ask = lambda request: bool(asked.append(request.sources)) or ask_reading(request)  # type: ignore[method-assign]
    with mapped(build.library("demo", tmp_path)):
        assert turn_until(found, lambda: len(recorder.places) == 7 and not found._work)
        whole_looks(found)
    assert asked == [{"demo", "pair"}]
    assert [program for _key, program, _places in recorder.places] == [*ALWAYS, "pair_always"]
    assert sorted(found._catalogue.names().values()) == ["demo-1.0", "pair-1"]


def test_a_source_that_wants_a_file_under_another_name_is_asked_too(tmp_path: Path, look: Look) -> None:
    recorder = Recorder(multi=True)
    found = look(recorder, sources=[SOURCE, pair.SOURCE], modules=["tests.demo.source", "tests.demo.pair"])
    path = build.library("demo", tmp_path)
    other = tmp_path / "libmany.so"
    os.link(path, other)
    with mapped(other):
        assert turn_until(found, lambda: len(recorder.places) == 1 and not found._work)
        with mapped(path):
            assert turn_until(found, lambda: len(recorder.places) == 7 and not found._work)
    assert [program for _key, program, _places in recorder.places] == ["pair_always", *ALWAYS]


def program(directory: Path, name: str = "program") -> Path:
    """One that has a library built in, and says that it runs."""
    path = directory / name
    main = '#include <stdio.h>\nint main(void) { puts("ready"); fflush(stdout); return getchar() == EOF; }\n'
    subprocess.run(["gcc", "-O2", "-o", path, build.HERE / "many.c", "-x", "c", "-"], input=main, text=True, check=True)
    return path


@contextlib.contextmanager
def running(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([path], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.communicate("\n")


def test_the_program_of_a_process_is_a_candidate_of_sources_that_say_so(
    tmp_path: Path, look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(multi=True)
    found = look(recorder, sources=[SOURCE, pair.SOURCE], modules=["tests.demo.source", "tests.demo.pair"])
    found._proc.processes = []  # type: ignore[attr-defined]
    with running(program(tmp_path)) as process:
        found._proc.processes = [process.pid]  # type: ignore[attr-defined]
        assert turn_until(found, lambda: any(library.demand for library in found._libraries.values()))
        (library,) = found._libraries.values()
        assert library.asked == {"pair"} and [one.probe.program for one in library.demand] == ["pair_first", "pair_third"]
    assert turn_until(found, lambda: not found._libraries)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_program_is_read_once_however_often_it_starts(tmp_path: Path, look: Look) -> None:
    found = look(Recorder(multi=True), sources=[pair.SOURCE], modules=["tests.demo.pair"])
    path = program(tmp_path)
    children = []
    for _ in range(3):
        with running(path) as process:
            found._proc.processes = [process.pid]  # type: ignore[attr-defined]
            assert turn_until(found, lambda: any(library.demand for library in found._libraries.values()))
            assert found._reading._server is not None
            children.append(found._reading._server._number)
        assert turn_until(found, lambda: not found._libraries)
    assert children == [1, 1, 1]


def test_programs_whose_process_has_ended_are_not_read(tmp_path: Path, look: Look) -> None:
    found = look(Recorder(multi=True), sources=[pair.SOURCE], modules=["tests.demo.pair"])
    found._reading._allowance = -1e9  # reading programs has taken too much
    with running(program(tmp_path)) as process:
        found._proc.processes = [process.pid]  # type: ignore[attr-defined]
        assert turn_until(found, lambda: bool(found._reading._executables))
    found._reading._allowance = 1.0
    assert turn_until(found, lambda: not found._libraries)
    assert found._reading._server is not None and found._reading._server._number == 0


def test_a_child_that_dies_is_tried_again_with_growing_delays(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(libraries, "RETRY_SECONDS", 0.05)
    recorder = Recorder(multi=True)
    found = look(recorder)
    delays = []

    def died(*_arguments: object) -> dict[str, Found]:
        (library,) = found._libraries.values()
        delays.append(library.delay)
        return {}

    with mapped(build.library("demo", tmp_path)):
        with monkeypatch.context() as patch:
            patch.setattr(found._reading, "_read", died)
            assert turn_until(found, lambda: len(delays) == 4)
        assert delays == [0, 0.05, 0.1, 0.2] and caplog.text.count("to be tried again") == 1
        assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work)


def test_what_cannot_be_attached_is_tried_again(tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "RETRY_SECONDS", 0.05)

    class Failing(Recorder):
        failures = 3

        def attach(self, probe: Probe, *arguments: Any, **named: Any) -> None:
            if probe.program == "demo_enter" and self.failures:
                self.failures -= 1
                raise OSError(24, "too many")
            super().attach(probe, *arguments, **named)

    recorder = Failing(multi=True)
    found = look(recorder)
    with mapped(build.library("demo", tmp_path)):
        assert turn_until(found, lambda: "demo_enter" in [program for _k, program, _p in recorder.places])
        assert not recorder.failures


def test_for_some_programs_all_is_attached_process_by_process(tmp_path: Path, look: Look, wanting: int) -> None:
    name = Proc().comm(os.getpid())
    recorder = Recorder(multi=True)
    found = look(recorder, asked=wanting, choice=Choice.of([name.upper()], containers=True), look_seconds=3600.0)
    whole_looks(found)  # before it has the library: no look at all processes may be far away
    with mapped(build.library("demo", tmp_path)):
        assert turn_until(found, lambda: bool(recorder.alone))
        assert sorted(set(attached_for(recorder))) == sorted(ALWAYS) and not recorder.places
        ask(wanting, os.getpid())
        assert turn_until(found, lambda: state(wanting, os.getpid()) == WATCHED)
        assert ON_DEMAND in attached_for(recorder)
    assert turn_until(found, lambda: not found._libraries)


def test_processes_that_are_not_meant_have_no_libraries(tmp_path: Path, look: Look) -> None:
    for choice in (Choice.of(["another"], containers=False), Choice.of([], containers=True)):
        found = look(Recorder(multi=True), choice=choice)
        with mapped(build.library("demo", tmp_path)):
            whole_looks(found)
            assert not found._files


def test_what_was_attached_for_a_process_goes_with_it(tmp_path: Path, look: Look) -> None:
    recorder = Recorder(multi=True)
    found = look(recorder)
    gone = Process(os.getpid(), 1)
    recorder.alone[gone] = []
    assert turn_until(found, lambda: not recorder.alone)
