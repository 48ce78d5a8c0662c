"""Which members of the kernel's structs are read, and what happens when a kernel does not have them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collector.loader import btf, offsets

KERNEL_H = Path(__file__).resolve().parents[3] / "bpf"


def test_every_define_is_used_and_every_use_is_defined() -> None:
    text = "".join((KERNEL_H / name).read_text() for name in ("kernel.h", "connections.h", "sockets.h"))
    used = set(re.findall(r"\b(?:TASK|SIGNAL|FILES|FDT|FILE|SOCKET|SK|INET|ICSK|UNIX)_[A-Z0-9_]+\b", text))
    used |= set(re.findall(r"\bTCP_(?:COPIED_SEQ|WRITE_SEQ|RCV_NXT|SND_UNA|BYTES_\w+)\b", text))
    declared = {*offsets.MEMBERS, *offsets.OPTIONAL, "FILE_COUNT", "FILE_COUNT_ONE"}
    assert declared <= used | {"SK_RCV_SADDR", "SOCKET_SK"}  # neighbours of what is read with them
    assert used - declared <= {"SOCK_STREAM", "UNIX_SOCKETS"}


def kernel(monkeypatch: pytest.MonkeyPatch, **changes: int | None) -> dict[str, int]:
    """The defines for a kernel with other members than a usual one; None takes one away."""
    found = {member: 8 * n for n, member in enumerate(offsets.MEMBERS.values())}
    found |= {
        "socket.file": 16,
        "socket.sk": 24,
        "sock.__sk_common.skc_daddr": 0,
        "sock.__sk_common.skc_rcv_saddr": 4,
        "file.f_ref.refcnt": 176,
    }
    for name, value in changes.items():
        member = name.replace("__dot__", ".")
        if value is None:
            found.pop(member)
        else:
            found[member] = value
    monkeypatch.setattr(btf, "offsets", lambda _data, _wanted: found)
    return offsets.defines(b"")


def test_both_ways_to_count_the_users_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    new = kernel(monkeypatch)
    assert (new["FILE_COUNT"], new["FILE_COUNT_ONE"]) == (176, 0)
    old = kernel(monkeypatch, file__dot__f_ref__dot__refcnt=None, file__dot__f_count=56)
    assert (old["FILE_COUNT"], old["FILE_COUNT_ONE"]) == (56, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tcp_sock__dot__copied_seq": None}, "does not have tcp_sock.copied_seq"),
        ({"file__dot__f_ref__dot__refcnt": None}, "count of a file's users"),
        ({"socket__dot__sk": 40}, "laid out in another way"),
    ],
)
def test_a_kernel_that_is_not_understood_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, int | None], words: str
) -> None:
    with pytest.raises(offsets.UnknownKernel, match=words):
        kernel(monkeypatch, **changes)


def test_damaged_btf_is_an_unknown_kernel() -> None:
    with pytest.raises(offsets.UnknownKernel, match="cannot be read"):
        offsets.defines(b"no BTF at all")
