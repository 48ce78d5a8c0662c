"""Log lines of the children, and the limits of logging."""

from __future__ import annotations

import json
import logging
import os

import pytest

from collector import logs


def test_child_lines_become_records_and_foreign_text_an_error(caplog: pytest.LogCaptureFixture) -> None:
    lines = logs.ChildLines("shard-7")
    record = json.dumps({"t": 0, "level": "WARNING", "name": "shard", "message": "hello"}).encode()
    with caplog.at_level(logging.DEBUG):
        lines.feed(record[:10])
        lines.feed(record[10:] + b"\nTraceback:\n  boom\n" + b"[" * 5000 + b"\n")
    assert [(r.name, r.levelname) for r in caplog.records] == [("shard-7", "WARNING"), ("shard-7", "ERROR")]
    assert caplog.records[0].getMessage() == "hello" and "boom" in caplog.records[1].getMessage()


def test_a_full_log_pipe_never_blocks() -> None:
    read, write = os.pipe()
    handler = logs.PipeHandler(write)
    for _ in range(3000):
        handler.emit(logging.LogRecord("x", logging.ERROR, "", 0, "y" * 200, (), None))
    assert handler.dropped > 0
    os.close(read)
    os.close(write)


def test_rate_limit_says_how_many_were_left_out() -> None:
    limit = logs.RateLimit()
    passed = 0
    for n in range(100):
        record = logging.LogRecord("x", logging.ERROR, "", 0, "again", (), None)
        record.created = 1000.0 + n * 0.01
        passed += limit.filter(record)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "again", (), None)
    record.created = 2000.0
    assert passed == 20 and limit.filter(record) and "80 more" in record.msg
