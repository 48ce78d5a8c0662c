"""What this container may use and uses: from files as the kernel writes them, in both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector import cgroups
from collector.cgroups import MemoryUse

MIB = 1 << 20


def test_cpu_limit_is_at_least_one() -> None:
    assert cgroups.cpu_limit() >= 1


def test_memory_limit_is_a_number_or_none() -> None:
    limit = cgroups.memory_limit()
    assert limit is None or limit > 0


class Files:
    """A tree of cgroups, and the line of our own."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = directory / "cgroup"
        self._ours = directory / "ours"
        monkeypatch.setattr(cgroups, "_ROOT", str(self.root))
        monkeypatch.setattr(cgroups, "_OURS", str(self._ours))

    def are(self, text: str) -> None:
        self._ours.write_text(text)

    def put(self, path: str, **files: object) -> None:
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (directory / f"memory.{name}").write_text(f"{value}\n")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(tmp_path, monkeypatch)


def test_version_2_usage_is_without_page_cache_that_can_be_taken_back(files: Files) -> None:
    files.are("0::/pod/container\n")
    stat = f"anon {50 * MIB}\nfile {40 * MIB}\ninactive_anon 5\ninactive_file {30 * MIB}\nactive_file {10 * MIB}"
    files.put("pod/container", max=256 * MIB, current=120 * MIB, stat=f"{stat}\nfile_mapped {12 * MIB}")
    assert cgroups.memory_limit() == 256 * MIB
    assert cgroups.memory_use() == MemoryUse(90 * MIB, 256 * MIB)
    files.put("pod/container", stat=f"{stat}\nfile_mapped {3 * MIB}")  # nor what is active and nobody has mapped
    assert cgroups.memory_use() == MemoryUse(83 * MIB, 256 * MIB)
    files.put("pod/container", stat=f"{stat}\nfile_mapped {13 * MIB}\nshmem {10 * MIB}")  # the slots of batches, say
    assert cgroups.memory_use() == MemoryUse(83 * MIB, 256 * MIB)


def test_version_1_counts_the_whole_hierarchy(files: Files) -> None:
    files.are("5:cpu:/\n4:memory:/docker/abc\n0::/\n")
    stat = f"cache 1\ninactive_file {1 * MIB}\ntotal_inactive_file {20 * MIB}\ntotal_active_file {8 * MIB}"
    stat += f"\ntotal_mapped_file {5 * MIB}"
    files.put("memory/docker/abc", limit_in_bytes=512 * MIB, usage_in_bytes=100 * MIB, stat=stat)
    files.put("memory", limit_in_bytes=9223372036854771712, usage_in_bytes=1 << 40, stat=stat)
    assert cgroups.memory_limit() == 512 * MIB
    assert cgroups.memory_use() == MemoryUse(77 * MIB, 512 * MIB)


def test_the_cgroup_that_is_nearest_to_its_limit_counts(files: Files) -> None:
    """A pod's limit binds its containers together."""
    files.are("0::/pod/container\n")
    files.put("pod/container", max=256 * MIB, current=100 * MIB, stat="inactive_file 0")
    files.put("pod", max=512 * MIB, current=400 * MIB, stat="inactive_file 0")
    assert cgroups.memory_limit() == 256 * MIB
    assert cgroups.memory_use() == MemoryUse(400 * MIB, 512 * MIB)


def test_without_a_limit_there_is_nothing_to_compare(files: Files) -> None:
    files.are("0::/pod\n")
    files.put("pod", max="max", current=100 * MIB, stat="inactive_file 0")
    assert cgroups.memory_limit() is None and cgroups.memory_use() is None
    files.are("0::/elsewhere\n")
    assert cgroups.memory_use() is None
