"""What the supervisor keeps for the next loader: every descriptor, in messages of a bounded size, none of them leaked."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import control
from collector.errors import ProtocolError
from collector.loader.programs import Loaded
from collector.settings import Adoption, KernelState
from collector.supervisor.handover import Handover

STATE = KernelState(variant="tpx", identity="socket", uprobes="multi")


class Loader:
    """The loader's end, that takes so many messages at a time."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.pid = 1
        self.named: dict[str, int] = {}
        self.messages = 0

    def tell(self, message: dict[str, Any], fds: list[int]) -> bool:
        """As ChildProcess."""
        if not self.room:
            return False
        self.room -= 1
        assert message["kind"] == "held" and len(fds) <= control.MAX_FDS
        self.named.update(zip(message["names"], fds, strict=True))
        self.messages += 1
        return True


def opened(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]


def count_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def give(handover: Handover, names: list[str]) -> None:
    fds = opened(len(names))
    handover.heard({"kind": "held", "names": names}, fds)
    assert not fds  # they belong to it now


def test_probes_of_libraries_are_closed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the kernel: hundreds one after the other would outlast the time that a stop may take."""
    handover, close, together = Handover(), os.close, threading.Barrier(4)
    give(handover, [f"probes/fe:01:7/p/{number}" for number in range(8)])

    def wait(fd: int) -> None:
        together.wait(30)
        close(fd)

    before = count_fds()
    monkeypatch.setattr(os, "close", wait)
    handover.release()
    monkeypatch.undo()
    assert count_fds() == before - 8


BASE = ["programs/a", "maps/conns", "maps/unwanted", "rings/0", "rings/1"]


def test_a_new_loader_gets_300_probes_in_bounded_messages_and_takes_them_up() -> None:
    handover, before = Handover(), count_fds()
    give(handover, BASE)
    for first in range(0, 300, 100):
        give(handover, [f"probes/fe:01:7/p/{number:x}" for number in range(first, first + 100)])
    assert handover.offer() is None and count_fds() == before  # it was killed before it had said that this is all
    give(handover, BASE)
    for first in range(0, 300, 100):
        give(handover, [f"probes/fe:01:7/p/{number:x}" for number in range(first, first + 100)])
    handover.heard({"kind": "attached", "state": STATE.to_message(), "line": "hooks"}, [])
    offered = handover.offer()
    assert offered == Adoption(state=STATE, descriptors=305) and handover.line == "hooks"
    loader = Loader(room=2)
    handover.turn(loader)  # type: ignore[arg-type]
    assert loader.messages == 2
    loader.room = 1 << 30
    handover.turn(loader)  # type: ignore[arg-type]
    assert loader.messages == 4 and len(loader.named) == 305
    loaded = Loaded.adopt(STATE, loader.named)
    assert list(loaded.programs) == ["a"] and set(loaded.maps) == {"conns", "unwanted"} and len(loaded.rings) == 2
    assert handover.rings() == [loader.named["rings/0"], loader.named["rings/1"], loader.named["maps/unwanted"]]
    handover.stop()
    assert count_fds() == before + 300  # the probes of the library stay until all is delivered
    handover.release()
    assert count_fds() == before and handover.rings() == [] and handover.offer() is None


def test_a_loader_that_is_gone_ends_the_waiting() -> None:
    handover = Handover()
    give(handover, BASE)
    handover.heard({"kind": "attached", "state": STATE.to_message(), "line": ""}, [])
    handover.offer()
    loader = Loader(room=0)
    loader.pid = None  # type: ignore[assignment]
    handover.finish(loader)  # type: ignore[arg-type]
    assert loader.messages == 0
    handover.release()


def test_a_state_that_is_none_is_refused() -> None:
    handover = Handover()
    with pytest.raises(ProtocolError, match="uprobes"):
        handover.heard({"kind": "attached", "state": {"variant": "tpx", "identity": "socket"}, "line": ""}, [])
    assert handover.offer() is None


def test_names_and_descriptors_that_do_not_fit_are_refused() -> None:
    handover, before = Handover(), count_fds()
    fds = opened(2)
    with pytest.raises(ValueError, match="1 names for 2 descriptors"):
        handover.heard({"kind": "held", "names": ["probes/x"]}, fds)
    for fd in fds:  # the caller's
        os.close(fd)
    assert count_fds() == before


_NAMES = st.sampled_from([f"probes/{letter}/p/1" for letter in "abcdef"])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.lists(_NAMES, unique=True, max_size=4)), max_size=12))
def test_whatever_comes_and_goes_is_what_the_next_loader_gets(steps: list[tuple[bool, list[str]]]) -> None:
    handover, before = Handover(), count_fds()
    held: set[str] = set()
    for comes, names in steps:
        if comes:
            give(handover, names)
            held.update(names)
        else:
            handover.heard({"kind": "released", "names": names}, [])
            held.difference_update(names)
        assert count_fds() == before + len(held)
    handover.heard({"kind": "attached", "state": STATE.to_message(), "line": ""}, [])
    loader = Loader()
    handover.offer()
    handover.turn(loader)  # type: ignore[arg-type]
    assert set(loader.named) == held
    handover.release()
    assert count_fds() == before
