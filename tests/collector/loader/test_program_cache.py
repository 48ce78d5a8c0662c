"""Which file is believed, and which is replaced; what decides a key."""

from __future__ import annotations

import dataclasses
import os
import platform
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.loader import compiler, program_cache
from collector.loader.images import MOST_BYTES, Tool, to_bytes
from collector.loader.probes import SOURCES
from collector.loader.probes.probe import DESCRIPTOR, RAW, SOCKET, TPX, Build, ProgramType
from collector.loader.program_cache import MOST_FILES, OWN_NAME, SUFFIX, ProgramCache
from tests.collector.loader.test_images import DATA, IMAGE, KEY
from tests.conftest import skip_or_fail

OTHER = "b" * 64


def file_of(directory: Path, key: str = KEY) -> Path:
    return directory / OWN_NAME / (key + SUFFIX)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ProgramCache]:
    made = ProgramCache(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def kept(cache: ProgramCache, tmp_path: Path) -> Path:
    """The file of an image that is kept. Its compiler is a file beside it."""
    tool = tmp_path / "libbcc.so"
    tool.write_bytes(b"x")
    found = program_cache.tool_at(str(tool))
    assert found
    cache.write(KEY, dataclasses.replace(IMAGE, tools=(found,)))
    assert cache.read(KEY) is not None and not cache.notes
    return file_of(tmp_path)


def refused(cache: ProgramCache, why: str, *, suspicious: bool = True) -> None:
    """It is not read, says why, and is replaced all the same."""
    assert cache.read(KEY) is None
    assert len(cache.notes) == 1 and why in cache.notes[0], cache.notes
    assert cache.suspicious == suspicious
    cache.write(KEY, dataclasses.replace(IMAGE, tools=()))
    assert cache.read(KEY) == dataclasses.replace(IMAGE, tools=())
    assert len(cache.notes) == 1


def test_what_is_kept_is_found_by_another_process(kept: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    again = ProgramCache(str(tmp_path))
    found = again.read(KEY)
    assert found and found.programs == IMAGE.programs
    assert again.read(OTHER) is None and not again.notes
    assert [path.name for path in kept.parent.iterdir()] == [kept.name], "nothing unfinished stays"
    again.close()


def test_without_a_directory_nothing_is_kept() -> None:
    none = ProgramCache()
    none.write(KEY, IMAGE)
    assert none.read(KEY) is None and not none.notes
    none.close()


@pytest.mark.parametrize("at", [0, 20, 50, 120, len(DATA) // 2, len(DATA) - 1])
def test_a_damaged_file_is_replaced(kept: Path, cache: ProgramCache, at: int) -> None:
    data = bytearray(kept.read_bytes())
    data[at] ^= 0x40
    kept.write_bytes(data)
    refused(cache, "is not used: it is")


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_anywhere_is_read(kept: Path, cache: ProgramCache, data: st.DataObject) -> None:
    whole = kept.read_bytes()
    damaged = bytearray(whole)
    for at in data.draw(st.sets(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    kept.write_bytes(damaged)
    assert cache.read(KEY) is None
    kept.write_bytes(whole)
    assert cache.read(KEY) is not None


def test_an_empty_file_and_one_of_another_key(kept: Path, cache: ProgramCache, tmp_path: Path) -> None:
    file_of(tmp_path, OTHER).write_bytes(kept.read_bytes())
    assert cache.read(OTHER) is None
    assert "made for something else" in cache.notes.pop()
    kept.write_bytes(b"")
    refused(cache, "it is no image")


def test_a_file_that_is_too_large_is_not_even_read(kept: Path, cache: ProgramCache) -> None:
    with kept.open("r+b") as file:
        file.truncate(MOST_BYTES + 1)
    refused(cache, "too large")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_used(kept: Path, cache: ProgramCache, mode: int) -> None:
    kept.chmod(mode)
    refused(cache, "others may write it")


@pytest.fixture
def root() -> None:
    """To give files away, and to mount."""
    if os.geteuid() != 0:
        skip_or_fail("needs root")


@pytest.mark.usefixtures("root")
def test_a_file_of_another_user_is_not_used(kept: Path, cache: ProgramCache) -> None:
    os.chown(kept, 65534, 0)
    refused(cache, "belongs to user 65534")


def test_a_link_is_not_followed(kept: Path, cache: ProgramCache, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    kept.rename(elsewhere)
    kept.symlink_to(elsewhere)
    refused(cache, "is not used", suspicious=False)
    assert not kept.is_symlink() and elsewhere.exists()


def test_a_file_with_a_second_name_is_not_used(kept: Path, cache: ProgramCache, tmp_path: Path) -> None:
    os.link(kept, tmp_path / "second")
    refused(cache, "no file of its own")


def test_a_fifo_stops_nobody(kept: Path, cache: ProgramCache) -> None:
    kept.unlink()
    os.mkfifo(kept, 0o600)
    refused(cache, "no file of its own")


def test_a_directory_in_its_place_is_said_and_left_alone(kept: Path, cache: ProgramCache) -> None:
    kept.unlink()
    kept.mkdir(0o700)
    assert cache.read(KEY) is None
    cache.write(KEY, IMAGE)
    assert len(cache.notes) == 2 and "not kept" in cache.notes[1]
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_may_write_is_not_used(kept: Path, tmp_path: Path, mode: int) -> None:
    kept.parent.chmod(mode)
    again = ProgramCache(str(tmp_path))
    assert again.read(KEY) is None and again.suspicious and "others may write it" in again.notes[0]
    before = kept.read_bytes()
    again.write(KEY, dataclasses.replace(IMAGE, license="other"))
    assert kept.read_bytes() == before and len(again.notes) == 1


@pytest.mark.usefixtures("root")
def test_a_directory_of_another_user_is_not_used(kept: Path, tmp_path: Path) -> None:
    os.chown(kept.parent, 65534, 0)
    again = ProgramCache(str(tmp_path))
    assert again.read(KEY) is None and again.suspicious and "belongs to user 65534" in again.notes[0]


def test_a_link_in_place_of_our_directory_is_not_followed(kept: Path, tmp_path: Path) -> None:
    kept.parent.rename(tmp_path / "elsewhere")
    kept.parent.symlink_to(tmp_path / "elsewhere")
    again = ProgramCache(str(tmp_path))
    assert again.read(KEY) is None and len(again.notes) == 1
    again.write(OTHER, IMAGE)
    assert not file_of(tmp_path, OTHER).exists()


def test_a_shared_directory_serves_as_one_that_is_ours(tmp_path: Path) -> None:
    """A volume of Kubernetes is open to everybody; what is in ours is not."""
    tmp_path.chmod(0o777)
    cache = ProgramCache(str(tmp_path))
    cache.write(KEY, IMAGE)
    assert file_of(tmp_path).exists() and not cache.notes
    cache.close()


def test_directories_that_are_missing_are_made(tmp_path: Path) -> None:
    cache = ProgramCache(str(tmp_path / "a" / "b"))
    cache.write(KEY, IMAGE)
    assert file_of(tmp_path / "a" / "b").exists() and not cache.notes
    cache.close()


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "x", Path("/proc/nothing")):
        cache = ProgramCache(str(path))
        cache.write(KEY, IMAGE)
        assert cache.read(KEY) is None and len(cache.notes) == 1 and not cache.suspicious
        assert cache.notes[0].startswith(f"COLLECTOR_PROGRAM_CACHE={path}: no programs are kept: ")


@pytest.mark.usefixtures("root")
def test_a_read_only_file_system_gives_what_it_has(kept: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom collector.loader.program_cache import ProgramCache\n"
        f"from tests.collector.loader.test_images import IMAGE\ncache = ProgramCache({str(tmp_path)!r})\n"
        f"found = cache.read({KEY!r})\ncache.write({OTHER!r}, IMAGE)\n"
        "print(found is not None, cache.suspicious, cache.notes)"
    )
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "-", str(tmp_path), sys.executable, code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.startswith("True False ['COLLECTOR_PROGRAM_CACHE=") and "Read-only file system" in done.stdout
    assert kept.exists() and not file_of(tmp_path, OTHER).exists()


def test_an_image_of_another_compiler_is_not_used(kept: Path, cache: ProgramCache, tmp_path: Path) -> None:
    tool = tmp_path / "libbcc.so"
    info = tool.stat()
    tool.write_bytes(b"xy")
    os.utime(tool, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert cache.read(KEY) is None and not cache.notes
    tool.write_bytes(b"x")
    os.utime(tool, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    assert cache.read(KEY) is None
    os.utime(tool, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert cache.read(KEY) is not None
    tool.unlink()
    assert cache.read(KEY) is None
    assert kept.exists()


def test_the_images_used_last_are_kept(cache: ProgramCache, tmp_path: Path) -> None:
    keys = [f"{number:064x}" for number in range(MOST_FILES + 3)]
    for number, key in enumerate(keys):
        cache.write(key, IMAGE)
        os.utime(file_of(tmp_path, key), (1_000_000 + number, 1_000_000 + number))
        if number == MOST_FILES - 1:
            cache.write(keys[0], dataclasses.replace(IMAGE, tools=()))
            os.utime(file_of(tmp_path, keys[0]), (1, 1))
            assert cache.read(keys[0]) is not None, "using it makes it the last one used"
    there = {path.name.removesuffix(SUFFIX) for path in (tmp_path / OWN_NAME).iterdir()}
    assert there == {keys[0], *keys[4:]} and len(there) == MOST_FILES


def test_what_was_left_unfinished_goes_after_a_while_and_nothing_else(cache: ProgramCache, tmp_path: Path) -> None:
    own = tmp_path / OWN_NAME
    for name in (f".{OTHER}.123", f".{OTHER}.124", "notes.txt"):
        (own / name).write_text("")
    os.utime(own / f".{OTHER}.123", (1, 1))
    os.utime(own / "notes.txt", (1, 1))
    cache.write(KEY, IMAGE)
    assert {path.name for path in own.iterdir()} == {f".{OTHER}.124", "notes.txt", KEY + SUFFIX}


def test_look_makes_nothing(tmp_path: Path) -> None:
    assert program_cache.look(str(tmp_path)) == program_cache.look(str(tmp_path / "none")) == (0, "")
    assert not list(tmp_path.iterdir())
    cache = ProgramCache(str(tmp_path))
    cache.write(KEY, IMAGE)
    cache.close()
    assert program_cache.look(str(tmp_path)) == (1, "")
    (tmp_path / OWN_NAME).chmod(0o777)
    assert program_cache.look(str(tmp_path)) == (0, "others may write it")


# ---- keys --------------------------------------------------------------------------------------------------------


FIRST = Build(TPX, SOCKET)


def recipe(build: Build = FIRST, **defines: int) -> compiler.Recipe:
    return compiler.Recipe.of({"CHUNK": 16384, **defines}, build, SOURCES)


def test_the_same_recipe_has_the_same_key_in_another_process() -> None:
    code = (
        "import sys\nfrom tests.collector.loader.test_program_cache import recipe\n"
        "key = recipe().key()\nprint(key, 'bcc' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout == f"{recipe().key()} False\n", "and bcc, which loads LLVM, is not needed for it"


def test_whatever_decides_the_result_is_in_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = [recipe().key()]
    keys += [recipe(Build(RAW, SOCKET)).key(), recipe(Build(TPX, DESCRIPTOR)).key()]
    keys += [recipe(CHUNK=8192).key(), recipe(TASK_FILES=1).key()]
    keys += [dataclasses.replace(recipe(), text=recipe().text + " ").key()]
    keys += [dataclasses.replace(recipe(), types={**recipe().types, "meet": ProgramType.UPROBE}).key()]
    for name in ("BCC_KERNEL_SOURCE", "ARCH", "CPATH", "C_INCLUDE_PATH"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "/x")
            keys.append(recipe().key())
    uname = os.uname()
    for field in ("sysname", "release", "version"):
        with monkeypatch.context() as patch:
            changed = [
                getattr(uname, name) + "x" * (name == field) for name in ("sysname", "nodename", "release", "version")
            ]
            patch.setattr(os, "uname", lambda changed=changed: os.uname_result((*changed, uname.machine)))
            keys.append(recipe().key())
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "other")
        keys.append(recipe().key())
    with monkeypatch.context() as patch:
        bcc = tmp_path / "bcc"
        bcc.mkdir()
        (bcc / "__init__.py").write_text("")
        (bcc / "version.py").write_text("__version__ = '9'")
        patch.delitem(sys.modules, "bcc", raising=False)  # another test may have imported it
        patch.syspath_prepend(str(tmp_path))
        keys.append(recipe().key())
        (bcc / "version.py").write_text("__version__ = '10'")
        keys.append(recipe().key())
    assert len(set(keys)) == len(keys)
    assert recipe().key() == keys[0]


def test_every_header_is_in_the_key(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.h").write_text("1")
    digests = [program_cache.directory_digest(tmp_path)]
    (tmp_path / "a" / "x.h").write_text("2")
    digests.append(program_cache.directory_digest(tmp_path))
    (tmp_path / "a" / "x.h").rename(tmp_path / "a" / "y.h")
    digests.append(program_cache.directory_digest(tmp_path))
    (tmp_path / "z.h").write_text("")
    digests.append(program_cache.directory_digest(tmp_path))
    assert len(set(digests)) == len(digests)


def test_the_tools_in_use_are_the_compilers_libraries() -> None:
    code = (
        "import bcc\nfrom collector.loader.program_cache import tools_in_use\n"
        "print(*(tool.path.rsplit('/', 1)[1].split('.')[0] for tool in tools_in_use()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        skip_or_fail("needs bcc")
    names = done.stdout.split()
    assert "libbcc" in names and any(name.startswith("libLLVM") for name in names) and "libc" not in names
    assert program_cache.tools_in_use() == () or "bcc" in sys.modules
    assert program_cache.tool_at("/no/such/file") is None
    here = os.stat(__file__)
    assert program_cache.tool_at(__file__) == Tool(__file__, here.st_size, here.st_mtime_ns)
    assert to_bytes(KEY, IMAGE) == DATA
