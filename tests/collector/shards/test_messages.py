"""HTTP/1.x on one connection: framing, pairing, holes, ends, timers."""

from __future__ import annotations

import array
import json

import pytest

from collector import abi
from tests.events import GET, OK, Conversation, ident, pipeline, take


def one(c: Conversation) -> dict:
    records = c.records()
    assert len(records) == 1, records
    return records[0]


def test_exchange_is_recorded_as_soon_as_it_is_complete() -> None:
    r = one(Conversation().request(GET).response(OK))
    assert (r["method"], r["path"], r["type"], r["status"], r["statusCode"]) == ("GET", "/x", "HTTP/1.1", "200 OK", "200")
    assert r["request"] == {"host": "a.example"}
    assert r["response"] == {"Content-Length": "2"}
    assert (r["responsePayload"], r["responseSize"], r["requestSize"]) == ("hi", "2", "0")
    assert r["mark"] == []
    assert (r["ip"], r["destIp"], r["direction"]) == ("10.0.0.2:40000", "10.0.0.1:80", "1")
    assert (r["process_id"], r["socket_id"], r["process_name"]) == ("100", "5", "server")


def test_client_side_is_direction_2_with_ends_swapped() -> None:
    c = Conversation(role=abi.CLIENT, local=("10.0.0.9", 50000), remote=("fd00::7", 8080))
    r = one(c.request(GET).response(OK))
    assert (r["ip"], r["destIp"], r["direction"]) == ("10.0.0.9:50000", "[fd00::7]:8080", "2")


def test_times_are_those_of_the_bytes() -> None:
    c = Conversation()
    c.request(GET[:10], step_ms=0).request(GET[10:], step_ms=5)
    c.response(OK[:5], step_ms=20).response(OK[5:], step_ms=7)
    r = one(c)
    assert (r["firstByteMs"], r["durationMs"]) == ("25.000", "32.000")
    assert r["startTimeMs"] == str((1_795_000_000 + 1) * 1000)
    assert r["time"] == str(1_795_000_000 + 1)


def test_keep_alive_and_pipelining_pair_in_order() -> None:
    c = Conversation()
    c.request(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n")
    for n in (b"1", b"2", b"3"):
        c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + n)
    assert [(r["path"], r["responsePayload"], r["mark"]) for r in c.records()] == [
        ("/1", "1", []),
        ("/2", "2", []),
        ("/3", "3", []),
    ]


def test_record_ids_are_unique() -> None:
    c = Conversation()
    for _ in range(3):
        c.request(GET).response(OK)
    assert len({r["recordId"] for r in c.records()}) == 3


def test_chunked_both_ways_with_extensions_and_trailers() -> None:
    c = Conversation()
    c.request(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;name=value\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"
    )
    c.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    c.response(b"A\r\n0123456789\r").response(b"\n5\r\nhel").response(b"lo\r\n0\r").response(b"\n\r").response(b"\n")
    r = one(c)
    assert (r["requestPayload"], r["responsePayload"], r["responseSize"]) == ("abc", "0123456789hello", "15")
    assert r["mark"] == []


def test_head_204_304_have_no_body() -> None:
    c = Conversation()
    c.request(b"HEAD /h HTTP/1.1\r\n\r\n").response(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    c.request(b"GET /n HTTP/1.1\r\n\r\n").response(b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n")
    c.request(b"GET /m HTTP/1.1\r\n\r\n").response(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")
    c.request(GET).response(OK)
    assert [r["statusCode"] for r in c.records()] == ["200", "204", "304", "200"]


def test_interim_responses_are_not_the_answer() -> None:
    c = Conversation()
    c.request(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    c.response(b"HTTP/1.1 100 Continue\r\n\r\n").response(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
    c.request(b"body").response(OK)
    r = one(c)
    assert (r["statusCode"], r["requestPayload"]) == ("200", "body")
    assert c.counters()["interim_responses"] == 2


def test_refused_expectation_then_next_request_instead_of_the_body() -> None:
    c = Conversation()
    c.request(b"POST /big HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n")
    c.response(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").request(GET).response(OK)
    first, second = c.records()
    assert first["statusCode"] == "417" and first["words"] == {"request_incomplete"}
    # what followed may have been the body after all
    assert (second["path"], second["responsePayload"]) == ("/x", "hi")
    assert second["mark"] == ["pairing_uncertain", "request_framing_uncertain"]


@pytest.mark.parametrize("step", [1, 2, 7])
def test_a_refused_expectation_is_in_doubt_however_the_next_head_is_cut(step: int) -> None:
    c = Conversation()
    c.request(b"POST /big HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n")
    c.response(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
    for at in range(0, len(GET), step):
        c.request(GET[at : at + step])
    first, second = c.response(OK).records()
    assert (first["path"], first["requestPayload"], first["words"]) == ("/big", "", {"request_incomplete"})
    assert (second["path"], second["words"]) == ("/x", {"pairing_uncertain", "request_framing_uncertain"})


def test_early_response_before_the_request_body_ends() -> None:
    c = Conversation()
    c.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n1234").response(OK)
    assert c.records() == []
    r = one(c.request(b"5678"))
    assert (r["requestPayload"], r["statusCode"], r["mark"]) == ("12345678", "200", [])


def test_body_until_close() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.0 200 OK\r\n\r\nall of").response(b" it")
    assert c.records() == []
    r = one(c.close())
    assert (r["responsePayload"], r["mark"]) == ("all of it", [])


def test_body_until_end_of_stream_at_the_client() -> None:
    c = Conversation(role=abi.CLIENT).request(GET).response(b"HTTP/1.0 200 OK\r\n\r\nall")
    r = one(c.eof(abi.IN))
    assert (r["responsePayload"], r["mark"]) == ("all", [])


def test_101_and_connect_make_the_rest_opaque() -> None:
    c = Conversation()
    c.request(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    c.response(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello").request(GET)
    assert one(c)["statusCode"] == "101"
    d = Conversation()
    d.request(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n").response(b"HTTP/1.1 200 OK\r\n\r\n").request(b"\x16\x03\x01")
    r = one(d)
    assert (r["method"], r["path"], r["mark"]) == ("CONNECT", "example.com:443", [])


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "X", "get", "REPORT", "VERSION-CONTROL"])
def test_any_method_token(method: str) -> None:
    r = one(Conversation().request(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode()).response(OK))
    assert r["method"] == method


def test_byte_by_byte() -> None:
    c = Conversation()
    for b in b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc":
        c.request(bytes([b]))
    for b in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n":
        c.response(bytes([b]))
    r = one(c)
    assert (r["path"], r["requestPayload"], r["responsePayload"], r["mark"]) == ("/slow", "abc", "xyz", [])


def test_request_without_answer() -> None:
    r = one(Conversation().request(GET).close())
    assert (r["statusCode"], r["status"], r["responseHeaders"], r["firstByteMs"]) == ("0", "", "{}", "")
    assert r["words"] == {"no_response"}


def test_unanswered_after_its_limit_and_the_late_answer_is_not_the_next_ones() -> None:
    c = Conversation().request(b"GET /late HTTP/1.1\r\n\r\n").wait(59)
    assert c.records() == []
    assert one(c.wait(4))["words"] == {"no_response"}
    c.request(GET).response(OK.replace(b"hi", b"no")).response(OK)
    r = one(c)
    assert (r["path"], r["responsePayload"]) == ("/x", "hi")


def test_silence_inside_a_message_costs_nothing_until_nobody_would_wait_any_more() -> None:
    c = Conversation().request(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").wait(50).request(b"cd").wait(50)
    c.response(b"HTTP/1.1 100 Continue\r\n\r\n").wait(50).response(OK[:-1]).wait(50).response(OK[-1:])
    r = one(c)
    assert (r["requestPayload"], r["responsePayload"], r["mark"]) == ("abcd", "hi", [])


def test_a_head_that_stops_is_recorded_as_it_stands() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.1 200 OK\r\nX: y\r\nHalf").wait(59)
    assert c.records() == []
    r = one(c.wait(5))
    assert (r["statusCode"], r["response"], r["words"]) == ("200", {"X": "y"}, {"headers_cut", "response_incomplete"})
    assert one(Conversation().request(GET[:-2]).wait(59).wait(5))["words"] == {
        "headers_cut",
        "request_incomplete",
        "no_response",
    }


def test_long_silence_inside_a_message_is_recorded_and_the_connection_goes_on() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").wait(59)
    assert c.records() == []
    r = one(c.wait(5))
    assert r["responsePayload"] == "half" and r["words"] == {"response_incomplete"}
    c.response(b"-rest-").request(GET).response(OK)
    r = one(c)
    assert (r["responsePayload"], r["mark"]) == ("hi", [])


def test_a_pause_between_messages_costs_nothing() -> None:
    c = Conversation().request(GET).response(OK).wait(3600).request(GET).response(OK)
    assert [r["mark"] for r in c.records()] == [[], []]


def test_answer_without_request_is_counted_not_recorded() -> None:
    c = Conversation(start=abi.MID).response(OK)
    assert c.records() == []
    assert c.counters()["orphan_responses"] == 1


FRAMING = {"request_framing_uncertain", "response_framing_uncertain"}
DOUBT = {"pairing_uncertain"} | FRAMING


def test_joined_mid_stream_is_in_doubt_until_the_connection_was_quiet() -> None:
    c = Conversation(start=abi.MID)
    c.response(b"garbage of an older answer").request(GET).response(OK).request(GET).response(OK).wait(60)
    c.request(GET).response(OK)
    first, second, third = c.records()
    assert first["words"] == {"joined_mid_stream"} | DOUBT and second["words"] == DOUBT and third["mark"] == []


@pytest.mark.parametrize("role", [abi.SERVER, abi.CLIENT])
@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_a_steady_pipeline_joined_in_the_middle_never_looks_quiet(depth: int, role: int) -> None:
    """After each answer one request: as if nothing were outstanding. The answers are those of `depth` requests before."""
    c = Conversation(start=abi.MID, role=role)
    for n in range(200):
        c.request(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n).response(OK.replace(b"hi", b"%02d" % ((n - depth) % 100)))
    records = c.records()
    assert len(records) == 200 and all("pairing_uncertain" in r["words"] for r in records)


@pytest.mark.parametrize("lost", ["request", "response"])
@pytest.mark.parametrize("depth", [2, 3])
def test_a_steady_pipeline_with_a_lost_message_stays_in_doubt(lost: str, depth: int) -> None:
    c = Conversation(role=abi.CLIENT)
    for n in range(depth - 1):
        c.request(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n)
    for n in range(100):
        c.request(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % (n + depth - 1), lose=lost == "request" and n == 20)
        c.response(OK.replace(b"hi", b"%02d" % n), lose=lost == "response" and n == 20)
    for r in c.records():
        right = r["path"][1:] == r["responsePayload"].lstrip("0") or r["path"] == "/0"
        assert right or "pairing_uncertain" in r["words"] or "no_response" in r["words"]
        assert r["mark"] == [] or int(r["path"][1:]) >= 20


def test_what_was_complete_before_a_hole_is_not_in_doubt() -> None:
    c = Conversation()
    c.request(b"GET /1 HTTP/1.1\r\n\r\n").request(b"GET /2 HTTP/1.1\r\n\r\n")
    c.request(b"GET /3 HTTP/1.1\r\n\r\n", lose=True).request(b"GET /4 HTTP/1.1\r\n\r\n")
    c.response(OK).response(OK).response(OK).response(OK)
    assert [(r["path"], r["words"]) for r in c.records()] == [
        ("/1", set()),
        ("/2", set()),
        ("/4", {"pairing_uncertain", "request_framing_uncertain"}),
    ]


def test_pauses_much_longer_than_any_answer_end_the_doubt_of_a_busy_connection() -> None:
    c = Conversation(start=abi.MID)
    for _ in range(40):
        c.request(GET, step_ms=20).response(OK, step_ms=2)
    marks = [bool(r["mark"]) for r in c.records()]
    assert marks == [True] * 16 + [False] * 24
    d = Conversation(start=abi.MID)
    for _ in range(40):
        d.request(GET, step_ms=20).response(OK, step_ms=5)
    assert all(r["mark"] for r in d.records())


def test_an_answer_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    for role in (abi.CLIENT, abi.SERVER):
        c = Conversation(role=role).request(GET).response(OK).response(OK.replace(b"hi", b"??"))
        c.request(b"GET /2 HTTP/1.1\r\n\r\n").response(OK)
        first, second = c.records()
        assert first["mark"] == [] and (second["responsePayload"], second["words"]) == ("hi", {"pairing_uncertain"})


def test_an_answer_to_an_unseen_head_does_not_swallow_the_next_one() -> None:
    c = Conversation(start=abi.MID, role=abi.CLIENT).request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")  # of a HEAD that nobody saw
    c.request(b"GET /2 HTTP/1.1\r\n\r\n").response(OK).request(b"GET /3 HTTP/1.1\r\n\r\n").response(OK)
    records = c.records()
    assert [(r["path"], r["responsePayload"]) for r in records] == [("/x", ""), ("/2", "hi"), ("/3", "hi")]
    assert all(r["words"] >= DOUBT for r in records)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_body_in_doubt_may_begin_like_an_answer(step: int) -> None:
    for body in (b"HTTP", b"Hello", b"HTTP/2.0", b"H" * 9):
        c = Conversation(start=abi.MID, role=abi.CLIENT).request(GET).response(OK).request(GET)
        c.records()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        for at in range(0, len(answer), step):
            c.response(answer[at : at + step])
        if len(body) == 4:
            c.close()
        assert one(c)["responsePayload"] == body.decode()


def test_a_forged_request_in_a_joined_body_swallows_nothing() -> None:
    c = Conversation(start=abi.MID).request(b"POST /forged HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc")
    for n in range(40):
        c.request(b"GET /%d HTTP/1.1\r\nAuthorization: secret\r\n\r\n" % n).response(OK)
    records = c.records()
    assert "secret" not in records[0]["requestPayload"]
    assert {r["path"] for r in records} >= {f"/{n}" for n in range(1, 40)}
    assert all("request_framing_uncertain" in r["words"] for r in records)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def test_an_upload_that_pauses_ends_no_doubt() -> None:
    c = Conversation(start=abi.MID).request(get("/forged1")).response(answer(b"early", b"404 Not Found")).wait(10)
    c.request(get("/forged2")).request(b"0\r\n\r\n").request(get("/real")).response(answer(b"real"))
    assert all("request_framing_uncertain" in r["words"] for r in c.records())


def test_a_smuggled_request_that_is_slow_to_be_answered() -> None:
    smuggled = get("/slow")
    c = Conversation().request(
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    )
    c.response(answer(b"fast")).wait(5).request(get("/victim")).response(answer(b"answer to /slow"))
    assert "pairing_uncertain" in c.records()[-1]["words"]


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found", b"417 No"])
@pytest.mark.parametrize("length", [b"Content-Length: 500", b"Transfer-Encoding: chunked"])
def test_any_final_answer_may_be_a_refusal_of_the_body(status: bytes, length: bytes) -> None:
    c = Conversation().request(b"POST /up HTTP/1.1\r\nHost: h\r\n%s\r\nExpect: 100-continue\r\n\r\n" % length)
    c.response(answer(b"", status)).request(get("/next")).response(answer(b"next"))
    first, second = c.records()
    assert (first["path"], first["requestPayload"], first["words"]) == ("/up", "", {"request_incomplete"})
    assert (second["path"], second["responsePayload"]) == ("/next", "next")
    assert second["words"] == {"pairing_uncertain", "request_framing_uncertain"}


def test_what_begins_at_its_beginning_was_not_joined() -> None:
    """The OPEN was lost, and no byte."""
    c = Conversation(opened=False).request(GET).response(OK)
    assert one(c)["words"] == {"peer_unknown"}
    d = Conversation(opened=False).request(GET).response(OK, lose=True).request(get("/2")).response(OK)
    assert all("pairing_uncertain" in r["words"] for r in d.records())


def test_bytes_on_their_way_excuse_one_answer_only() -> None:
    c = Conversation(role=abi.CLIENT)
    c.request(b"POST /up HTTP/1.1\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n")
    c.ahead().response(b"HTTP/1.1 100 Continue\r\n\r\n").request(b"abcdef").response(OK)
    c.response(answer(b"nobody asked", b"408 Request Timeout")).request(get("/next")).response(answer(b"next"))
    first, second = c.records()
    assert first["mark"] == [] and (second["responsePayload"], second["words"]) == ("next", {"pairing_uncertain"})


@pytest.mark.parametrize("asking", [True, False])
def test_bytes_after_an_end_inside_a_message_are_in_doubt(asking: bool) -> None:
    c = Conversation()
    if asking:
        c.request(b"POST / HTTP/1.1\r\nContent-Length: 200\r\n\r\nabc").response(OK).eof(abi.IN)
        c.request(get("/forged")).response(answer(b"second"))
    else:
        c.request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\nabc").eof(abi.OUT)
        c.request(get("/next")).response(answer(b"forged"))
    last = c.records()[-1]
    assert ("request" if asking else "response") + "_framing_uncertain" in last["words"]


def test_a_connect_has_no_content() -> None:
    c = Conversation().request(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 12\r\n\r\ntunnel bytes")
    r = c.response(b"HTTP/1.1 200 OK\r\n\r\n").close().records()[0]
    assert "ambiguous_framing:body_not_allowed" in r["mark"] and "pairing_uncertain" in r["words"]


def test_fields_beyond_those_listed_are_obeyed() -> None:
    many = b"".join(b"X-%d: y\r\n" % n for n in range(600))
    c = Conversation().request(
        b"POST /up HTTP/1.1\r\n" + many + b"Host: late.example\r\nContent-Length: 400\r\nExpect: 100-continue\r\n\r\n"
    )
    c.response(answer(b"", b"417 No")).request(GET).response(OK)
    first, second = c.records()
    assert first["request"]["host"] == "late.example" and first["requestPayload"] == ""
    assert second["path"] == "/x" and "pairing_uncertain" in second["words"]
    named = Conversation(ignore_ip_hosts=True).request(b"GET / HTTP/1.1\r\n" + many + b"Host: late.example\r\n\r\n")
    assert len(named.response(OK).records()) == 1
    address = Conversation(ignore_ip_hosts=True).request(b"GET / HTTP/1.1\r\n" + many + b"Host: 10.0.0.1\r\n\r\n")
    assert address.response(OK).records() == []


def test_an_answer_until_close_that_was_reset() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.1 200 OK\r\n\r\npartial")
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, final_in=c.positions[0], final_out=c.positions[1], reason=abi.RESET))
    assert one(c)["words"] == {"end_unseen"}


def test_nothing_is_unwanted_in_doubt() -> None:
    """A forged length would have the kernel leave out what follows it."""
    words = array.array("Q", [0] * 64)
    c = Conversation()
    c.pipe.use_unwanted(memoryview(words))
    c.request(b"POST / HTTP/1.1\r\nX: a\r\n b\r\nContent-Length: 100000\r\n\r\n")
    c.request(b"POST /forged HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 90_000)
    assert not any(words)


def test_a_direction_that_was_guessed_wrong_is_mended() -> None:
    c = Conversation(opened=False)
    c.positions = [100, 100]
    c.response(get("/forged"))  # of an answer's body
    for n in range(5):
        c.request(get(f"/{n}")).response(answer(b"%d" % n))
    seen = {r["path"]: r for r in c.records()}
    assert all(seen[f"/{n}"]["responsePayload"] == str(n) and seen[f"/{n}"]["direction"] == "1" for n in range(1, 5))


@pytest.mark.parametrize("cut", [1, 7, 4000])
def test_a_request_line_beyond_the_limit_is_recorded_cut(cut: int) -> None:
    line = b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: h\r\n\r\n"
    for limit in (1024, len(line) - 24, len(line) - 22, len(line) - 20, len(line) - 18, len(line) - 16):
        c = Conversation(header_bytes=limit)
        for at in range(0, len(line), cut):
            c.request(line[at : at + cut])
        r = one(c.response(OK))
        assert r["words"] == {"headers_cut", "request_incomplete"} and r["statusCode"] == "200"
        assert set(r["path"]) == {"/", "a"} and r["path"] in line.decode() and r["type"] in ("", "HTTP/1.1")


@pytest.mark.parametrize(
    "first", [b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"]
)
def test_an_upgrade_whose_answers_head_is_cut_is_marked(first: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: " if first[:1] == b"C" else b"HTTP/1.1 101 Switching Protocols\r\nX: "
    c = Conversation(header_bytes=1024).request(first).response(head + b"y" * 2000 + b"\r\n\r\n")
    assert one(c)["words"] == {"headers_cut"}


def test_a_switch_nobody_asked_for_is_in_doubt() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").request(GET).response(OK)
    first, second = c.records()
    assert first["words"] == {"pairing_uncertain", "response_framing_uncertain"} and second["words"] == DOUBT


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", "body_not_allowed"),
        (b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", "body_not_allowed"),
        (b"HTTP/1.1 103 Early\nLink: a\r\n\r\n", "bare_lf"),
        (b"HTTP/1.1 103 Early\r\nLink: a\rb\r\n\r\n", "bare_cr"),
        (b"HTTP/1.1 103 Early\r\nLink: a\0b\r\n\r\n", "nul"),
        (b"HTTP/1.7 103 Early\r\n\r\n", "start_line"),
    ],
)
def test_the_oddities_of_an_interim_head_mark_the_exchange(head: bytes, reason: str) -> None:
    r = one(Conversation().request(GET).response(head).response(OK))
    assert f"ambiguous_framing:{reason}" in r["mark"]
    assert ("pairing_uncertain" in r["words"]) is (reason != "start_line")


@pytest.mark.parametrize("status", [b"0199 x", b"0200 OK", b"19 x", b"2000 OK", b"200x OK", b"099 x"])
def test_a_status_code_is_three_digits(status: bytes) -> None:
    r = one(Conversation().request(GET).response(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"))
    assert {"ambiguous_framing:start_line", "pairing_uncertain"} <= set(r["mark"])


def test_unknown_role_is_taken_from_the_first_data() -> None:
    c = Conversation(opened=False, role=abi.SERVER)
    c.positions = [100, 100]
    r = one(c.request(GET).response(OK))
    assert r["direction"] == "1"
    assert r["words"] == {"joined_mid_stream", "peer_unknown"} | DOUBT and r["ip"] == "0.0.0.0:0"
    d = Conversation(opened=False, role=abi.CLIENT)
    assert one(d.request(GET).response(OK))["direction"] == "2"


def test_answer_seen_before_the_clients_send_returned() -> None:
    c = Conversation(role=abi.CLIENT).ahead().response(OK)
    assert c.records() == []
    r = one(c.request(GET))
    assert (r["responsePayload"], r["mark"]) == ("hi", [])


def test_what_waits_for_its_request_is_not_the_answer_to_a_later_one() -> None:
    c = Conversation(role=abi.CLIENT).ahead().response(OK).request(GET, lose=True)
    r = one(c.request(b"GET /2 HTTP/1.1\r\n\r\n").response(OK.replace(b"hi", b"2!")))
    assert (r["path"], r["responsePayload"]) == ("/2", "2!") and "pairing_uncertain" in r["words"]


def test_reused_descriptor_never_merges_two_connections() -> None:
    pipe = pipeline()
    first = Conversation(pipe, conn=ident(1, 2, 10)).request(GET)
    second = Conversation(pipe, conn=ident(1, 2, 11)).request(b"GET /new HTTP/1.1\r\n\r\n")
    first.feed(abi.pack_close(first.conn, ts_ns=first.now, final_in=len(GET), reason=abi.REPLACED))
    second.response(OK)
    records = take(pipe)
    assert [(r["path"], r["words"]) for r in records] == [("/x", {"no_response", "end_unseen"}), ("/new", set())]
    assert first.conn != second.conn


def test_exit_closes_everything_of_the_process() -> None:
    pipe = pipeline()
    Conversation(pipe, conn=ident(7, 1, 1)).request(GET)
    Conversation(pipe, conn=ident(7, 2, 2)).request(GET)
    other = Conversation(pipe, conn=ident(8, 1, 3)).request(GET)
    pipe.feed(abi.pack_exit(7, ts_ns=other.now), 0)
    assert [r["process_id"] for r in take(pipe)] == ["7", "7"]
    assert pipe.statistics()["connections"] == 1


# ---- holes ----


def test_hole_inside_a_body_of_known_length_is_exact() -> None:
    c = Conversation().request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcd").response(b"efgh", lose=True).response(b"ijkl")
    c.request(GET).response(OK)
    first, second = c.records()
    assert first["responsePayload"] == "abcd" and first["mark"] == ["response_bytes_lost:4"]
    assert first["responseSize"] == "12"
    assert second["mark"] == []


def test_hole_to_the_end_of_a_body_shows_at_the_next_event() -> None:
    c = Conversation().request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcd").response(b"efgh", lose=True)
    assert c.records() == []
    c.request(GET).response(OK)
    first, second = c.records()
    assert first["mark"] == ["response_bytes_lost:4"] and second["responsePayload"] == "hi"


def test_lost_last_event_is_seen_at_close() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.0 200 OK\r\n\r\nabcd").response(b"efgh", lose=True).close()
    assert one(c)["mark"] == ["response_bytes_lost:4"]


def test_hole_of_unknown_framing_loses_no_later_exchange_and_marks_them() -> None:
    c = Conversation()
    c.request(GET).response(OK, lose=True)
    c.request(b"GET /2 HTTP/1.1\r\n\r\n").response(OK)
    first, second = c.records()
    assert first["path"] == "/x" and {"no_response", "response_bytes_lost"} <= first["words"]
    assert second["path"] == "/2" and second["responsePayload"] == "hi" and "pairing_uncertain" in second["words"]


def test_lost_request_does_not_shift_answers_unmarked() -> None:
    c = Conversation()
    c.request(b"GET /1 HTTP/1.1\r\n\r\n", lose=True).request(b"GET /2 HTTP/1.1\r\n\r\n")
    c.response(OK.replace(b"hi", b"1!")).response(OK.replace(b"hi", b"2!"))
    for r in c.records():
        assert "pairing_uncertain" in r["words"]


def test_certainty_returns_after_a_silence_with_nothing_outstanding() -> None:
    c = Conversation().request(GET).response(OK, lose=True).wait(65)
    for _ in range(20):
        c.request(GET).response(OK)
    c.wait(60).request(GET).response(OK)
    assert [bool(r["mark"]) for r in c.records()] == [True] * 21 + [False]


def test_forged_start_inside_a_lost_body_is_only_believed_at_an_event_start() -> None:
    c = Conversation()
    c.request(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").request(b"40\r\n", lose=True)
    c.request(b"xxxx GET /forged HTTP/1.1\r\nHost: h\r\n\r\n").response(OK)
    assert [r["path"] for r in c.records()] == ["/"]


def test_size_only_bytes_are_cut_not_lost() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    c.response(b"", true_length=5000, flags=abi.F_SIZE_ONLY)
    r = one(c)
    assert (r["responseSize"], r["mark"]) == ("5000", ["response_body_cut:5000"])


def test_overlapping_event_is_damage_not_data() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcd")
    c.positions[1] -= 2
    c.response(b"cdefgh")
    r = one(c)
    assert r["responsePayload"] == "abcd" and "response_bytes_lost" in r["words"]
    assert c.counters()["overlaps"] == 1


# ---- limits ----


def test_bodies_are_capped_and_their_true_size_is_told() -> None:
    c = Conversation(body_bytes=100).request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)
    r = one(c)
    assert (len(r["responsePayload"]), r["responseSize"], r["mark"]) == (100, "5000", ["response_body_cut:4900"])


def test_response_bodies_can_be_switched_off() -> None:
    r = one(Conversation(response_bodies=False).request(GET).response(OK))
    assert (r["responsePayload"], r["responseSize"]) == ("", "2")


def test_cut_json_request_stays_acceptable() -> None:
    body = json.dumps({"a": ["x" * 50, {"b": "y" * 500}], "c": 1}).encode()
    c = Conversation(body_bytes=200)
    c.request(
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    r = one(c.response(OK))
    assert json.loads(r["requestPayload"])["a"][0] == "x" * 50
    assert r["words"] == {"request_body_cut"}


def test_endless_head_is_bounded() -> None:
    c = Conversation(header_bytes=1024).request(b"GET / HTTP/1.1\r\nHost: h\r\n")
    for i in range(3000):
        c.request(b"X-%d: %s\r\n" % (i, b"y" * 100))
    assert c.counters()["buffer_bytes"] < 20_000
    r = one(c.request(b"\r\n").close())
    assert {"headers_cut", "no_response"} <= r["words"] and r["request"]["host"] == "h"


def test_endless_chunk_line_is_bounded() -> None:
    c = Conversation().request(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):
        c.request(b"0" * 1000)
    assert c.counters()["buffer_bytes"] < 20_000
    r = one(c.close())
    assert "ambiguous_framing:bad_chunk" in r["mark"]


def test_most_connections_evict_the_least_recently_active() -> None:
    pipe = pipeline(max_connections=3)
    cs = [Conversation(pipe, conn=ident(1, fd, fd)).request(f"GET /{fd} HTTP/1.1\r\n\r\n".encode()) for fd in range(5)]
    assert [(r["path"], r["words"]) for r in take(pipe)] == [
        ("/0", {"evicted", "end_unseen", "no_response"}),
        ("/1", {"evicted", "end_unseen", "no_response"}),
    ]
    cs[4].response(OK)
    assert [r["path"] for r in take(pipe)] == ["/4"]
    assert pipe.statistics()["evicted_connections"] == 2


def test_byte_budget_is_never_passed_by_more_than_one_message() -> None:
    budget = 300_000
    pipe = pipeline(buffer_bytes=budget)
    for fd in range(50):
        c = Conversation(pipe, conn=ident(1, fd, fd))
        c.request(b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"z" * 20_000)
        assert pipe.statistics()["buffer_bytes"] < budget + 150_000
    assert pipe.statistics()["evicted_budget"] > 30
    assert len(take(pipe)) == pipe.statistics()["evicted_budget"]


def test_all_memory_is_given_back() -> None:
    pipe = pipeline()
    for fd in range(20):
        c = Conversation(pipe, conn=ident(1, fd, fd)).request(GET).response(OK).request(GET[:12])
        if fd % 2:
            c.close()
    pipe.close_all()
    take(pipe)
    assert pipe.statistics()["queued_exchanges"] == 0 and pipe.statistics()["connections"] == 0
    assert pipe.statistics()["buffer_bytes"] < 64 * 45_000  # the exchanges kept for reuse


# ---- what is odd ----


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "content_length_and_transfer_encoding",
        ),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "content_length_conflict"),
        (b"Content-Length: 3, 3\r\n\r\nabc", "content_length_repeated"),
        (b"Content-Length: +3\r\n\r\nabc", "content_length_invalid"),
        (b"Transfer-Encoding: gzip\r\n\r\n", "transfer_encoding_not_chunked"),
        (b"Content-Length : 3\r\n\r\nabc", "space_before_colon"),
        (b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", "obs_fold"),
        (b"X: a\n\r\n", "bare_lf"),
        (b"no colon here\r\n\r\n", "bad_header_line"),
        (b"X: a\x00b\r\n\r\n", "nul"),
        (b"Host: a\r\nHost: b\r\n\r\n", "multiple_host"),
    ],
)
def test_ambiguous_framing_is_marked_with_its_reason(head: bytes, reason: str) -> None:
    c = Conversation().request(b"POST / HTTP/1.1\r\n" + head).response(OK).close()
    mark = next(m for m in c.records()[0]["mark"] if m.startswith("ambiguous_framing"))
    assert reason in mark.split(":")[1:]


def test_folded_and_repeated_fields() -> None:
    r = one(
        Conversation()
        .request(b"GET / HTTP/1.1\r\nHOST: h\r\nA: 1\r\nB: x\r\n\ty\r\na: 2\r\nCookie: c=1\r\nCookie: d=2\r\n\r\n")
        .response(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1, b\r\nSet-Cookie: c=2\r\nContent-Length: 0\r\n\r\n")
    )
    assert r["request"] == {"host": "h", "A": "1, 2", "B": "x  \ty", "Cookie": "c=1; d=2"}
    assert r["response"]["Set-Cookie"] == "a=1, b\nc=2"


def test_absolute_target_gives_the_missing_host() -> None:
    r = one(Conversation().request(b"GET http://api.example:8080/a?b HTTP/1.1\r\n\r\n").response(OK))
    assert (r["path"], r["request"]["host"]) == ("http://api.example:8080/a?b", "api.example:8080")


def test_not_http_is_skipped_and_counted() -> None:
    c = Conversation().request(b"\x00\x01\x02\x03 binary").response(b"more")
    c.close()
    assert c.records() == [] and c.counters()["connections_not_http"] == 1


def test_taken_back_connection_leaves_no_record() -> None:
    c = Conversation().request(GET)
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, reason=abi.NOT_HTTP))
    assert c.records() == []


def test_bad_response_costs_only_itself() -> None:
    c = Conversation().request(GET).response(b"THIS IS NOT HTTP").request(GET).response(OK)
    records = c.records()
    assert records[-1]["responsePayload"] == "hi"


def test_suspect_connection_is_skipped() -> None:
    pipe = pipeline()
    c = Conversation(pipe)
    pipe.skip([c.conn[0]])
    c.request(GET).response(OK)
    assert c.records() == [] and c.counters()["suspect_events"] == 2


def test_damaged_span_is_counted_and_loses_nothing_before_it() -> None:
    c = Conversation().request(GET)
    good = abi.pack_data(c.conn, abi.OUT, 0, OK, ts_ns=c.now)
    c.feed(good + b"\xff\xff\xff\x3f garbage")
    assert one(c)["responsePayload"] == "hi"
    assert c.counters()["bad_events"] == 1


def test_head_cut_by_a_hole_is_recorded_with_what_was_seen() -> None:
    c = Conversation().request(b"POST /p HTTP/1.1\r\nHost: h\r\nX-Hal").request(b"f: 1\r\n\r\n", lose=True).response(OK)
    r = one(c.close())
    assert (r["path"], r["request"], r["responsePayload"]) == ("/p", {"host": "h"}, "hi")
    assert {"headers_cut", "request_incomplete"} & r["words"]


def test_client_gone_inside_its_head() -> None:
    r = one(Conversation().request(b"GET /gone HTTP/1.1\r\nHost: h\r\nX").close())
    assert r["path"] == "/gone" and {"headers_cut", "no_response"} <= r["words"]
