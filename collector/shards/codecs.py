"""Codecs of Kafka's RecordBatch: its number for each, and how a batch's records are compressed.

Levels are the cheap ones: a shard spends about as much on a record as it does on parsing the exchange (docs/benchmarks.md).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

Compress = Callable[[memoryview], bytes | memoryview]

GZIP_LEVEL = 1
ZSTD_LEVEL = 1
_SNAPPY_BLOCK = 32 << 10
_SNAPPY_HEADER = b"\x82SNAPPY\x00" + bytes((0, 0, 0, 1)) * 2  # of snappy-java's streams, version 1, compatible with 1


def _none() -> Compress:
    return lambda records: records


def _gzip() -> Compress:
    return lambda records: zlib.compress(records, GZIP_LEVEL, wbits=31)


def _snappy() -> Compress:
    import snappy

    def compress(records: memoryview) -> bytes:
        """As snappy-java's SnappyOutputStream: blocks of 32 KiB, each with its length before it."""
        out = [_SNAPPY_HEADER]
        for at in range(0, len(records), _SNAPPY_BLOCK):
            block = snappy.compress(bytes(records[at : at + _SNAPPY_BLOCK]))
            out += (len(block).to_bytes(4, "big"), block)
        return b"".join(out)

    return compress


def _lz4() -> Compress:
    from lz4 import frame

    # Kafka's own reader knows neither blocks that depend on each other nor sizes (KIP-57)
    return lambda records: frame.compress(records, block_size=frame.BLOCKSIZE_MAX64KB, block_linked=False, store_size=False)


def _zstd() -> Compress:
    import zstandard

    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress


_CODECS: dict[str, tuple[int, Callable[[], Compress]]] = {
    "none": (0, _none),
    "gzip": (1, _gzip),
    "snappy": (2, _snappy),
    "lz4": (3, _lz4),
    "zstd": (4, _zstd),
}


def codec(name: str) -> tuple[int, Compress]:
    """(Kafka's number, the function) of a codec of COLLECTOR_COMPRESSION. Its library is loaded now. Raises KeyError."""
    number, make = _CODECS[name]
    return number, make()
