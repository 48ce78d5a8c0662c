"""What a record says: text, binary, codings, sizes."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.records import text as json_text
from tests.events import Conversation

TEXT = json.dumps({"name": "Zoë", "n": list(range(200))}).encode()


def answer(body: bytes, *headers: str, **changes: object) -> dict:
    c = Conversation(**changes)  # type: ignore[arg-type]
    head = "".join(h + "\r\n" for h in headers)
    c.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").response(
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body
    )
    return c.records()[0]


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT[:9], mtime=0) + gzip.compress(TEXT[9:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("br", brotli.compress(TEXT)),
        ("zstd", zstandard.compress(TEXT)),
        ("gzip, br", brotli.compress(gzip.compress(TEXT, mtime=0))),
        ("identity", TEXT),
    ],
)
def test_content_codings_are_undone_and_headers_stay(coding: str, encoded: bytes) -> None:
    r = answer(encoded, f"Content-Encoding: {coding}", "Content-Type: application/json")
    assert r["responsePayload"].encode() == TEXT and r["mark"] == []
    assert r["response"]["Content-Encoding"] == coding and r["responseSize"] == str(len(encoded))


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"no gzip"),
        ("br", b"\xff\xff\xff"),
        ("zstd", b"no zstd"),
        ("compress", b"anything"),
        ("deflate", b"\xff\xff\xff\xff"),
    ],
)
def test_what_cannot_be_decoded_is_kept_as_it_was(coding: str, body: bytes) -> None:
    r = answer(body, f"Content-Encoding: {coding}")
    assert base64.b64decode(r["responsePayload"]) == body and r["responsePayloadEncoding"] == "base64"
    assert r["words"] == {"response_body_undecoded"}


@pytest.mark.parametrize(
    "bomb",
    [gzip.compress(b"0" * 50_000_000, mtime=0), brotli.compress(b"0" * 50_000_000), zstandard.compress(b"0" * 50_000_000)],
)
def test_bombs_are_bounded(bomb: bytes) -> None:
    coding = {0x1F: "gzip", 0x28: "zstd"}.get(bomb[0], "br")
    r = answer(bomb, f"Content-Encoding: {coding}")
    assert len(r["responsePayload"]) == 65536 and "response_body_cut" in r["words"]


def test_cut_gzip_shows_what_can_be_read() -> None:
    data = gzip.compress(bytes(i * 7 % 251 for i in range(50_000)).hex().encode())
    r = answer(data, "Content-Encoding: gzip", body_bytes=len(data) // 2)
    assert r["words"] == {"response_body_cut"} and r["responsePayload"].startswith("00070e15")


def test_binary_is_base64_and_text_is_never_mangled() -> None:
    r = answer(b"\xff\xfe\x00binary")
    assert base64.b64decode(r["responsePayload"]) == b"\xff\xfe\x00binary"
    assert answer('Zoë 漢字 😀\t"\\\x01'.encode())["responsePayload"] == 'Zoë 漢字 😀\t"\\\x01'


@pytest.mark.parametrize(
    "kind",
    [
        "image/png",
        "audio/mpeg",
        "video/mp4",
        "font/woff2",
        "application/octet-stream",
        "application/zip",
        "application/gzip",
    ],
)
def test_listed_binary_types_are_left_out(kind: str) -> None:
    r = answer(b"\x89PNG....", f"Content-Type: {kind}")
    assert (r["responsePayload"], r["responseSize"], r["words"]) == ("", "8", {"response_body_omitted"})


def test_charset_of_the_content_type() -> None:
    r = answer("Grüße".encode("latin-1"), "Content-Type: text/plain; charset=ISO-8859-1")
    assert r["responsePayload"] == "Grüße"
    r = answer("日本".encode("shift_jis"), 'Content-Type: text/html; charset="Shift_JIS"')
    assert r["responsePayload"] == "日本"
    assert answer(b"plain", "Content-Type: text/plain; charset=hex")["responsePayload"] == "plain"


def test_cut_inside_a_utf8_sequence_is_still_text() -> None:
    r = answer("ääää".encode(), body_bytes=5)
    assert r["responsePayload"] == "ää" and "responsePayloadEncoding" not in r


def test_header_bytes_that_are_not_utf8_are_latin1() -> None:
    c = Conversation().request(b"GET /\xe4 HTTP/1.1\r\nX: caf\xe9 \xc3\xa9\r\n\r\n").response(b"HTTP/1.1 204 No\r\n\r\n")
    r = c.records()[0]
    assert (r["request"]["X"], r["path"]) == ("café é", "/ä")


def test_record_stays_below_its_limit() -> None:
    body = b"\x01" * 60_000
    c = Conversation(record_bytes=200_000)
    c.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n" + body).response(
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + body
    )
    r = c.records()[0]
    assert len(json.dumps(r["responsePayload"])) < 200_000
    assert {"request_body_cut", "response_body_cut"} <= r["words"]


@given(st.binary(max_size=200))
def test_escapes_are_json_for_any_bytes(data: bytes) -> None:
    text = json_text.escape_text(data)
    try:
        expected = data.decode()
    except UnicodeDecodeError:
        assert text is None
    else:
        assert text is not None
        assert json.loads(b'"' + text + b'"') == expected
    text = json_text.escape_text(b"v" + data, True)
    assert text is not None
    twice = json.loads(b'"' + text + b'"')
    assert isinstance(json.loads('"' + twice + '"'), str)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON.filter(lambda v: isinstance(v, (list, dict))), st.data())
def test_json_cut_anywhere_is_closed_again(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    cut = text[: data.draw(st.integers(1, len(text)))]
    closed = json_text.close_json_text(cut)
    json.loads(closed)
    assert closed[:1] == text[:1] and closed[-1:] == {b"{": b"}", b"[": b"]"}[text[:1]]
