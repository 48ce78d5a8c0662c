"""Records through the file of `--record --redact`, and back: what the file holds, and what a replay makes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from collector import capturefile
from collector.counter_names import SINK_NAMES
from collector.counters import CounterMemory, Counters
from collector.router.batches import JSON_LINES
from collector.shards.pipeline import Pipeline
from collector.sink.batch import Batch
from collector.sink.recording.recorder import Recorder
from tests.events import pipeline

# What another process, another time of reading, or the redaction of what is redacted already makes different.
OTHERWISE = ("daemonset_id", "redacted", "requestSize", "responseSize", "sampledOut", "sampledOutOthers", "sampled")


class Recorded:
    """A file of records. ``said``: what the supervisor would be told."""

    def __init__(self, path: Path, limit: int = 1 << 30, format: str = JSON_LINES) -> None:
        self.path = path
        memory = CounterMemory(1)
        os.close(memory.fd)
        self.counters = Counters(memory.block(0), SINK_NAMES)
        self.said: list[str] = []
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.format = format
        self.recorder = Recorder(self.fd, limit, self.counters, format, self.said.append)

    def take(self, pipe: Pipeline) -> list[dict[str, Any]]:
        """Everything that the pipeline has ready goes into the file; as records."""
        out = []
        while (batch := pipe.take(1_795_000_000_000)) is not None:
            records, index, details = batch
            assert isinstance(records, bytes)
            self.recorder.add(Batch(records, index, details, format=self.format))
            if self.format == JSON_LINES:
                out += [json.loads(line) for line in records.splitlines()]
        return out

    def close(self) -> None:
        self.recorder.close()
        os.close(self.fd)

    def left_out(self) -> dict[str, int]:
        """Why, and how many."""
        start = "redacted_file_left_out_"
        return {name[len(start) :]: n for name, n in self.counters.snapshot().items() if name.startswith(start) and n}


def replayed(path: Path, **settings: Any) -> list[dict[str, Any]]:
    """The records that the file gives."""
    recording = capturefile.Recording(str(path))
    pipe = pipeline(record_prefix=recording.boot + "-", **settings)
    lines: list[bytes] = []
    for span in recording.spans():
        pipe.feed(span.data, span.wall_offset_ns)
        lines += taken(pipe)
    pipe.finish_timers()
    while not pipe.close_all():
        lines += taken(pipe)
    return [json.loads(line) for line in lines + taken(pipe)]


def taken(pipe: Pipeline) -> list[bytes]:
    """The lines that are ready."""
    out: list[bytes] = []
    while (batch := pipe.take()) is not None:
        assert isinstance(batch[0], bytes)
        out += batch[0].splitlines()
    return out


def comparable(record: dict[str, Any], *otherwise: str) -> dict[str, Any]:
    """Without what may differ, and without the boot and what says how long a body is."""
    out = {key: value for key, value in record.items() if key not in (*OTHERWISE, *otherwise)}
    out["recordId"] = out["recordId"].partition("-")[2]
    for side in ("request", "response"):
        fields = json.loads(out[f"{side}Headers"])
        out[f"{side}Headers"] = {name: value for name, value in fields.items() if name.lower() != "content-length"}
    return out
