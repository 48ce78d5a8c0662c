"""What a library tells of its connections, as records say it; and records that wait until their socket is known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from collector.loader import catalogue
from collector.loader.introductions import library_names
from collector.shards.pipeline import Pipeline
from tests.events import GET, MS, OK, Conversation, ident, pipeline, take

OPENSSL, GNUTLS, NSS, GO = 1, 2, 3, 4
LOCAL, REMOTE = ("10.0.0.1", 443), ("10.0.0.2", 40000)
SOCKET = ident(100, 9, 2)
SECOND = 1000 * MS
FIELDS = ("tls", "tlsLibrary", "tlsVersion", "alpn", "sni")


def facts(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a record says of TLS, in the order of its fields; None for what is not there."""
    there = [name for name in record if name in FIELDS]
    assert there == [name for name in FIELDS if name in record]
    return tuple(record.get(name) for name in FIELDS)


def told(c: Conversation, **what: Any) -> Conversation:
    """The library tells something."""
    c.feed(abi.pack_tls(c.conn, ts_ns=c.now, source=c.source, **what))
    return c


def exchange(c: Conversation) -> dict[str, Any]:
    """One exchange, and its record, which is made at once."""
    (record,) = c.request(GET).response(OK).records()
    return record


# ---- facts ----


def test_a_library_that_tells_nothing_is_known_by_its_source() -> None:
    for source, name in ((OPENSSL, "openssl"), (GNUTLS, "gnutls"), (NSS, "nss"), (GO, "go"), (200, None)):
        assert facts(exchange(Conversation(source=source))) == ("true", name, None, None, None)
    assert facts(exchange(Conversation())) == ("false", None, None, None, None)


def test_all_that_is_told_stands_in_the_records_from_then_on() -> None:
    c = Conversation(source=OPENSSL)
    c.feed(library_names({7: "openssl-3.0.22"}, now_ns=c.now))
    assert facts(exchange(c)) == ("true", "openssl", None, None, None)
    assert facts(exchange(told(c, library=7))) == ("true", "openssl-3.0.22", None, None, None)
    assert facts(exchange(told(c, version=0x0304, alpn=b"http/1.1"))) == ("true", "openssl-3.0.22", "1.3", "http/1.1", None)
    c.request(GET)
    told(c, version=0x0303, sni=b"api.example").response(OK)
    assert facts(c.records()[0]) == ("true", "openssl-3.0.22", "1.2", "http/1.1", "api.example")
    told(c)  # what an event does not know stays as it was
    assert facts(exchange(c)) == ("true", "openssl-3.0.22", "1.2", "http/1.1", "api.example")
    assert facts(exchange(told(c, alpn=b"h2", sni=b"b"))) == ("true", "openssl-3.0.22", "1.2", "h2", "b")
    assert c.close().counters()["buffer_bytes"] > 0  # kept for reuse
    c.pipe.set_budget(0)
    assert c.counters()["buffer_bytes"] == 0


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (0x0300, "3.0"),
        (0x0301, "1.0"),
        (0x0302, "1.1"),
        (0x0303, "1.2"),
        (0x0304, "1.3"),
        (0x0305, "0x305"),
        (0xFEFD, "0xfefd"),
        (0x7F1C, "0x7f1c"),
        (0x0004, "0x4"),
        (0, None),
    ],
)
def test_versions(version: int, text: str | None) -> None:
    assert facts(exchange(told(Conversation(source=GO), version=version, library=0)))[2] == text


@pytest.mark.parametrize(
    ("alpn", "sni", "alpn_text", "sni_text"),
    [
        (b"x" * 16, b"y" * 64, "x" * 16, "y" * 64),
        (b"x" * 17, b"y" * 65, None, None),  # the event has no room for all of it: another name
        (b"x" * 255, b"y" * 255, None, None),
        (b"\x0a\x0a", b"a\x7f", None, None),
        (b"a\xc3\xa9", b"\x00", None, None),
        (b'"\\', b'a","marks":"[]', '"\\', 'a","marks":"[]'),
        (b"", b" ", None, " "),
        (b'"' * 16, b"\\" * 64, '"' * 16, "\\" * 64),
    ],
)
def test_texts_of_strangers(alpn: bytes, sni: bytes, alpn_text: str | None, sni_text: str | None) -> None:
    c = told(Conversation(source=OPENSSL), alpn=alpn, sni=sni)
    assert facts(exchange(c))[3:] == (alpn_text, sni_text)
    assert facts(exchange(told(c, alpn=b"h2", sni=b"known")))[3:] == ("h2", "known")
    # one that is told and cannot be shown is not the one of before
    assert facts(exchange(told(c, alpn=alpn, sni=sni)))[3:] == (alpn_text if alpn else "h2", sni_text)


@given(name=st.binary(min_size=1, max_size=60), alpn=st.binary(max_size=20), sni=st.binary(max_size=70))
def test_any_bytes_give_a_record_of_the_documented_form(name: bytes, alpn: bytes, sni: bytes) -> None:
    c = Conversation(source=OPENSSL)
    c.feed(abi.pack_library(1, name, ts_ns=c.now))
    told(c, library=1, alpn=alpn, sni=sni)
    exchange(c)  # which looks at the schema


def test_a_number_that_is_used_again_has_its_new_name() -> None:
    c = told(Conversation(source=OPENSSL), library=3)
    assert facts(exchange(c))[1] == "openssl"
    for name in ("openssl-1.1.1w", "boringssl"):
        c.feed(library_names({3: name, 4: "other"}, now_ns=c.now))
        assert facts(exchange(c))[1] == name
    for number in (0, catalogue.NUMBERS, 1 << 20, (1 << 32) - 1):
        c.feed(abi.pack_library(number, b"nobody's", ts_ns=c.now))
    last = catalogue.NUMBERS - 1
    c.feed(abi.pack_library(last, b"l" * 60, ts_ns=c.now))
    assert facts(exchange(told(c, library=last)))[1] == "l" * 47
    assert facts(exchange(told(c, library=catalogue.NUMBERS)))[1] == "openssl"
    assert facts(exchange(told(c, library=65535)))[1] == "openssl" and c.counters()["bad_events"] == 0


def test_what_is_told_of_nobody_is_ignored() -> None:
    c = told(Conversation(source=OPENSSL, opened=False), version=0x0304)
    assert c.counters()["connections_opened"] == 0
    c.feed(abi.pack_open(c.conn, ts_ns=c.now, source=OPENSSL, local=LOCAL, remote=REMOTE))
    assert facts(exchange(c)) == ("true", "openssl", None, None, None)
    short = bytearray(abi.pack_tls(c.conn, ts_ns=c.now, version=0x0303))
    short[0] -= 8
    c.feed(bytes(short[:-8]))
    assert facts(exchange(c))[2] is None and c.counters()["bad_events"] == 1


def test_both_names_of_a_connection_are_one() -> None:
    c = Conversation(source=OPENSSL)
    c.feed(abi.pack_bind(c.conn, SOCKET[0], ts_ns=c.now, role=abi.SERVER, local=LOCAL, remote=REMOTE))
    c.feed(abi.pack_tls(SOCKET, ts_ns=c.now, version=0x0304))
    assert facts(exchange(c))[2] == "1.3"


def test_what_stood_in_clear_in_front_of_the_plaintext_is_not_tls() -> None:
    c = Conversation(role=abi.CLIENT).request(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    told(c, version=0x0304, sni=b"a")  # before the first byte of the plaintext
    c.feed(abi.pack_open(c.conn, ts_ns=c.now, role=abi.CLIENT, source=GO, local=LOCAL, remote=REMOTE))
    c.source, c.positions = GO, [0, 0]
    c.request(GET).response(OK)
    assert [facts(r) for r in c.records()] == [("false", None, None, None, None), ("true", "go", "1.3", None, "a")]


def test_plaintext_whose_open_was_lost_is_said_to_be_tls_behind_a_record_in_clear_too() -> None:
    c = Conversation(role=abi.CLIENT)
    assert exchange(c)["tls"] == "false"
    c.source, c.positions = OPENSSL, [0, 0]
    assert facts(c.request(GET).response(OK).request(GET).response(OK).records()[-1])[:2] == ("true", "openssl")


def test_a_connection_that_gave_way_and_goes_on_has_them_still() -> None:
    pipe = pipeline(max_connections=1)
    pipe.feed(library_names({1: "nss-3.87"}, now_ns=1))
    c = Conversation(pipe, source=NSS, local=LOCAL, remote=REMOTE)
    told(c, version=0x0304, library=1, sni=b"a.example").request(GET)
    other = Conversation(pipe, conn=ident(7, 7))
    assert [facts(r) for r in take(pipe)] == [("true", "nss-3.87", "1.3", None, "a.example")]
    for _ in range(3):  # one after the other gives way
        other.request(GET).response(OK)
        c.request(GET).response(OK)
    records = [facts(r) for r in take(pipe)]
    assert set(records) == {("true", "nss-3.87", "1.3", None, "a.example"), ("false", None, None, None, None)}


def test_what_a_connection_is_told_counts_among_what_it_holds() -> None:
    def held(told_of_it: bool) -> int:
        pipe = pipeline(max_connections=1000)
        for fd in range(1000):
            c = Conversation(pipe, conn=ident(1, fd), source=OPENSSL)
            if told_of_it:
                told(c, version=0x0304, library=1, alpn=b"http/1.1", sni=b"orders.shop.svc.cluster.local")
            c.request(GET).response(OK)
        return int(pipe.statistics()["buffer_bytes"])

    plain, more = held(False), held(True)
    assert more - plain >= 1000 * (len("http/1.1") + len("orders.shop.svc.cluster.local"))
    assert more <= 1000 * 1200


# ---- the events ----


def test_events_as_they_are_walked() -> None:
    name, tls = abi.walk(
        abi.pack_library(5, b"go-1.26", ts_ns=3, ring=2)
        + abi.pack_tls((8, 7, -1), ts_ns=4, version=0x0304, library=5, alpn=b"h2", sni=b"a.example", source=GO, ring=1)
    )
    assert (name["type"], name["number"], name["name"], name["ring"]) == (abi.LIBRARY, 5, b"go-1.26", 2)
    assert (tls["type"], tls["conn"], tls["source"], tls["ring"]) == (abi.TLS, (8, 7, -1), GO, 1)
    assert (tls["version"], tls["library"], tls["alpn"], tls["sni"]) == (0x0304, 5, b"h2", b"a.example")
    for event in (abi.pack_library(5, b"x"), abi.pack_tls((8, 7, -1))):
        damaged = bytearray(event)
        damaged[0] -= 8
        with pytest.raises(ValueError, match="shorter than its type"):
            abi.walk(bytes(damaged[:-8]))


# ---- which socket is it? ----


def tls_object(pipe: Pipeline | None = None, *, number: int = 5, role: int = abi.SERVER, **changes: Any) -> Conversation:
    """An object of a library whose socket is not known yet."""
    conn = (ident(100, number)[0], 100, -1)
    return Conversation(pipe, conn=conn, role=role, local=("", 0), remote=("", 0), source=OPENSSL, **changes)


def bind(c: Conversation, after_ms: float = 0, local: tuple[str, int] = LOCAL, fd: int = 9) -> Conversation:
    """It becomes known."""
    c.now += int(after_ms * MS)
    c.feed(
        abi.pack_bind(
            (c.conn[0], 100, fd), SOCKET[0] + (c.conn[0] << 1), ts_ns=c.now, role=abi.SERVER, local=local, remote=REMOTE
        )
    )
    return c


def test_records_wait_for_the_socket_and_have_its_ends() -> None:
    c = tls_object()
    for _ in range(3):
        assert c.request(GET).response(OK).records() == []
    rs = bind(c, 500).records()
    assert [(r["ip"], r["destIp"], r["socket_id"], r["mark"]) for r in rs] == [
        ("10.0.0.2:40000", "10.0.0.1:443", "9", [])
    ] * 3
    assert exchange(c)["ip"] == "10.0.0.2:40000"  # and then no more
    assert c.counters()["peer_unknown_records"] == 0


def test_no_longer_than_a_second_and_then_for_a_moment() -> None:
    c = tls_object()
    c.request(GET).response(OK)
    assert c.wait(0.9).records() == []
    (r,) = c.wait(0.3).records()
    assert (r["ip"], r["destIp"], r["socket_id"], r["mark"]) == ("0.0.0.0:0", "0.0.0.0:0", "", ["peer_unknown"])
    assert c.request(GET).response(OK).wait(0.04).records() == []
    assert [r["mark"] for r in c.wait(0.2).records()] == [["peer_unknown"]]
    assert c.counters()["peer_unknown_records"] == 2
    c.request(GET).response(OK)
    assert [r["ip"] for r in bind(c).records()] == ["10.0.0.2:40000"]  # it carried this very answer
    assert exchange(c)["ip"] == "10.0.0.2:40000" and c.counters()["peer_unknown_records"] == 2


def test_the_time_begins_with_the_first_record_that_waits() -> None:
    c = tls_object().request(GET).wait(5)
    c.response(OK)
    assert c.wait(0.8).records() == []
    assert [r["ip"] for r in bind(c).records()] == ["10.0.0.2:40000"]


@pytest.mark.parametrize("tick", [False, True])
def test_a_socket_that_comes_too_late_changes_nothing_for_what_has_waited(tick: bool) -> None:
    """Whenever the timers are looked at: a replay gives the same records."""
    c = tls_object()
    c.request(GET).response(OK)
    c.now += SECOND + 1
    if tick:
        c.wait(0.2)
    assert [r["mark"] for r in bind(c).records()] == [["peer_unknown"]]
    assert exchange(c)["mark"] == []


def test_a_look_is_arranged_whatever_the_next_one_was_for() -> None:
    c = tls_object()
    c.request(GET)  # a look is arranged for the time at which it would be unanswered
    c.response(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    assert c.eof(abi.OUT).records() == []
    (r,) = c.wait(1.3).records()
    assert (r["responsePayload"], r["mark"]) == ("until the end", ["peer_unknown"])


def test_the_end_of_the_object_releases_it_at_once() -> None:
    c = tls_object()
    c.request(GET).response(OK).request(GET).close()
    done, cut = c.records()
    assert done["mark"] == ["peer_unknown"] and cut["words"] == {"peer_unknown", "no_response"}
    assert c.counters()["peer_unknown_records"] == 2


def test_the_end_of_the_process_and_of_the_collector_release_it() -> None:
    c = tls_object().request(GET).response(OK)
    c.feed(abi.pack_exit(100, ts_ns=c.now))
    assert [r["mark"] for r in c.records()] == [["peer_unknown"]]
    d = tls_object().request(GET).response(OK)
    assert d.pipe.close_all() and [r["mark"] for r in d.records()] == [["peer_unknown"]]


def test_what_turns_out_to_be_no_http_is_no_record() -> None:
    c = tls_object().request(GET).response(OK)
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, reason=abi.NOT_HTTP, source=OPENSSL))
    assert c.records() == [] and c.counters()["connections"] == 0


def test_a_connection_that_gives_way_is_recorded_and_what_was_complete_is_not_marked_as_evicted() -> None:
    pipe = pipeline(max_connections=1)
    c = tls_object(pipe).request(GET).response(OK).request(GET)
    Conversation(pipe, conn=ident(7, 7))
    done, cut = take(pipe)
    assert done["mark"] == ["peer_unknown"]
    assert cut["words"] == {"peer_unknown", "no_response", "end_unseen", "evicted"}
    c.response(OK).request(GET).response(OK)  # it goes on, and its socket may be found out yet
    assert [r["ip"] for r in take(bind(c, 100).pipe)] == ["10.0.0.2:40000"]


def test_what_waits_is_bounded_and_counted() -> None:
    c = tls_object(connection_bytes=1 << 30)
    post = b"POST /p HTTP/1.1\r\nContent-Length: 10000\r\n\r\n" + b"q" * 10000
    while not (records := c.records()):
        c.request(post).response(OK)
        assert c.counters()["buffer_bytes"] < (1 << 18) + 40_000
    assert len(records) > 10 and all(r["mark"] == ["peer_unknown"] for r in records)
    c.request(GET).response(OK)
    rest = c.wait(0.2).records()
    assert rest and all(r["mark"] == ["peer_unknown"] for r in rest)
    small = tls_object(connection_bytes=30_000)
    for _ in range(5):
        small.request(post).response(OK)
    assert [r["mark"] for r in small.wait(0.2).records()] == [["peer_unknown"]] * 5
    assert small.counters()["evicted_connection_bytes"] == 0


def test_many_that_wait_stay_within_the_budget() -> None:
    pipe = pipeline(buffer_bytes=300_000)
    for number in range(500):
        tls_object(pipe, number=number).request(GET).response(OK)
        assert pipe.statistics()["buffer_bytes"] <= 300_000
    records = take(pipe)
    assert 100 < len(records) == pipe.statistics()["evicted_budget"] < 500
    assert all(r["mark"] == ["peer_unknown"] for r in records)
    pipe.finish_timers()
    assert len(take(pipe)) == 500 - len(records) and pipe.statistics()["records"] == 500


def test_a_silence_that_is_given_up_earlier_than_a_second() -> None:
    c = tls_object(unanswered_seconds=0.4)
    c.request(GET).response(OK).request(GET)
    done, cut = c.wait(0.7).records()
    assert done["mark"] == ["peer_unknown"] and cut["words"] == {"peer_unknown", "no_response"}
    counters = c.counters()
    assert (counters["timed_out"], counters["unanswered"], counters["unconfirmed_exchanges"]) == (0, 1, 0)


@pytest.mark.parametrize("start", [abi.SEEN, abi.MID, abi.REJOIN])
@pytest.mark.parametrize("known", ["fd", "ends"])
def test_one_whose_socket_is_known_does_not_wait(start: int, known: str) -> None:
    conn = (5 << 20, 100, 3 if known == "fd" else -1)
    ends = (("", 0), ("", 0)) if known == "fd" else (LOCAL, REMOTE)
    c = Conversation(conn=conn, start=start, source=OPENSSL, local=ends[0], remote=ends[1])
    (r,) = c.request(GET).response(OK).records()  # a Unix socket has a descriptor and no ends
    assert ("peer_unknown" in r["words"]) == (known == "fd") and c.counters()["peer_unknown_records"] == 0


@pytest.mark.parametrize("opened", [True, False])
def test_one_that_is_joined_waits_as_well(opened: bool) -> None:
    c = tls_object(opened=False)
    if opened:
        c.feed(abi.pack_open(c.conn, ts_ns=c.now, start=abi.MID, source=OPENSSL))
    assert c.request(GET).response(OK).records() == []
    assert bind(c).records()[0]["ip"] == "10.0.0.2:40000"


def test_addresses_that_come_by_another_event() -> None:
    c = tls_object().request(GET).response(OK)
    c.feed(abi.pack_open(c.conn, ts_ns=c.now, type=abi.ADDRESS, local=LOCAL, remote=REMOTE, source=OPENSSL))
    assert c.records()[0]["ip"] == "10.0.0.2:40000"


def test_filters_that_look_at_ports_wait_too() -> None:
    """What --port chooses is not known before the socket is; nor what TRAFFIC_IGNORE_DEFAULT_PORTS leaves out."""
    chosen = tls_object(only_ports=(443,)).request(GET).response(OK)
    assert chosen.records() == [] and [r["mark"] for r in bind(chosen, 100).records()] == [[]]
    other = tls_object(only_ports=(80,)).request(GET).response(OK)
    assert bind(other, 100).records() == [] and other.request(GET).response(OK).close().records() == []
    never = tls_object(only_ports=(443,)).request(GET).response(OK)
    assert never.wait(1.2).records() == []
    assert bind(never).request(GET).response(OK).records()[-1]["words"] >= {"joined_mid_stream"}
    ends = tls_object(only_ports=(443,)).request(GET).response(OK).request(GET).close()
    assert ends.records() == [] and ends.counters()["peer_unknown_records"] == 0
    silent = tls_object(only_ports=(443,)).request(GET).wait(70)
    assert silent.records() == []
    left_out = bind(tls_object(ignore_ports=(6379,)).request(GET).response(OK), local=("10.0.0.1", 6379))
    assert left_out.records() == [] and left_out.counters()["filtered_port"] == 1


def test_claims_of_a_client_are_judged_by_the_socket_that_became_known() -> None:
    get = GET[:-2] + b"X-Real-IP: 192.0.2.7\r\n\r\n"
    trusting: dict[str, Any] = {"real_ip_header": "X-Real-IP", "trusted_networks": "10.0.0.2/32"}
    c = tls_object(**trusting).request(get).response(OK)
    (r,) = bind(c).records()
    assert (r["clientIp"], r["clientSource"]) == ("192.0.2.7:0", "x-real-ip")
    d = tls_object(**{**trusting, "trusted_networks": "10.0.0.3/32"}).request(get).response(OK)
    assert "clientIp" not in bind(d).records()[0]
    assert "clientIp" not in tls_object(**trusting).request(get).response(OK).close().records()[0]


@pytest.mark.parametrize(
    ("preamble", "source"), [(b"PROXY TCP4 192.0.2.10 10.0.0.1 51000 443\r\n", "proxy_v1"), (b"PROXY TCP4  a b\r\n", None)]
)
def test_a_preamble_in_front_of_the_ciphertext_goes_before_a_header(preamble: bytes, source: str | None) -> None:
    pipe = pipeline(real_ip_header="X-Real-IP", trusted_networks="10.0.0.0/8")
    c = tls_object(pipe)
    Conversation(pipe, conn=(SOCKET[0] + (c.conn[0] << 1), 100, 9), local=LOCAL, remote=REMOTE).request(preamble)
    c.request(GET[:-2] + b"X-Real-IP: 192.0.2.7\r\n\r\n").response(OK)
    (r,) = bind(c).records()
    assert r["clientSource"] == (source or "x-real-ip") and r["words"] == (set() if source else {"proxy_invalid"})


def test_pipelined_requests_and_answers_that_come_while_it_waits() -> None:
    c = tls_object().request(GET * 3).response(OK)
    assert bind(c.response(OK), 10).records()[1]["mark"] == []
    assert [r["mark"] for r in c.response(OK).records()] == [[]]


def test_a_late_answer_to_what_was_recorded_without_one() -> None:
    c = tls_object().request(GET).wait(70)
    assert c.records()[0]["words"] == {"no_response", "peer_unknown"}
    c.response(OK).request(GET).response(OK)
    assert [r["ip"] for r in bind(c).records()] == ["10.0.0.2:40000"]


CUTS = st.lists(st.integers(1, 12), max_size=12)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["exchange", "request", "bind", "tls", "close"]), st.integers(1, 1500)), max_size=12
    ),
    cuts=CUTS,
    ticks=st.booleans(),
)
def test_the_same_records_in_any_spans(steps: list[tuple[str, int]], cuts: list[int], ticks: bool) -> None:
    """How the events are cut into spans, and when timers are looked at, does not matter to what has waited long enough."""
    events: list[tuple[int, bytes]] = []
    conn = (77 << 12, 100, -1)
    now, at = SECOND, [0, 0]
    events.append((now, abi.pack_open(conn, ts_ns=now, source=OPENSSL)))
    for what, wait in steps:
        now += wait * MS
        if what in ("exchange", "request"):
            events.append((now, abi.pack_data(conn, abi.IN, at[0], GET, ts_ns=now, source=OPENSSL)))
            at[0] += len(GET)
        if what == "exchange":
            events.append((now, abi.pack_data(conn, abi.OUT, at[1], OK, ts_ns=now, source=OPENSSL)))
            at[1] += len(OK)
        if what == "tls":
            events.append((now, abi.pack_tls(conn, ts_ns=now, version=0x0300 + wait % 5)))
        if what == "bind":
            events.append((now, abi.pack_bind(conn, SOCKET[0], ts_ns=now, role=abi.SERVER, local=LOCAL, remote=REMOTE)))
        if what == "close":
            events.append((now, abi.pack_close(conn, ts_ns=now, final_in=at[0], final_out=at[1], source=OPENSSL)))
            at = [0, 0]

    def play(lengths: list[int]) -> list[tuple[Any, ...]]:
        pipe, rest = pipeline(), list(events)
        while rest:
            n = lengths.pop() if lengths else len(rest)
            pipe.feed(b"".join(event for _ts, event in rest[:n]), 0)
            if ticks and lengths:
                pipe.tick(rest[min(n, len(rest)) - 1][0])
            del rest[:n]
        pipe.finish_timers()
        pipe.close_all()
        out = [(r["ip"], r["marks"], r.get("tlsVersion")) for r in take(pipe)]
        assert pipe.statistics()["connections"] == pipe.statistics()["queued_exchanges"] == 0
        return out

    assert play(list(cuts)) == play([])
