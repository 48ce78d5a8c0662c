"""What must be true of every batch of records: docs/records.schema.json, as a list of questions that are quick to ask.

jsonschema takes a millisecond for a record, a hundred times what the pipeline takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collector.router import batches
from collector.settings import ShardSettings

_SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "records.schema.json").read_text())
_REQUIRED = frozenset(_SCHEMA["required"])


def _question(name: str, words: dict[str, Any]) -> Callable[[str], object]:
    """The rule of one field. Refuses what it does not understand, so that no rule is left out unseen."""
    known = {"type", "pattern", "const", "enum", "minLength", "contentMediaType", "description"}
    if unknown := words.keys() - known:
        raise ValueError(f"{name}: {unknown}")
    if "const" in words:
        return frozenset({words["const"]}).__contains__
    if "enum" in words:
        return frozenset(words["enum"]).__contains__
    if "pattern" in words:
        return re.compile(words["pattern"]).search
    least = int(words.get("minLength", 0))
    return lambda text: len(text) >= least  # contentMediaType: parsed below


_QUESTIONS = {name: _question(name, words) for name, words in _SCHEMA["properties"].items()}


THOROUGH = 50  # records of a batch; the others are only parsed


def check_record(line: bytes) -> dict[str, Any]:
    """One record."""
    record: dict[str, Any] = json.loads(line.decode())
    assert record.keys() >= _REQUIRED, _REQUIRED - record.keys()
    for name, value in record.items():
        assert type(value) is str and _QUESTIONS[name](value), (name, value)
    for side in ("requestHeaders", "responseHeaders"):
        fields = json.loads(record[side])
        assert type(fields) is dict and all(type(value) is str for value in fields.values()), (side, fields)
    marks = json.loads(record["marks"])
    assert type(marks) is list and all(type(mark) is str for mark in marks), marks
    return record


def check_batch(batch: tuple[bytes, bytes, bytes], settings: ShardSettings) -> list[dict[str, Any]]:
    """A batch and its index, which must speak of the same records."""
    records, index, details = batch
    lines = records.split(b"\n")
    assert lines.pop() == b"", "no newline at the end"
    indexed = [record for record, _details, _place in batches.iterate(records, index, details)]
    assert indexed == lines, "index and records differ"
    assert all(len(line) < settings.record_bytes for line in lines), "longer than allowed"
    return [check_record(line) for line in lines[:THOROUGH]] + [json.loads(line) for line in lines[THOROUGH:]]
