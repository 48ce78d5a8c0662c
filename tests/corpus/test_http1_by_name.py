"""HTTP/1 by name: every behaviour that a list of protocol features would mention, and every reason for a mark.

The rule behind each expectation is RFC 9110 and 9112 as an observer must read them: it can refuse nothing, so it
reports what was on the wire, and says where two readers of the same bytes could disagree."""

from __future__ import annotations

from typing import Any

import pytest

from collector import abi
from tests.events import GET, OK, Conversation


def one(c: Conversation) -> dict[str, Any]:
    records = c.records()
    assert len(records) == 1, records
    return records[0]


def reasons(record: dict[str, Any]) -> set[str]:
    """Why the record says that its framing is ambiguous."""
    return {reason for mark in record["mark"] if mark.startswith("ambiguous_framing") for reason in mark.split(":")[1:]}


def of_request(data: bytes, *, step: int = 1 << 20) -> set[str]:
    """The reasons on the only record of these bytes, which no answer follows."""
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    return reasons(one(c.close()))


# ---- the request's framing ----


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Transfer-Encoding: br, chunked", {"transfer_encoding_obfuscated"}),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", {"transfer_encoding_obfuscated"}),
        ("Transfer-Encoding: chunked, identity", {"transfer_encoding_obfuscated"}),
        ("Transfer-Encoding: chunked,", {"transfer_encoding_obfuscated"}),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", {"transfer_encoding_obfuscated"}),
    ],
)
def test_transfer_encodings_in_one_field_or_several_are_one_list(fields: str, expected: set[str]) -> None:
    r = one(Conversation().request(f"POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode()).close())
    assert (r["requestPayload"], reasons(r), r["words"]) == ("abc", expected, {"no_response", "ambiguous_framing"})


@pytest.mark.parametrize(
    "fields",
    [
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunkedchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        "Transfer-Encoding:",
    ],
)
def test_a_last_coding_that_is_not_chunked_leaves_the_end_unknown(fields: str) -> None:
    r = one(Conversation().request(f"POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode()).close())
    assert "transfer_encoding_not_chunked" in reasons(r) and "request_incomplete" in r["words"]


def test_identity_beside_a_length_is_still_both_fields() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\n"
    r = one(Conversation().request(head + b"abc").close())
    assert r["requestPayload"] == "abc"
    assert reasons(r) == {"content_length_and_transfer_encoding", "transfer_encoding_obfuscated"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"X.Custom|Pipe~1: ok", set()),
        (b"Fo@: x", {"bad_header_line"}),
        (b"Content-Length\xc3\x9f: 3", {"bad_header_line"}),
        (b"Two Words: x", {"bad_header_line"}),
        (b"Tab\there: x", {"bad_header_line"}),
        (b"Bell\x07: x", {"bad_header_line"}),
        (b'Quoted": x', {"bad_header_line"}),
        (b": x", {"bad_header_line"}),
        (b"no colon", {"bad_header_line"}),
        (b"token-without-colon", {"bad_header_line"}),
        (b"Late : x", {"space_before_colon"}),
        (b"Two Words : x", {"bad_header_line", "space_before_colon"}),
        (b"X: bell\x07, delete\x7f, form feed\x0c", {"control_character"}),  # RFC 9110 section 5.5 lets them be kept
        (b"X: a\tb", set()),
        (b"X: a\r\n b\x08", {"obs_fold", "control_character"}),
        (b"X: caf\xc3\xa9 \xff", set()),
        (b"X: a\x00b", {"nul"}),
        (b"X: a\rb", {"bare_cr"}),
    ],
)
def test_field_names_are_tokens_and_values_are_text(line: bytes, expected: set[str]) -> None:
    assert of_request(b"GET / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n\r\n") == expected


# ---- the start line ----


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET /a?b=c#d",
        "GET //double/slash",
        "OPTIONS *",
        "M-SEARCH *",
        "CONNECT a.example:443",
        "CONNECT [::1]:443",
        "GET http://a.example",
        "GET http://a.example?q",
        "GET HTTPS://u:p@a.example:8443/x",
        "GET coap+tcp://a.example/x",
        "GET /non\N{LATIN SMALL LETTER A WITH GRAVE}ascii",
        'GET /"quoted"|\\{}^`<>',
    ],
)
def test_every_form_of_target_is_recorded_as_it_stands(line: str) -> None:
    r = one(Conversation().request(f"{line} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode()).close())
    assert ([r["method"], r["path"]], reasons(r) - {"multiple_host"}) == (line.split(" "), set())


@pytest.mark.parametrize(
    "line",
    [
        "GET relative/path",
        "GET a.example:443",
        "GET *",
        "OPTIONS *x",
        "CONNECT /",
        "CONNECT a.example",
        "GET @evil.example",
        "GET ://x",
        "GET ?q",
        "GET /a b",
        "GET /a\tb",
        "GET /vertical\x0btab",
        "GET /form\x0cfeed",
        "GET /bell\x07",
    ],
)
def test_a_target_of_no_form_is_recorded_and_marked(line: str) -> None:
    r = one(Conversation().request(f"{line} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode()).close())
    assert ([r["method"], r["path"]], reasons(r)) == (line.split(" ", 1), {"start_line"})


def test_a_nul_in_the_target_is_marked() -> None:
    r = one(Conversation().request(b"GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n").close())
    assert (r["path"], reasons(r)) == ("/a\0b", {"nul", "start_line"})


@pytest.mark.parametrize(
    "line",
    [
        "GET  / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/11",
        "GET / HTTP/1.10",
    ],
)
def test_odd_blanks_and_versions_are_recorded_and_marked(line: str) -> None:
    r = one(Conversation().request(f"{line}\r\nHost: h\r\n\r\n".encode()).close())
    assert (r["method"], r["path"], reasons(r)) == ("GET", "/", {"start_line"})


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n", b"\n"])
def test_empty_lines_before_a_request_are_skipped(blank: bytes) -> None:
    r = one(Conversation().request(blank + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").close())
    assert (r["method"], r["mark"]) == ("GET", ["no_response"])


# ---- the host ----


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("http://a.example/1", "a.example", set()),
        ("http://A.Example/1", "a.exAMPLE", set()),
        ("http://a.example:80/1", "a.example", set()),
        ("https://a.example/1", "a.example:443", set()),
        ("http://user:pass@a.example:8080/1", "a.example:8080", set()),
        ("http://[::1]:8080/1", "[::1]:8080", set()),
        ("urn://a.example/1", "b.example", set()),  # of other schemes the observer knows nothing
        ("/1", "b.example", set()),
        ("http://a.example/1", "b.example", {"multiple_host"}),
        ("http://a.example:8002/1", "a.example:8003", {"multiple_host"}),
        ("https://a.example/1", "a.example:80", {"multiple_host"}),
        ("http://a.example@b.example/1", "a.example", {"multiple_host"}),
        ("http://a.example/1", "", {"multiple_host"}),
    ],
)
def test_two_hosts_in_one_request(target: str, host: str, expected: set[str]) -> None:
    assert of_request(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == expected


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://api.example:8080?x", "api.example:8080"),
        ("https://u:p@api.example/x@y", "api.example"),
        ("http://a@b@api.example", "api.example"),
        ("/x", ""),
        ("*", ""),
        ("urn://x/y", ""),
    ],
)
def test_the_missing_host_comes_from_an_absolute_target_without_its_user(target: str, host: str) -> None:
    r = one(Conversation().request(f"OPTIONS {target} HTTP/1.1\r\nA: b\r\n\r\n".encode()).close())
    assert r["request"] == {"A": "b", "host": host}


# ---- a head without its end ----


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"", set()),
        (b"X: 1\r", set()),
        (b"X: 1\r\n\r", set()),
        (b"X: 1", set()),
        (b"X: 1\rY: 2", {"bare_cr"}),
        (b"X: 1\r\n\rGET /forged HTTP/1.1", {"bare_cr"}),
        (b" X: 1", {"obs_fold"}),
        (b"X: \x00", {"nul"}),
        (b"X: 1\nY", {"bare_lf"}),
    ],
)
def test_what_is_there_of_a_cut_head_is_judged_like_a_whole_one(rest: bytes, expected: set[str]) -> None:
    r = one(Conversation().request(b"GET /cut HTTP/1.1\r\nHost: h\r\n" + rest).close())
    assert (r["path"], reasons(r)) == ("/cut", expected)
    assert {"headers_cut", "request_incomplete", "no_response"} <= r["words"]


# ---- what is no HTTP/1 ----


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        b"GET /simple\r\n",  # HTTP/0.9: without an answer nothing says that this is HTTP
        b"HELLO\r\n\r\n",
        b"GET / RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"GET HTTP/1.1\r\n\r\n",
        b"GET\x00 / HTTP/1.1\r\n\r\n",
        b"GET: / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\rHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
    ],
)
def test_what_is_no_http1_is_counted_and_never_recorded(data: bytes, step: int) -> None:
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    assert c.close().records() == []
    assert (c.counters()["connections_not_http"], c.counters()["skipped_bytes"]) == (1, len(data))


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_an_answer_in_no_http_is_given_up_at_once_and_the_next_one_is_read(step: int) -> None:
    c = Conversation().request(GET)
    for at in range(0, 24, step):
        c.response(b"Hello, this is no answer"[at : at + step])
    c.request(GET).response(OK).close()
    assert c.counters()["skipped_bytes"] == 24
    first, second = c.records()
    assert first["words"] == {"no_response", "pairing_uncertain", "ambiguous_framing"} and reasons(first) == {"start_line"}
    assert (second["responsePayload"], second["words"]) == ("hi", {"pairing_uncertain", "response_framing_uncertain"})


def test_the_rest_of_a_request_line_that_was_answered_early_is_no_request() -> None:
    c = Conversation().request(b"GET /blaaaaa").response(b"HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\n\r\n")
    c.request(b"aaa HTTP/1.1\r\n\r\n")
    assert c.close().records() == []
    assert (c.counters()["orphan_responses"], c.counters()["skipped_bytes"]) == (1, 28)


# ---- chunks ----

CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (b"5", set()),
        (b"0005", set()),
        (b"5;a", set()),
        (b"5; a=b ;c", set()),
        (b'5;a="x \\" ; y";b=c', set()),
        (b"5\t;a = b", set()),
        (b"5;chunk-signature=0a1b", set()),
        (b"5 ", {"bad_chunk"}),
        (b"5;", {"bad_chunk"}),
        (b"5;=", {"bad_chunk"}),
        (b"5;a=", {"bad_chunk"}),
        (b'5;a="open', {"bad_chunk"}),
        (b'5;a="\x01"', {"bad_chunk"}),
        (b"5;a b", {"bad_chunk"}),
        (b"5;a=b c", {"bad_chunk"}),
        (b"5;a\rb", {"bare_cr", "bad_chunk"}),
        (b"5;\xff", {"bad_chunk"}),
    ],
)
def test_chunk_extensions_are_skipped_and_odd_ones_marked(size: bytes, expected: set[str], step: int) -> None:
    data = CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n"
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    r = one(c.response(OK).close())
    assert (r["requestPayload"], reasons(r)) == ("hello", expected)
    assert "request_incomplete" not in r["words"]


@pytest.mark.parametrize("size", [b"", b" 5", b"x", b"-5", b"+5", b"0x5", b"5_0", b"5 3", b"5,", b"5\r", b"f" * 17])
def test_a_chunk_size_that_is_no_number_ends_what_can_be_read(size: bytes) -> None:
    c = Conversation().request(CHUNKED + size + b"\r\nhello\r\n0\r\n\r\nGET /forged HTTP/1.1\r\n\r\n").response(OK).close()
    r = one(c)  # and nothing in the rest of that event becomes a request
    assert (r["requestPayload"], r["statusCode"]) == ("", "200")
    assert "request_incomplete" in r["words"] and "bad_chunk" in reasons(r)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"5\nhello\r\n0\r\n\r\n", {"bare_lf"}),
        (b"5\r\nhello\n0\r\n\r\n", {"bare_lf"}),
        (b"5\r\nhello\r\n0\n\r\n", {"bare_lf"}),
    ],
)
def test_bare_line_feeds_between_chunks_are_marked(body: bytes, expected: set[str]) -> None:
    r = one(Conversation().request(CHUNKED + body).response(OK).close())
    assert (r["requestPayload"], reasons(r)) == ("hello", expected)


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    ("trailers", "expected"),
    [
        (b"", set()),
        (b"Expires: 0\r\nX-Checksum: 1\r\n", set()),
        (b"Empty:\r\n", set()),
        (b"Content-Length: 99\r\n", {"bad_header_line"}),
        (b"transfer-encoding: chunked\r\n", {"bad_header_line"}),
        (b"Host: evil.example\r\n", {"bad_header_line"}),
        (b"no colon\r\n", {"bad_header_line"}),
        (b": x\r\n", {"bad_header_line"}),
        (b"X: 1\n", {"bare_lf"}),
        (b"X: 1\rY: 2\r\n", {"bare_cr"}),
        (b"X : 1\r\n", {"space_before_colon"}),
        (b"X: 1\r\n 2\r\n", {"obs_fold"}),
        (b"X: \x00\r\n", {"nul"}),
        (b"X: " + b"y" * 5000 + b"\r\n", set()),
    ],
)
def test_trailers_are_skipped_and_odd_ones_marked(trailers: bytes, expected: set[str], step: int) -> None:
    data = CHUNKED + b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n"
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    c.response(OK).request(GET).response(OK)
    first, second = c.records()
    assert (first["requestPayload"], reasons(first)) == ("hello", expected)
    assert first["request"].keys() == {"host", "Transfer-Encoding"}
    assert (second["path"], reasons(second)) == ("/x", set())


def test_a_bare_line_feed_may_end_the_trailers_and_is_marked() -> None:
    assert of_request(CHUNKED + b"0\r\n\n") == {"bare_lf"}


# ---- methods and sizes ----


@pytest.mark.parametrize(
    "method",
    [
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "PROPFIND",
        "MKCALENDAR",
        "VERSION-CONTROL",
        "M-SEARCH",
        "QUERY",
        "PURGE",
        "BREW",
        "get",
        "x",
        "0",
        "!#$%&'*+-.^_`|~",
        "A" * 300,
    ],
)
def test_a_method_is_any_token(method: str) -> None:
    r = one(Conversation().request(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode()).response(OK))
    assert (r["method"], r["responsePayload"], r["mark"]) == (method, "hi", [])


@pytest.mark.parametrize("method", ["G(T", "GET,", "G\xe8T", "GET:"])
def test_a_method_that_is_no_token_is_no_request(method: str) -> None:
    c = Conversation().request(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode("latin-1")).response(OK).close()
    assert c.records() == []
    assert (c.counters()["connections_not_http"], c.counters()["orphan_responses"]) == (1, 1)


@pytest.mark.parametrize("step", [7, 1448, 1 << 20])
def test_long_targets_and_many_fields_are_whole(step: int) -> None:
    target = "/" + "t" * 8190
    fields = {f"X-Field-{i}": f"value {i} " + "v" * 400 for i in range(100)}
    data = "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *(f"{k}: {v}" for k, v in fields.items()), "", ""]).encode()
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    r = one(c.response(OK))
    assert (r["path"], r["request"], r["mark"]) == (target, {"host": "h", **fields}, [])


def head_of(size: int) -> bytes:
    """A request head of so many bytes."""
    start = b"GET /long HTTP/1.1\r\nHost: h\r\nX-Long: "
    return start + b"y" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("step", [1000, 1 << 20])
@pytest.mark.parametrize(
    ("size", "listed", "marked"), [(65536, True, False), (65537, True, True), (65539, False, True), (200_000, False, True)]
)
def test_a_head_is_kept_up_to_its_limit_and_lines_that_fit(size: int, listed: bool, marked: bool, step: int) -> None:
    data = head_of(size)
    assert len(data) == size
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    c.response(OK).request(GET).response(OK)
    first, second = c.records()
    assert (first["path"], first["request"]["host"], first["responsePayload"]) == ("/long", "h", "hi")
    assert ("X-Long" in first["request"]) == listed
    # whether a body follows stood in what was not kept: the next exchange may be wrong
    assert first["words"] >= ({"headers_cut", "request_incomplete"} if marked else set())
    assert (second["path"], second["responsePayload"], bool(second["mark"])) == ("/x", "hi", marked)


def test_more_fields_than_are_listed_are_obeyed_and_marked() -> None:
    fields = b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(600))
    c = Conversation().request(b"POST / HTTP/1.1\r\n" + fields + b"Content-Length: 3\r\n\r\nabc").response(OK)
    r = one(c)
    assert (r["requestPayload"], r["mark"]) == ("abc", ["headers_uncertain"])
    assert len(r["request"]) == 513  # and host


# ---- interim answers ----


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints", "110 Unheard Of", "199 "])
def test_interim_answers_are_not_the_answer(interim: str) -> None:
    c = Conversation().request(GET).request(b"HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n")
    for _ in range(2):
        c.response(f"HTTP/1.1 {interim}\r\nLink: </a>\r\n\r\n".encode())
    c.response(OK).response(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    first, second = c.records()
    assert (first["statusCode"], first["responsePayload"], first["mark"]) == ("200", "hi", [])
    assert (second["statusCode"], second["mark"]) == ("204", [])
    assert c.counters()["interim_responses"] == 3


def test_an_interim_answer_has_no_body_whatever_it_says_but_somebody_may_read_one() -> None:
    c = Conversation().request(GET).response(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n").response(OK)
    r = one(c)
    assert (r["statusCode"], r["responsePayload"], reasons(r)) == ("200", "hi", {"body_not_allowed"})
    assert "pairing_uncertain" in r["words"]


def test_expect_continue_and_its_ways() -> None:
    expect = b"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    c = Conversation()
    c.request(expect).response(b"HTTP/1.1 100 Continue\r\n\r\n").request(b"body").response(OK)  # as it should be
    c.request(expect).request(b"body").response(b"HTTP/1.1 100 Continue\r\n\r\n").response(OK)  # the client did not wait
    c.request(expect).request(b"body").response(OK)  # the server did not care
    c.request(expect).response(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").request(b"body")  # the client did not
    assert [(r["statusCode"], r["requestPayload"], r["mark"]) for r in c.records()] == [
        ("200", "body", []),
        ("200", "body", []),
        ("200", "body", []),
        ("413", "body", []),
    ]


def test_only_interim_answers_are_no_answer() -> None:
    r = one(Conversation().request(GET).response(b"HTTP/1.1 102 Processing\r\n\r\n").close())
    assert (r["statusCode"], r["mark"]) == ("0", ["no_response"])


# ---- answers without bodies, and bodies without lengths ----


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304), ("POST", 204)])
@pytest.mark.parametrize("field", ["Content-Length: 1000", "Transfer-Encoding: chunked", "Server: x"])
def test_head_204_and_304_end_with_their_head(method: str, status: int, field: str) -> None:
    c = Conversation().request(f"{method} /h HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    c.response(f"HTTP/1.1 {status} X\r\n{field}\r\n\r\n".encode()).request(GET).response(OK)
    first, second = c.records()
    assert (first["statusCode"], first["responseSize"], first["mark"]) == (str(status), "0", [])
    assert (second["responsePayload"], second["mark"]) == ("hi", [])


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"HTTP/1.1 205 X\r\n\r\n"]
)
def test_a_body_without_length_ends_with_the_connection(head: bytes) -> None:
    c = Conversation().request(GET).response(head + b"HTTP/1.1 200 OK\r\n\r\n").response(b"more")
    assert c.records() == []
    r = one(c.eof(1))
    assert (r["responsePayload"], r["mark"]) == ("HTTP/1.1 200 OK\r\n\r\nmore", [])


def test_a_request_without_length_has_no_body() -> None:
    c = Conversation().request(b"POST /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\n\r\n").response(OK + OK)
    assert [(r["path"], r["requestSize"], r["mark"]) for r in c.records()] == [("/1", "0", []), ("/2", "0", [])]


# ---- tunnels and upgrades ----


def test_connect_that_succeeds_is_a_tunnel() -> None:
    c = Conversation().request(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")
    c.response(b"HTTP/1.1 200 Connection established\r\n\r\n")
    c.request(b"\x16\x03\x01 GET /inner HTTP/1.1\r\n\r\n").response(OK).close()
    assert (one(c)["mark"], c.counters()["upgraded"], c.counters()["skipped_bytes"]) == ([], 1, 0)


def test_connect_that_is_served_like_any_method_hides_nothing() -> None:
    """Go's server does that; whoever means a tunnel sends no Content-Length (RFC 9110 section 9.3.6)."""
    c = Conversation().request(b"CONNECT /healthz HTTP/1.1\r\nHost: a.example\r\n\r\n")
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").request(GET).response(OK)
    first, second = c.records()
    assert "body_not_allowed" in reasons(first) and "pairing_uncertain" in first["words"]
    assert (second["path"], second["responsePayload"]) == ("/x", "hi") and "pairing_uncertain" in second["words"]


def test_connect_that_is_refused_leaves_http() -> None:
    c = Conversation().request(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")
    c.response(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno").request(GET).response(OK)
    assert [(r["method"], r["statusCode"], r["responsePayload"], r["mark"]) for r in c.records()] == [
        ("CONNECT", "407", "no", []),
        ("GET", "200", "hi", []),
    ]


def test_an_upgrade_is_recorded_up_to_its_101() -> None:
    c = Conversation().request(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    c.response(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi")
    c.request(b"\x81\x82....GET /frame HTTP/1.1\r\n\r\n").response(OK).close()
    r, messages = c.records()
    assert (r["statusCode"], r["responseSize"], r["mark"], r["protocol"]) == ("101", "0", [], "http1")
    assert messages["protocol"] == "websocket" and "/frame" not in messages["events"]


def test_an_upgrade_that_is_not_taken_leaves_http() -> None:
    c = Conversation().request(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").response(OK)
    c.request(GET).response(OK)
    assert [(r["path"], r["responsePayload"], r["mark"]) for r in c.records()] == [("/ws", "hi", []), ("/x", "hi", [])]


# ---- who came late, who left early ----


def test_an_early_answer_waits_for_the_body() -> None:
    c = Conversation().request(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n1234")
    c.response(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").request(b"56").request(b"78" + GET).response(OK)
    assert [(r["statusCode"], r["requestPayload"], r["mark"]) for r in c.records()] == [
        ("413", "12345678", []),
        ("200", "", []),
    ]


def test_an_early_answer_and_then_the_end() -> None:
    c = Conversation().request(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n1234")
    r = one(c.response(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").close())
    assert (r["statusCode"], r["requestPayload"], r["mark"]) == ("413", "1234", ["request_incomplete"])


def test_pipelining_with_errors_in_between() -> None:
    c = Conversation().request(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(5)))
    c.response(OK + b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nerr\r\n0\r\n\r\n")
    c.response(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK)
    c.response(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nbye").close()
    assert [(r["path"], r["statusCode"], r["responsePayload"], r["mark"]) for r in c.records()] == [
        ("/0", "200", "hi", []),
        ("/1", "500", "err", []),
        ("/2", "404", "", []),
        ("/3", "200", "hi", []),
        ("/4", "400", "bye", []),
    ]


def test_a_bad_request_in_a_pipeline_makes_what_follows_doubtful() -> None:
    c = Conversation().request(
        b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nContent-Length: 1x\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n"
    )
    c.response(OK + b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").request(GET).response(OK)
    first, second, third = c.records()
    assert (first["path"], first["statusCode"], first["mark"]) == ("/1", "200", [])  # doubt begins behind it
    assert (second["path"], second["statusCode"], reasons(second)) == ("/2", "400", {"content_length_invalid"})
    assert (third["path"], third["words"]) == ("/x", {"pairing_uncertain", "request_framing_uncertain"})


def test_an_answer_nobody_asked_for_is_counted() -> None:
    c = Conversation().response(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\nto").close()
    assert c.records() == [] and c.counters()["orphan_responses"] == 1


@pytest.mark.parametrize("tail", [b"the rest of a body", b"", OK[20:] + OK])
def test_joined_in_the_middle(tail: bytes) -> None:
    c = Conversation(start=abi.MID).request(b"...and the rest of an upload").response(tail or b"x")
    c.request(GET).response(OK).wait(60).request(GET).response(OK).close()
    first, second = c.records()
    assert first["responsePayload"] == "hi" and first["words"] == {
        "joined_mid_stream",
        "pairing_uncertain",
        "request_framing_uncertain",
        "response_framing_uncertain",
    }
    assert (second["responsePayload"], second["mark"]) == ("hi", [])


@pytest.mark.parametrize(
    ("answer", "status", "shown", "words"),
    [
        (b"", "0", "", {"no_response"}),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "200", "", {"headers_cut", "response_incomplete"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "200", "hel", {"response_incomplete"}),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "200", "hel", {"response_incomplete"}),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", "200", "hel", {"response_incomplete"}),
    ],
)
def test_the_server_leaves_before_its_answer_is_whole(answer: bytes, status: str, shown: str, words: set[str]) -> None:
    c = Conversation(role=abi.CLIENT).request(GET)
    if answer:
        c.response(answer)
    r = one(c.eof(abi.IN).close())
    assert (r["statusCode"], r["responsePayload"], r["words"]) == (status, shown, words)


@pytest.mark.parametrize(
    ("sent", "shown", "words"),
    [
        (b"POST /p HTTP/1.1\r\nContent-Length: 9\r\n", "", {"headers_cut", "request_incomplete", "no_response"}),
        (b"POST /p HTTP/1.1\r\nContent-Length: 9\r\n\r\n1234", "1234", {"request_incomplete", "no_response"}),
        (
            b"POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n",
            "1234",
            {"request_incomplete", "no_response"},
        ),
    ],
)
def test_the_client_leaves_before_its_request_is_whole(sent: bytes, shown: str, words: set[str]) -> None:
    r = one(Conversation().request(sent).eof(abi.IN).close())
    assert (r["path"], r["requestPayload"], r["words"]) == ("/p", shown, words)


def test_a_client_that_shuts_its_side_still_gets_its_answer() -> None:
    r = one(Conversation().request(GET).eof(abi.IN).response(OK).close())
    assert (r["responsePayload"], r["mark"]) == ("hi", [])


def test_silence_in_a_request_in_an_answer_and_before_one() -> None:
    c = Conversation().request(b"POST /p HTTP/1.1\r\nContent-Length: 9\r\n\r\n1234").wait(50)
    assert c.records() == [] and one(c.wait(13))["words"] == {"request_incomplete", "no_response"}
    c = Conversation().request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").wait(50)
    assert c.records() == [] and one(c.wait(13))["words"] == {"response_incomplete"}
    c = Conversation().request(GET).wait(50)
    assert c.records() == [] and one(c.wait(13))["words"] == {"no_response"}
    c.response(OK).request(GET).response(OK)  # the answer that came too late is not the next one's
    assert (one(c)["responsePayload"], c.counters()["orphan_responses"]) == ("hi", 0)


# ---- what is not text ----


def test_bytes_beyond_ascii_are_kept() -> None:
    head = "GET /\u00fc\U0001f600 HTTP/1.1\r\nHost: h\r\nX-U: \u00fc\r\nX-L: ".encode()
    c = Conversation().request(head + b"\xfc\r\n\r\n")
    r = one(c.response(b"HTTP/1.1 200 \xd6K\r\nContent-Length: 0\r\nX-L: \xe9\r\n\r\n"))
    assert (r["path"], r["request"]["X-U"], r["request"]["X-L"]) == ("/\u00fc\U0001f600", "\u00fc", "\u00fc")
    assert (r["status"], r["response"]["X-L"], r["mark"]) == ("200 \u00d6K", "\u00e9", [])


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n"],
)
def test_a_nul_in_an_answer_is_marked(answer: bytes) -> None:
    assert reasons(one(Conversation().request(GET).response(answer))) == {"nul"}


@pytest.mark.parametrize(
    ("line", "status"),
    [("HTTP/1.1 200", 200), ("HTTP/1.1 200 ", 200), ("HTTP/1.0 404 Not  Found", 404), ("HTTP/1.1 599 x", 599)],
)
def test_status_lines_with_and_without_a_phrase(line: str, status: int) -> None:
    r = one(Conversation().request(GET).response(f"{line}\r\nContent-Length: 0\r\n\r\n".encode()))
    assert (r["statusCode"], r["status"], r["mark"]) == (str(status), line[9:].strip(), [])


@pytest.mark.parametrize(
    "line", ["HTTP/1.1 200OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/2 200 OK", "HTTP/1.1  200 OK", "HTTP/1.1 099 Low"]
)
def test_odd_status_lines_are_marked(line: str) -> None:
    r = one(Conversation().request(GET).response(f"{line}\r\nContent-Length: 0\r\n\r\n".encode()))
    assert reasons(r) == {"start_line"}
