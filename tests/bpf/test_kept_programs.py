"""Programs that are kept between starts, on a small text: what is compiled, kept, found, refused and replaced.

tests/bpf/test_programs.py does the same with the real one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.loader import compiler, images, kernel, loading, program_cache
from collector.loader.images import Image, MapImage
from collector.loader.loading import MULTI, PERF, InKernel, RefusedError
from collector.loader.probes.probe import ProgramType
from collector.loader.program_cache import ProgramCache

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

ARRAY, ARRAY_OF_MAPS, RINGBUF, LRU_HASH, PERCPU_ARRAY = 2, 12, 27, 9, 6
MMAPABLE = 1024
TEXT = """
struct pair { u64 a; u32 b; };
BPF_TABLE("lru_hash", u32, struct pair, pairs, ENTRIES);
BPF_F_TABLE("array", u32, u64, words, 64, 1024);
BPF_PERCPU_ARRAY(counts, u64, 2);
BPF_RINGBUF_OUTPUT(template_of_rings, 1);
BPF_ARRAY_OF_MAPS(rings, "template_of_rings", 4);

int counting(void *ctx)
{
    u32 zero = 0;
    u64 constant = 0x1100000018ULL;  /* whose halves look like a reference */
    u64 *n = counts.lookup(&zero), *word = words.lookup(&zero);
    if (n && word)
        *n += *word ^ constant;
    return 0;
}

int noting(void *ctx)
{
    u32 zero = 0;
    struct pair fresh = {1, 2};
    void *ring = rings.lookup(&zero);
    if (ring)
        bpf_ringbuf_output(ring, &fresh, sizeof fresh, 0);
    pairs.update(&zero, &fresh);
    return 0;
}

int in_library(struct pt_regs *ctx)
{
    return 0;
}
"""
REFUSED = "int refused(void *ctx)\n{\n    return bpf_get_current_comm((void *)1, 16);\n}\n"
TYPES = {
    "counting": ProgramType.RAW_TRACEPOINT,
    "noting": ProgramType.RAW_TRACEPOINT,
    "in_library": ProgramType.UPROBE,
}
RECIPE = compiler.Recipe(TEXT, ("-DENTRIES=100",), TYPES)
WITH_REFUSED = compiler.Recipe(TEXT + REFUSED, ("-DENTRIES=100",), {**TYPES, "refused": ProgramType.RAW_TRACEPOINT})


@pytest.fixture(autouse=True)
def headers(live: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(compiler.bpf_directory() / "headers"))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ProgramCache]:
    made = ProgramCache(str(tmp_path))
    yield made
    made.close()


def close(loaded: InKernel) -> None:
    for fd in (*loaded.programs.values(), *loaded.maps.values()):
        os.close(fd)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def obtain(cache: ProgramCache, recipe: compiler.Recipe = RECIPE) -> tuple[dict[str, int], bool]:
    """The instructions that were verified, by program, and whether the programs were in the cache; nothing stays open."""
    loaded, cached = compiler.obtain(recipe, "", cache)
    close(loaded)
    return loaded.verified, cached


@pytest.fixture
def kept(cache: ProgramCache, tmp_path: Path) -> Path:
    """The file of programs that were compiled."""
    verified, cached = obtain(cache)
    assert not cached and set(verified) == set(TYPES)
    (path,) = (tmp_path / program_cache.OWN_NAME).iterdir()
    return path


def read(path: Path) -> Image:
    return images.from_bytes(path.name.removesuffix(program_cache.SUFFIX), path.read_bytes())


def change(path: Path, how: Callable[[Image], Image]) -> None:
    """Another image in that file, with a digest that is right: as only we could have written it."""
    key = path.name.removesuffix(program_cache.SUFFIX)
    path.write_bytes(images.to_bytes(key, how(read(path))))


def without_its_end(image: Image) -> Image:
    first, *others = image.programs
    return replace(image, programs=(replace(first, instructions=b"\xb7" + bytes(7), references=()), *others))


def test_an_image_says_how_the_maps_were_made(kept: Path) -> None:
    image = read(kept)
    assert sorted(image.maps, key=lambda one: one.name) == [
        MapImage("counts", PERCPU_ARRAY, 4, 8, 2, 0),
        MapImage("pairs", LRU_HASH, 4, 16, 100, 0),
        MapImage("rings", ARRAY_OF_MAPS, 4, 4, 4, 0, "template_of_rings"),
        MapImage("template_of_rings", RINGBUF, 0, 0, 4096, 0),
        MapImage("words", ARRAY, 4, 8, 64, MMAPABLE),
    ]
    used = {program.name: {name for _place, name in program.references} for program in image.programs}
    assert used == {"counting": {"counts", "words"}, "noting": {"rings", "pairs"}, "in_library": set()}
    assert {program.name: program.type for program in image.programs} == TYPES
    assert image.license == "GPL" and image.tools and not image.refused


def test_what_was_kept_works_as_what_was_compiled(kept: Path, cache: ProgramCache) -> None:
    """It is run: it counts in its own maps, and writes into a ring that was put into them."""
    before = descriptors()
    loaded, cached = compiler.obtain(RECIPE, "", cache)
    assert cached
    zero = bytes(4)
    kernel.map_update(loaded.maps["words"], zero, (5).to_bytes(8, "little"))
    ring = kernel.create_ring(4096)
    kernel.map_update(loaded.maps["rings"], zero, ring.to_bytes(4, "little"))
    for name in ("counting", "noting"):
        assert kernel.run_raw_program(loaded.programs[name], 0) == 0
    counted = kernel.map_lookup(loaded.maps["counts"], zero, 8 * kernel.possible_cpus())
    assert counted
    numbers = [int.from_bytes(counted[at : at + 8], "little") for at in range(0, len(counted), 8)]
    assert sum(numbers) == 5 ^ 0x1100000018
    assert kernel.map_lookup(loaded.maps["pairs"], zero, 16) == bytes([1, *bytes(7), 2, *bytes(7)])
    close(loaded)
    os.close(ring)
    assert descriptors() == before, "and nothing else is left open"


def test_the_same_is_compiled_each_time(kept: Path, cache: ProgramCache) -> None:
    whole = kept.read_bytes()
    compiled = obtain(cache)[0]
    kept.unlink()
    assert obtain(cache) == (compiled, False)
    assert kept.read_bytes() == whole


def test_another_recipe_is_another_image(kept: Path, cache: ProgramCache) -> None:
    assert obtain(cache, replace(RECIPE, flags=("-DENTRIES=200",)))[1] is False
    assert len(list(kept.parent.iterdir())) == 2
    assert obtain(cache)[1] is True


@given(st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_anywhere_is_compiled_anew(kept: Path, cache: ProgramCache, data: st.DataObject) -> None:
    whole = kept.read_bytes()
    damaged = bytearray(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    kept.write_bytes(damaged)
    assert obtain(cache)[1] is False
    assert kept.read_bytes() == whole, "and replaced"
    assert cache.suspicious and "is not used" in cache.notes[-1]


def test_what_the_kernel_refuses_is_compiled_anew(kept: Path, cache: ProgramCache) -> None:
    whole, before = kept.read_bytes(), descriptors()
    compiled = obtain(cache)[0]
    change(kept, without_its_end)
    assert obtain(cache) == (compiled, False)
    assert kept.read_bytes() == whole and descriptors() == before


def test_what_was_refused_when_it_was_compiled_is_not_compiled_in_vain(
    cache: ProgramCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the first variant on a kernel that takes the second: the kernel is asked again, the compiler is not."""
    before = descriptors()
    with pytest.raises(RefusedError, match="^program refused: Permission denied$") as found:
        obtain(cache, WITH_REFUSED)
    assert "R1 type=scalar expected=fp" in found.value.log and descriptors() == before
    (kept,) = (tmp_path / program_cache.OWN_NAME).iterdir()
    assert read(kept).refused

    def nobody(_recipe: compiler.Recipe) -> Image:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiler, "compile_image", nobody)
    with pytest.raises(RefusedError, match="^program refused: Permission denied$"):
        obtain(cache, WITH_REFUSED)
    # and when there is no reason any more, it is taken
    change(kept, lambda image: replace(image, programs=tuple(one for one in image.programs if one.name != "refused")))
    assert obtain(cache, WITH_REFUSED)[1] is True


def test_a_map_that_the_kernel_refuses_is_named(kept: Path) -> None:
    image, before = read(kept), descriptors()
    wrong = tuple(replace(one, entries=0) if one.name == "words" else one for one in image.maps)
    with pytest.raises(RefusedError, match="^map words: Invalid argument$"):
        loading.load(replace(image, maps=wrong))
    assert descriptors() == before


def test_programs_and_declarations_must_agree(cache: ProgramCache, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ: undeclared"):
        obtain(cache, replace(RECIPE, text=TEXT + REFUSED.replace("refused", "undeclared")))
    assert not list((tmp_path / program_cache.OWN_NAME).iterdir())


def test_how_uprobes_are_attached_is_found_out_each_time(kept: Path, cache: ProgramCache) -> None:
    ways = {}
    for wanted in ("", MULTI, PERF):
        loaded, cached = compiler.obtain(RECIPE, wanted, cache)
        assert cached
        ways[wanted] = loaded.uprobes
        if loaded.uprobes == MULTI:
            assert kernel.has_uprobe_multi(loaded.programs["in_library"])
        close(loaded)
    assert ways[""] == ways[MULTI] and ways[PERF] == PERF
