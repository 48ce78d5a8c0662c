"""HTTP/0.9: what is recorded, and above all what is not."""

from __future__ import annotations

from typing import Any

import pytest

from collector import abi
from tests.events import GET, OK, Conversation

ASK = b"GET /x\r\n"
PAGE = b"<html><body>hello</body></html>\n"


def one(c: Conversation) -> dict[str, Any]:
    (record,) = c.records()
    return record


def nothing(c: Conversation, *, skipped: int) -> None:
    """No record, counted as other connections that are no HTTP, and no memory kept."""
    assert c.records() == []
    counters = c.counters()
    assert (counters["connections_not_http"], counters["skipped_bytes"]) == (1, skipped)
    assert counters["queued_exchanges"] == 0


def server_closes(ask: bytes = ASK, answer: bytes = PAGE, **how: Any) -> Conversation:
    c = Conversation(**how).request(ask)
    if answer:
        c.response(answer)
    return c.close()


# ---- what is recorded ----


def test_a_line_an_answer_and_the_servers_close_are_a_record() -> None:
    c = Conversation().request(b"GET /a/b?c=%20d\r\n", step_ms=2)
    c.response(PAGE, step_ms=3).response(b"more", step_ms=5)
    assert c.records() == []  # it may still turn out to be something else
    r = one(c.close())
    assert (r["method"], r["path"], r["type"], r["protocol"]) == ("GET", "/a/b?c=%20d", "HTTP/0.9", "http0.9")
    assert (r["status"], r["statusCode"], r["request"], r["response"]) == ("", "0", {"host": ""}, {})
    assert (r["responsePayload"], r["responseSize"], r["mark"]) == (PAGE.decode() + "more", "36", [])
    assert (r["requestPayload"], r["requestSize"], r["direction"]) == ("", "0", "1")
    assert (r["firstByteMs"], r["durationMs"]) == ("3.000", "8.000")
    assert c.counters()["connections_not_http"] == 0 and c.counters()["skipped_bytes"] == 0


def test_a_client_that_reads_the_end_has_a_record_too() -> None:
    c = Conversation(role=abi.CLIENT).request(ASK).response(b'{"a":1}')
    c.eof(abi.IN).close()
    r = one(c)
    assert (r["path"], r["responsePayload"], r["direction"], r["mark"]) == ("/x", '{"a":1}', "2", [])


def test_a_server_that_shuts_down_and_closes_later_has_ended_the_answer() -> None:
    c = Conversation().request(ASK).response(b"[1]").eof(abi.OUT)
    c.eof(abi.IN).close()  # the client's end, behind the server's
    assert one(c)["responsePayload"] == "[1]"


def test_a_client_that_never_closes_has_its_record_after_the_silence() -> None:
    c = Conversation(role=abi.CLIENT).request(ASK).response(PAGE).eof(abi.IN)
    assert c.records() == []
    r = one(c.wait(61))
    assert r["mark"] == [] and c.close().records() == []
    assert c.counters()["connections_not_http"] == 0


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_bytes_one_by_one_and_a_bare_line_feed(size: int) -> None:
    c = Conversation()
    for data, say in ((b"GET /x\n", c.request), (PAGE, c.response)):
        for at in range(0, len(data), size):
            say(data[at : at + size])
    r = one(c.close())
    assert (r["path"], r["responsePayload"], r["mark"]) == ("/x", PAGE.decode(), [])


@pytest.mark.parametrize("empty", [b"\r\n", b"\n"])
def test_an_empty_line_may_follow(empty: bytes) -> None:
    for size in (1, 100):
        c = Conversation()
        for at in range(0, len(ASK + empty), size):
            c.request((ASK + empty)[at : at + size])
        assert one(c.response(PAGE).close())["path"] == "/x"
    assert one(Conversation().request(ASK).response(PAGE).request(empty).response(PAGE).close())["responseSize"] == "64"
    c = Conversation().request(ASK + empty).request(empty).response(PAGE).close()
    assert c.records() == [] and c.counters()["connections_not_http"] == 1


def test_a_client_that_has_ended_first_is_answered_with_markup() -> None:
    for page in (PAGE, b"\xef\xbb\xbf\r\n <!DOCTYPE html>", b"<?xml version='1.0'?><a/>"):
        c = Conversation().request(ASK).eof(abi.IN).response(page).close()
        assert one(c)["path"] == "/x"
        c = Conversation(role=abi.CLIENT).request(ASK).eof(abi.OUT).response(page).eof(abi.IN).close()
        assert one(c)["mark"] == []


def test_a_body_has_the_cap_of_every_body() -> None:
    r = one(Conversation(body_bytes=10).request(ASK).response(PAGE).close())
    assert (r["responsePayload"], r["responseSize"], r["mark"]) == ("<html><bod", "32", ["response_body_cut:22"])
    r = one(Conversation(response_bodies=False).request(ASK).response(PAGE).close())
    assert (r["responsePayload"], r["responseSize"], r["mark"]) == ("", "32", [])


def test_a_file_that_the_kernel_sends_is_an_answer() -> None:
    c = Conversation().request(ASK).response(b"", true_length=5000, flags=abi.F_SIZE_ONLY).close()
    r = one(c)
    assert (r["responsePayload"], r["responseSize"], r["mark"]) == ("", "5000", ["response_body_cut:5000"])


def test_a_reset_by_the_server_leaves_an_answer_that_may_have_been_longer() -> None:
    c = Conversation(role=abi.CLIENT).request(ASK).response(b"<p>")
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, final_in=c.positions[0], final_out=c.positions[1], reason=abi.RESET))
    assert one(c)["mark"] == ["response_incomplete"]


def test_a_loss_in_the_answer_is_marked() -> None:
    c = Conversation().request(ASK).response(PAGE).response(b"lost", lose=True).response(b"rest").close()
    r = one(c)
    assert (r["responsePayload"], r["responseSize"], r["mark"]) == (PAGE.decode(), "40", ["response_bytes_lost:4"])


def test_inside_tls_it_is_read_as_well() -> None:
    c = Conversation(source=1).request(ASK).response(PAGE).close()
    assert (one(c)["tls"], c.records()) == ("true", [])


def test_a_filter_is_asked_once_it_is_http_and_not_before() -> None:
    c = server_closes(ignore_ip_hosts=True)  # no Host counts as one
    assert c.records() == [] and c.counters()["filtered_ip_host"] == 1 and c.counters()["connections_not_http"] == 0
    c = server_closes(answer=b"$-1\r\n", ignore_ip_hosts=True)
    assert c.counters()["filtered_ip_host"] == 0


# ---- an answer of HTTP/1 ----

REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad"


@pytest.mark.parametrize("size", [1, 5, 12, 13, 100])
def test_a_status_line_makes_http1_of_it(size: int) -> None:
    c = Conversation().request(ASK)
    for at in range(0, len(REFUSED), size):
        c.response(REFUSED[at : at + size])
    r = one(c)
    assert (r["type"], r["path"], r["status"], r["responsePayload"]) == ("HTTP/0.9", "/x", "400 Bad Request", "bad")
    assert (r["mark"], r["protocol"]) == (["ambiguous_framing:start_line"], "http1")
    assert c.close().records() == [] and c.counters()["connections_not_http"] == 0
    assert c.counters()["orphan_responses"] == 0


def test_a_connection_goes_on_behind_an_answer_of_http1() -> None:
    c = Conversation().request(ASK).response(REFUSED).request(GET).response(OK)
    first, second = c.records()
    assert (first["statusCode"], second["statusCode"], second["mark"]) == ("400", "200", [])


@pytest.mark.parametrize("size", [1, 4, 7, 9, 100])
def test_a_request_of_http1_in_pieces_stays_one(size: int) -> None:
    data = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
    c = Conversation()
    for at in range(0, len(data), size):
        c.request(data[at : at + size])
    r = one(c.response(OK))
    assert (r["type"], r["mark"], r["recordId"].rpartition("-")[2]) == ("HTTP/1.1", [], "0")
    assert r["startTimeMs"] == str(1_795_000_000_000 + 1_001)


# ---- what is not ----


@pytest.mark.parametrize(
    "line",
    [
        b"GET foo\r\n",  # Redis
        b"get /x\r\n",
        b"GETS /x\r\n",
        b"SET /x 1\r\n",
        b"POST /x\r\n",
        b"HEAD /x\r\n",
        b"GET  /x\r\n",
        b"GET /x \r\n",
        b"GET /x y\r\n",
        b"GET\t/x\r\n",
        b"GET /x\ty\r\n",
        b"GET /x\ry\n",
        b"GET /x\r\r\n",
        b"GET /\xc3\xa4\r\n",
        b"GET /x\x00\r\n",
        b"\x00GET /x\r\n",
        b"GET http://h/x\r\n",
        b"GET *\r\n",
        b"GET /x\r\nHost: h\r\n",
        b"GET /x\r\n\r\nx",
        b"GET /x\r\n\rx",
        b"GET /x\r\n \r\n",
        b"GET /x\r\nGET /y\r\n",
        b"GET /x",
        b"GET /x\r",
        b"EHLO /x\r\n",
    ],
)
def test_no_other_line_counts(line: bytes) -> None:
    for size in (1, len(line)):
        c = Conversation()
        for at in range(0, len(line), size):
            c.request(line[at : at + size])
        assert c.response(PAGE).close().records() == []
        assert c.counters()["skipped_bytes"] == len(line + PAGE) and c.counters()["queued_exchanges"] == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"$5\r\nhello\r\n",
        b"$-1\r\n",
        b"-ERR unknown command\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"_\r\n",
        b"ERROR\r\n",
        b"ERR unknown_command\r\n",
        b"220 mail.example ESMTP\r\n",
        b"500-What?\r\n",
        b"* BAD invalid\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # an alert of TLS
        b"\x00\x00\x06\x04\x00\x00\x00\x00\x00",  # SETTINGS of HTTP/2
        b"AMQP\x00\x00\x09\x01",
        b"you said GET /x\n",
        b"\xef\xbbx",
        b"HTTP/2 is a protocol",
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_the_reply_of_another_protocol_is_no_answer(reply: bytes, size: int) -> None:
    c = Conversation().request(ASK)
    for at in range(0, len(reply), size):
        c.response(reply[at : at + size])
    nothing(c.close(), skipped=len(ASK + reply))


def test_a_connection_that_is_kept_open_is_none() -> None:
    c = Conversation().request(ASK).response(b'{"a":\n').wait(6).close()
    nothing(c, skipped=len(ASK) + 6)
    c = Conversation().request(ASK).response(b'{"a":\n').wait(61).response(b"late\n").close()
    nothing(c, skipped=len(ASK) + 11)


def test_a_pause_in_the_answer_is_no_connection_that_is_kept_open() -> None:
    c = Conversation().request(ASK).response(PAGE).wait(30).response(PAGE).close()
    assert one(c)["responseSize"] == "64"


def test_a_second_line_is_none() -> None:
    for more in (b"GET /y\r\n", b"QUIT\r\n"):
        c = Conversation().request(ASK).response(PAGE).request(more).response(PAGE).close()
        nothing(c, skipped=len(ASK + PAGE + more + PAGE))
        c = Conversation().request(ASK).request(more).response(PAGE).close()
        nothing(c, skipped=len(ASK + more + PAGE))


def test_a_second_line_that_only_the_close_shows_is_none() -> None:
    c = Conversation().request(ASK).response(PAGE).request(b"more\r\n", lose=True).close()
    assert c.records() == [] and c.counters()["connections_not_http"] == 1


def test_a_client_that_has_ended_first_proves_nothing() -> None:
    c = Conversation().request(ASK).response(b'{"a":\n').eof(abi.IN).close()
    nothing(c, skipped=len(ASK) + 6)
    c = Conversation(role=abi.CLIENT).request(ASK).eof(abi.OUT).response(b'{"a":\n').eof(abi.IN).close()
    nothing(c, skipped=len(ASK) + 6)
    c = Conversation(role=abi.CLIENT).request(ASK).response(PAGE).close()  # nobody has seen the server's end
    nothing(c, skipped=len(ASK + PAGE))


def test_a_client_that_has_reset_the_connection_proves_nothing() -> None:
    c = Conversation().request(ASK).response(b'{"a":\n')
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, final_in=c.positions[0], final_out=c.positions[1], reason=abi.RESET))
    nothing(c, skipped=len(ASK) + 6)


def test_without_an_answer_there_is_none() -> None:
    nothing(server_closes(answer=b""), skipped=len(ASK))


def test_a_lost_beginning_proves_nothing() -> None:
    c = Conversation().request(b"GET ", lose=True).request(b"/x\r\n").response(PAGE).close()
    assert c.records() == []
    c = Conversation().request(ASK).response(b"-ERR", lose=True).response(PAGE).close()
    assert c.records() == [] and c.counters()["connections_not_http"] == 1


def test_empty_lines_before_the_line_are_none() -> None:
    assert server_closes(b"\r\n" + ASK).records() == []


def test_a_connection_whose_beginning_or_role_is_unknown_has_none() -> None:
    assert server_closes(start=abi.MID).records() == []
    assert server_closes(role=abi.UNKNOWN).records() == []


def test_a_server_that_speaks_first_has_none() -> None:
    c = Conversation().response(b"220 ready\r\n").request(ASK).response(PAGE).close()
    assert c.records() == [] and c.counters()["connections_not_http"] == 1


def test_what_is_cut_off_is_no_end() -> None:
    c = Conversation().request(ASK).response(PAGE)
    while not c.pipe.close_all():
        pass
    assert c.records() == []


def test_all_memory_is_given_back() -> None:
    c = server_closes()
    c.records()
    for how in (b"more", b"$-1\r\n", PAGE, REFUSED):
        server_closes(answer=how, pipe=c.pipe)
        server_closes(answer=how, pipe=c.pipe, role=abi.CLIENT)
    server_closes(b"GET /pa", b"", pipe=c.pipe)
    assert c.counters()["queued_exchanges"] == 0 and c.counters()["connections"] == 0
