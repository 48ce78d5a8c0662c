"""Whose a process is, and who has an address, as records say it; records that wait for that; processes of which nothing is
wanted.
"""

from __future__ import annotations

from typing import Any

import psutil
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from collector.shards.pipeline import Pipeline
from tests.events import GET, MS, OK, Conversation, ident, pipeline, take

SECOND = 1000 * MS
CART, SHOP = b'"namespace":"shop","pod":"cart-0"', b'"namespace":"shop","pod":"shop-0"'


def owner(c: Conversation, fields: bytes, tgid: int | None = None, **what: Any) -> None:
    """The loader tells."""
    c.feed(abi.pack_owner(c.conn[1] if tgid is None else tgid, fields, ts_ns=c.now, **what))


def before(fields: bytes, **what: Any) -> Conversation:
    """A conversation of whose process was told before its first event, as the loader does it."""
    pipe = pipeline()
    pipe.feed(abi.pack_owner(100, fields, ts_ns=1_000_000_000, **what), 0)
    return Conversation(pipe)


def named(records: list[dict[str, Any]]) -> list[str | None]:
    """Their pods."""
    return [record.get("pod") for record in records]


def test_a_record_has_the_fields_of_its_process() -> None:
    c = before(CART)
    (record,) = c.request(GET).response(OK).records()
    assert (record["namespace"], record["pod"], record["process_name"]) == ("shop", "cart-0", "server")


def test_nobody_is_told_of() -> None:
    (record,) = Conversation().request(GET).response(OK).records()
    assert "pod" not in record
    (record,) = before(b"").request(GET).response(OK).records()
    assert "pod" not in record and "namespace" not in record


def test_another_owner_stands_in_the_records_from_then_on() -> None:
    c = before(CART)
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]
    owner(c, SHOP)
    assert named(c.request(GET).response(OK).records()) == ["shop-0"]
    owner(c, b"")
    assert named(c.request(GET).response(OK).records()) == [None]


def test_who_answers_counts_not_who_accepted() -> None:
    """A worker of another container goes on with the connection."""
    c = before(CART)
    owner(c, SHOP, tgid=200)
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]
    c.conn = (c.conn[0], 200, c.conn[2])
    assert named(c.request(GET).response(OK).records()) == ["shop-0"]


def test_a_number_that_is_used_again() -> None:
    c = before(CART, start_ns=5)
    c.feed(abi.pack_process(100, b"server", ts_ns=c.now, start_ns=5))
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]
    c.feed(abi.pack_process(100, b"other", ts_ns=c.now, start_ns=6))
    assert named(c.request(GET).response(OK).records()) == [None]


def test_records_wait_for_an_owner_that_is_looked_for() -> None:
    c = before(b"", flags=abi.F_PENDING)
    assert c.request(GET).response(OK).records() == []
    owner(c, CART)
    assert named(c.records()) == ["cart-0"]
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]
    assert c.counters()["owner_unknown_records"] == 0


def test_not_for_ever() -> None:
    c = before(
        b"",
        flags=abi.F_PENDING,
    )
    assert c.request(GET).response(OK).records() == []
    c.wait(2)
    assert named(c.records()) == [None]
    assert c.counters()["owner_unknown_records"] == 1
    assert named(c.request(GET).response(OK).records()) == [None]  # and the next ones wait no more
    owner(c, CART)
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]
    assert c.counters()["owner_unknown_records"] == 2


def test_a_connection_that_ends_meanwhile() -> None:
    c = before(b"", flags=abi.F_PENDING)
    c.request(GET).response(OK).close()
    assert c.records() == [] and c.counters()["connections"] == 1
    owner(c, CART)
    assert named(c.records()) == ["cart-0"] and c.counters()["connections"] == 0
    c = before(b"", flags=abi.F_PENDING)
    c.request(GET).response(OK).close()
    c.wait(3)
    assert named(c.records()) == [None] and c.counters()["connections"] == 0


def test_what_is_unfinished_when_a_connection_ends_waits_as_well() -> None:
    c = before(b"", flags=abi.F_PENDING)
    c.request(GET).response(OK).request(GET).close()
    owner(c, CART)
    first, second = c.records()
    assert named([first, second]) == ["cart-0", "cart-0"] and "no_response" in second["words"]


def test_at_the_end_nothing_waits() -> None:
    c = before(b"", flags=abi.F_PENDING)
    c.request(GET).response(OK)
    assert c.pipe.close_all()
    assert named(take(c.pipe)) == [None]


def test_a_process_of_which_nothing_is_wanted() -> None:
    c = before(b"", flags=abi.F_UNSELECTED)
    assert c.request(GET).response(OK).records() == []
    assert c.counters()["unselected_connections"] == 1
    owner(c, CART)
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]


def test_what_waits_is_dropped_when_nothing_is_wanted() -> None:
    c = before(b"", flags=abi.F_PENDING)
    c.request(GET).response(OK)
    owner(c, b"", flags=abi.F_UNSELECTED)
    assert c.records() == []
    c.close()
    assert c.records() == [] and c.counters()["connections"] == 0


def test_half_of_an_exchange_is_dropped_when_nothing_is_wanted_any_more() -> None:
    c = before(CART)
    c.request(GET)
    owner(c, b"", flags=abi.F_UNSELECTED)
    c.response(OK)
    assert c.records() == []
    owner(c, CART)
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]


def test_another_process_does_not_matter() -> None:
    c = before(CART)
    owner(c, b"", tgid=200, flags=abi.F_UNSELECTED)
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]


def test_what_is_known_when_the_wait_is_over() -> None:
    """The kubelet's files have named it; the API server has not told of it yet."""
    c = before(CART, flags=abi.F_PENDING)
    assert c.request(GET).response(OK).records() == []
    c.wait(2)
    assert named(c.records()) == ["cart-0"] and c.counters()["owner_unknown_records"] == 0


def test_what_is_not_known_and_not_wanted_until_it_is() -> None:
    c = before(b"", flags=abi.F_PENDING | abi.F_UNSELECTED)
    c.request(GET).response(OK).wait(5)
    assert c.records() == []
    owner(c, CART)
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]


def test_a_reset_connection_waits_as_well() -> None:
    c = before(b"", flags=abi.F_PENDING)
    c.request(GET).response(OK)
    c.now += MS
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, final_in=c.positions[0], final_out=c.positions[1], reason=abi.RESET))
    assert c.records() == []
    owner(c, CART)
    assert named(c.records()) == ["cart-0"] and c.counters()["connections"] == 0


def test_a_number_that_is_used_again_by_one_that_is_looked_for() -> None:
    c = before(CART, start_ns=5)
    owner(c, b"", start_ns=6, flags=abi.F_PENDING)
    c.feed(abi.pack_process(100, b"other", ts_ns=c.now, start_ns=6))
    c.request(GET).response(OK).wait(5)
    assert named(c.records()) == [None]
    c = before(b"", start_ns=5, flags=abi.F_UNSELECTED)
    owner(c, SHOP, start_ns=6)
    other = Conversation(c.pipe, conn=ident(100, 6, 2))
    assert named(other.request(GET).response(OK).records()) == ["shop-0"]


def test_a_connection_that_gives_way_while_it_waits() -> None:
    """It goes on, and its next records wait no longer than others."""
    c = before(b"", flags=abi.F_PENDING)
    c.request(GET).response(OK)
    c.pipe.set_budget(0)
    assert named(c.records()) == [None]
    c.pipe.set_budget(1 << 28)
    c.request(GET).response(OK).wait(2)
    (record,) = c.records()
    assert record["path"] == "/x" and c.counters()["timed_out"] == 0
    c.close()
    assert c.counters()["connections"] == 0


def test_the_loaders_time_is_not_that_of_the_events() -> None:
    """What it says stands in front of what happened before."""
    # a library's object whose socket is not known yet
    c = Conversation(source=1, conn=(5 << 4, 100, -1), local=("", 0), remote=("", 0))
    c.request(GET).response(OK)
    c.feed(abi.pack_owner(200, CART, ts_ns=c.now + 60 * SECOND))
    c.feed(abi.pack_peer(bytes(16), CART, ts_ns=c.now + 60 * SECOND))
    assert c.records() == [], "it still waits"


# ---- addresses ----


def peer(c: Conversation, host: str, fields: bytes) -> None:
    """The loader tells."""
    c.feed(abi.pack_peer(abi.address16(host), fields, ts_ns=c.now))


def test_a_record_knows_the_other_end() -> None:
    c = before(CART)
    peer(c, "10.0.0.2", b'"peerPod":"client-0"')
    peer(c, "10.0.0.3", b'"peerPod":"other-0"')
    (record,) = c.request(GET).response(OK).records()
    assert (record["pod"], record["peerPod"]) == ("cart-0", "client-0")
    peer(c, "10.0.0.2", b"")
    (record,) = c.request(GET).response(OK).records()
    assert "peerPod" not in record


def test_an_address_that_was_given_to_another_one_later() -> None:
    """What is left of the connection before has nothing to do with it."""
    c = before(CART)
    c.request(GET)
    c.now += SECOND
    peer(c, "10.0.0.2", b'"peerPod":"new-0"')
    c.wait(1000)
    (record,) = c.records()
    assert "peerPod" not in record and "no_response" in record["words"]


def test_all_pods_of_a_node() -> None:
    """Neighbours, as a node's pods have them."""
    pipe = pipeline()
    for prefix in ("10.244.3.{}", "fd00::3:{:x}"):
        addresses = [prefix.format(number) for number in range(1, 250)]
        for number, host in enumerate(addresses):
            pipe.feed(abi.pack_peer(abi.address16(host), b'"peerPod":"p%d"' % number, ts_ns=1), 0)
        for number, host in enumerate(addresses):
            c = Conversation(pipe, conn=ident(100, 5, 1000 + number), remote=(host, 4000), local=(host, 80))
            (record,) = c.request(GET).response(OK).close().records()
            assert record["peerPod"] == f"p{number}"


def test_addresses_that_nobody_has_any_more_give_way_first() -> None:
    c = before(CART)
    peer(c, "10.0.0.2", b'"peerPod":"client-0"')
    for number in range(20_000):
        host = f"10.9.{number >> 8 & 255}.{number & 255}"
        peer(c, host, b'"peerPod":"short"')
        peer(c, host, b"")
    (record,) = c.request(GET).response(OK).records()
    assert record["peerPod"] == "client-0"


def test_more_addresses_than_there_is_room_for() -> None:
    c = before(CART)
    for number in range(20_000):
        peer(c, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", b'"peerPod":"p%d"' % number)
    peer(c, "10.0.0.2", b'"peerPod":"client-0"')
    (record,) = c.request(GET).response(OK).records()
    assert record["peerPod"] == "client-0"


@given(st.lists(st.tuples(st.sampled_from([100, 200, 300]), st.sampled_from([b"", CART, SHOP]), st.integers(0, 3))))
def test_whatever_is_told_in_whatever_order(told: list[tuple[int, bytes, int]]) -> None:
    """Nothing is lost but what is not wanted, and the last word counts."""
    pipe = pipeline()
    c = Conversation(pipe)
    other = Conversation(pipe, conn=ident(200, 5, 2))
    for tgid, fields, flags in told:
        owner(c, fields, tgid=tgid, flags=flags)
        c.request(GET).response(OK)
    c.close()
    other.request(GET).response(OK).close()
    owner(c, CART)
    owner(c, CART, tgid=200)
    assert pipe.close_all()
    records = take(pipe)
    unwanted = {tgid for tgid, _fields, flags in told if flags & abi.F_UNSELECTED}
    if not unwanted:
        assert len(records) == len(told) + 1
    assert c.counters()["connections"] == 0


def test_a_text_is_kept_once_for_all_processes_of_a_container() -> None:
    pipe = pipeline()
    fields = CART[:-1] + b"x" * 8192 + b'"'
    before = psutil.Process().memory_info().rss
    for tgid in range(200, 20_200):
        pipe.feed(abi.pack_owner(tgid, fields, ts_ns=1_000_000_000), 0)
    assert psutil.Process().memory_info().rss - before < 32 << 20, "160 MiB, if each had its own"
    c = Conversation(pipe, conn=ident(20_000, 5, 1))
    (record,) = c.request(GET).response(OK).records()
    assert record["pod"] == "cart-0" + "x" * 8192


@given(st.lists(st.tuples(st.integers(200, 240), st.integers(0, 3000)), max_size=200))
def test_texts_that_share_a_place_and_processes_that_change_theirs(told: list[tuple[int, int]]) -> None:
    pipe = pipeline()
    last: dict[int, int] = {}
    for tgid, number in told:
        pipe.feed(abi.pack_owner(tgid, b'"pod":"p%d"' % number if number else b"", ts_ns=1_000_000_000), 0)
        last[tgid] = number
    for tgid, number in last.items():
        (record,) = Conversation(pipe, conn=ident(tgid, 5, tgid)).request(GET).response(OK).close().records()
        assert record.get("pod") == (f"p{number}" if number else None)


def damaged(pipe: Pipeline, event: bytes) -> None:
    """An event that says it has more than it has."""
    changed = bytearray(event)
    changed[8 + 40 : 8 + 44] = (1 << 20).to_bytes(4, "little")  # len_cap
    pipe.feed(bytes(changed), 0)


def test_damage() -> None:
    c = before(CART)
    bad = c.counters()["bad_events"]
    damaged(c.pipe, abi.pack_owner(100, SHOP))
    damaged(c.pipe, abi.pack_peer(bytes(16), SHOP))
    assert c.counters()["bad_events"] == bad + 2
    assert named(c.request(GET).response(OK).records()) == ["cart-0"]
