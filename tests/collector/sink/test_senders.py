"""What the sink knows of each life of a shard."""

from __future__ import annotations

from collector.sink.senders import ARRIVES_SECONDS, Senders


def test_an_answer_is_given_once_and_when_all_has_come() -> None:
    senders = Senders()
    senders.took(1, 10)
    senders.ended(1, 100.0)
    senders.ended(2, 100.0)  # nothing ever came of it
    senders.took(1, 5)
    senders.took(3, 100)
    assert senders.answers(100.0 + ARRIVES_SECONDS / 2) == []
    senders.ended(1, 100.0 + ARRIVES_SECONDS / 2)  # asked again: that is no reason to wait longer
    assert senders.answers(100.1 + ARRIVES_SECONDS) == [(1, 15), (2, 0)]
    assert senders.answers(200.0) == []


def test_orphans_are_what_is_held_of_those_that_are_gone() -> None:
    senders = Senders()
    senders.took(1, 10)
    senders.took(2, 100)
    senders.settled(1, 4)
    assert senders.orphaned() == 0
    senders.ended(1, 0.0)
    assert senders.orphaned() == 0  # the supervisor counts all that is not acknowledged until it has the answer
    assert senders.answers(1.0) == [(1, 10)]
    assert senders.orphaned() == 6
    senders.settled(2, 50)
    senders.settled(1, 6)
    assert senders.orphaned() == 0
    senders.settled(2, 50)
    senders.ended(2, 2.0)
    assert senders.answers(3.0) == [(2, 100)] and senders.orphaned() == 0
