"""Of an exception that nobody expected its words are not said, and where it comes from is: in a real process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from collector import faults
from collector.errors import ProtocolError

SECRET = "canary-of-a-body"
CODE = """
import logging, os, sys, threading
from collector import faults, logs
faults.hide_words()
logs.set_up_child("DEBUG")
word = sys.stdin.read()

def falls(secret):
    try:
        {}[secret]
    except KeyError:
        return int(secret)

class Falls:
    def __del__(self):
        falls(word)

what = sys.argv[1]
if what == "log":
    try:
        falls(word)
    except ValueError:
        logging.getLogger("x").exception("it failed")
elif what == "thread":
    one = threading.Thread(target=falls, args=(word,))
    one.start()
    one.join()
elif what == "ignored":
    Falls()
else:
    falls(word)
"""


@pytest.mark.parametrize("way", ["end", "log", "thread", "ignored"])
def test_no_words_and_the_place(way: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, way], input=SECRET, stderr=subprocess.PIPE, text=True)
    assert "ValueError" in done.stderr and "KeyError" in done.stderr and "in falls" in done.stderr
    assert SECRET not in done.stderr
    assert done.returncode == (way == "end")


def test_words_of_ours_and_of_the_system_are_said() -> None:
    assert faults.words(ProtocolError("a batch of 7 bytes")) == "a batch of 7 bytes"
    assert faults.words(FileNotFoundError(2, "No such file or directory", "/spool")) == (
        "FileNotFoundError: No such file or directory: '/spool'"
    )
    assert faults.words(ValueError(SECRET)) == "ValueError"


def test_a_long_chain_ends() -> None:
    error: Exception | None = None
    for number in range(100):
        error, last = ValueError(number), error
        error.__cause__ = last
    assert faults.text(error).count("which led to") == 9
