"""The archive of `collector report`: each part within its time, whatever happens to the others."""

from __future__ import annotations

import io
import tarfile
import threading

from collector.report import archive
from collector.report.archive import Archive, Part, make


def test_a_part_is_masked() -> None:
    made = make(Part("a", lambda: "one two"), str.upper)
    assert (made.text, made.problem) == ("ONE TWO", "")


def test_a_part_that_fails_says_why_and_is_masked() -> None:
    def fail() -> str:
        raise OSError(5, "no answer of 10.0.0.1")

    made = make(Part("a", fail), lambda text: text.replace("10.0.0.1", "<address-1>"))
    assert made.problem == "OSError: [Errno 5] no answer of <address-1>" and made.text == made.problem + "\n"


def test_a_part_that_hangs_is_left_behind() -> None:
    never = threading.Event()
    made = make(Part("a", lambda: str(never.wait(60)), 0.05), str)
    never.set()
    assert made.problem == "not done within 0.05 s"


def test_of_a_part_that_is_too_long_the_end_stays() -> None:
    made = make(Part("log", lambda: "a" + "b" * archive.MOST_BYTES), str)
    assert len(made.text) == archive.MOST_BYTES and "a" not in made.text and made.problem == "only the last 8 MiB"


def test_the_file_is_a_tar_with_private_modes() -> None:
    file = io.BytesIO()
    written = Archive(file, "top")
    assert written.add("one.txt", "\u00fc\n") == 3
    written.close()
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:gz") as tar:
        (entry,) = tar.getmembers()
        content = tar.extractfile(entry)
        assert content is not None
        assert (entry.name, entry.mode, entry.uid, content.read()) == ("top/one.txt", 0o600, 0, b"\xc3\xbc\n")
