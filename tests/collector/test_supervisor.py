"""Control messages between the supervisor and its children."""

from __future__ import annotations

import os

import pytest

from collector import control


def test_control_messages_carry_descriptors_and_refuse_nonsense() -> None:
    ours, theirs = control.pair()
    read, write = os.pipe()
    control.send(ours, {"kind": "x"}, [write])
    received = control.receive(theirs)
    assert received is not None and received[0] == {"kind": "x"}
    os.write(received[1][0], b"hi")
    assert os.read(read, 2) == b"hi"
    ours.send(b"[1]")
    with pytest.raises(ValueError, match="object"):
        control.receive(theirs)
    ours.close()
    assert control.receive(theirs) is None
    theirs.close()
    for fd in (read, write, received[1][0]):
        os.close(fd)
