"""Maps of the kernel, without its programs."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from collector.loader import demand, kernel
from tests.conftest import skip_or_fail


@pytest.fixture
def wanting() -> Iterator[int]:
    """As bpf/maps.h `wanting`."""
    try:
        fd = kernel._bpf(0, struct.pack("=IIII", 9, 4, 4, demand.ENTRIES))  # BPF_MAP_CREATE, an LRU hash
    except PermissionError:
        skip_or_fail("needs CAP_BPF")
    yield fd
    os.close(fd)
