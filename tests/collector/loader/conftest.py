"""Maps of the kernel, without its programs."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from collector.loader import demand, kernel, newcomers
from tests.conftest import skip_or_fail


def lru_hash(value_bytes: int, entries: int) -> int:
    """A map from four bytes."""
    try:
        return kernel._bpf(0, struct.pack("=IIII", 9, 4, value_bytes, entries))  # BPF_MAP_CREATE
    except PermissionError:
        skip_or_fail("needs CAP_BPF")
        raise


@pytest.fixture
def wanting() -> Iterator[int]:
    """As bpf/maps.h `wanting`."""
    fd = lru_hash(4, demand.ENTRIES)
    yield fd
    os.close(fd)


@pytest.fixture
def told() -> Iterator[int]:
    """As bpf/newcomers.h `newcomers_told`."""
    fd = lru_hash(1, newcomers.TOLD)
    yield fd
    os.close(fd)
