"""What the loaders say of connections that are not captured, added up."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collector import unsupported
from collector.unsupported import OTHER, PAIRS, QUIC, TLS, UNBOUND, Totals


def row(pid: int, tls: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "pid": pid,
        "process": "java",
        "library": "jsse",
        "probed": False,
        "tls": tls,
        **changes,
    }


def test_processes_of_one_name_are_added_up() -> None:
    totals = Totals()
    totals.heard([row(1, 5), row(2, 7), row(3, 2, library="rustls", process="app")])
    totals.heard([row(1, 6)])
    assert totals.samples() == [(TLS.name, "jsse", "java", 13), (TLS.name, "rustls", "app", 2)]


def test_a_new_loader_that_reads_the_same_again_adds_nothing() -> None:
    totals = Totals()
    totals.heard([row(1, 5)])
    totals.heard([row(1, 0), row(1, 3), row(1, 5), row(1, 6)])
    assert totals.samples() == [(TLS.name, "jsse", "java", 6)]


def test_another_process_with_the_number_of_one_that_is_gone_begins_anew() -> None:
    totals = Totals()
    totals.heard([row(1, 5), {"pid": 1, "gone": True}, {"pid": 9, "gone": True}, row(1, 2)])
    assert totals.samples() == [(TLS.name, "jsse", "java", 7)]


def test_each_metric_has_its_label() -> None:
    totals = Totals()
    totals.heard([row(1, 5, probed=True), row(2, 3)])
    assert sorted(totals.samples()) == sorted([(UNBOUND.name, "jsse", "java", 5), (TLS.name, "jsse", "java", 3)])


def quic(pid: int, client: int = 0, server: int = 0, process: str = "curl") -> dict[str, Any]:
    return {"pid": pid, "process": process, "quic": [client, server]}


def test_quic_is_counted_by_role_beside_tls() -> None:
    totals = Totals()
    totals.heard([row(1, 5), quic(1, 2, 1), quic(2, 3), quic(1, 2, 4), row(1, 6)])
    assert sorted(totals.samples()) == sorted(
        [(TLS.name, "jsse", "java", 6), (QUIC.name, "client", "curl", 5), (QUIC.name, "server", "curl", 4)]
    )
    totals.heard([quic(1, 1, 1), {"pid": 1, "gone": True}, quic(1, 1, 1)])
    assert sorted(totals.samples())[:2] == [(QUIC.name, "client", "curl", 6), (QUIC.name, "server", "curl", 5)]


def test_further_processes_with_quic_keep_their_role() -> None:
    totals = Totals()
    totals.heard([quic(pid, 1, process=f"process{pid}") for pid in range(PAIRS + 10)] + [quic(1000, 0, 3, "other one")])
    samples = totals.samples()
    assert len(samples) == PAIRS + 2
    assert {(QUIC.name, "client", OTHER, 10), (QUIC.name, "server", OTHER, 3)} < set(samples)


def test_labels_are_bounded_in_number_and_length() -> None:
    totals = Totals()
    totals.heard([row(pid, 1, process=f"process{pid}") for pid in range(PAIRS + 10)])
    totals.heard([row(1000, 1, library="x" * 1000, process="process1")])
    samples = totals.samples()
    assert len(samples) == PAIRS + 1 and (TLS.name, OTHER, OTHER, 11) in samples
    totals = Totals()
    totals.heard([row(1, 1, library="x" * 1000, process='\ud800\n"\u202e')])
    assert totals.samples() == [(TLS.name, "x" * 40, '??"?', 1)]


def test_all_of_it_fits_into_a_message() -> None:
    totals = Totals()
    for pid in range(1000):
        names = {"library": f"{pid}" + "😀" * 300, "process": f"{pid}" + "😀" * 3, "probed": pid % 2 == 0}
        totals.heard([row(pid, 2**60, **names)])
    assert len(json.dumps(totals.samples())) < 1 << 16


@given(
    st.lists(
        st.builds(row, st.integers(1, 3), st.integers(0, 5), process=st.text())
        | st.builds(quic, st.integers(1, 3), st.integers(0, 5), st.integers(0, 5), process=st.text())
        | st.builds(lambda pid: {"pid": pid, "gone": True}, st.integers(1, 3))
    )
)
def test_sums_never_fall(rows: list[dict[str, Any]]) -> None:
    totals = Totals()
    before = 0
    for each in rows:
        totals.heard([each])
        now = sum(number for *_labels, number in totals.samples())
        assert now >= before
        before = now
    json.dumps(totals.samples())
    assert all(label.isprintable() for _name, *labels, _number in totals.samples() for label in labels)


def test_the_names_are_different_and_say_what_they_are() -> None:
    assert len({metric.name for metric in unsupported.METRICS}) == 3
