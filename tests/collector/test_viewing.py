"""What viewers and the collector say to each other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import viewing
from collector.errors import ProtocolError
from collector.viewing import Request


def test_a_request_survives_its_journey() -> None:
    request = Request(whole=True, host="a.*", path="/x?y", process="12", status=("5xx", "0"), direction=2)
    assert Request.from_message(json.loads(json.dumps(request.to_message()))) == request


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(status=("6xx",)), "6xx"),
        (Request(status=("",)), "''"),
        (Request(status=("2x",)), "2x"),
        (Request(direction=3), "inbound or outbound"),
        (Request(host="x" * 201), "host: longer"),
        (Request(path='"' * 101), "path: longer"),  # as it is held against escaped text
    ],
)
def test_what_no_shard_can_go_by_is_refused(request_: Request, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        request_.check()


def test_codes_and_classes() -> None:
    codes = Request(status=("5xx", "404", "0")).codes()
    assert len(codes) == 1000 and [code for code in range(1000) if codes[code]] == [0, 404, *range(500, 600)]
    assert Request().codes() == b""


@given(st.text(max_size=40))
def test_a_pattern_is_escaped_like_the_text_that_it_is_held_against(text: str) -> None:
    assert json.loads(b'"' + viewing.pattern(text) + b'"') == text


@given(st.binary(max_size=200))
def test_a_message_is_read_as_it_was_written(body: bytes) -> None:
    assert viewing.unpack(viewing.pack({"shard": 3}, body)) == ({"shard": 3}, body)


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_message_or_refused(data: bytes) -> None:
    try:
        head, _body = viewing.unpack(data)
    except ProtocolError:
        return
    assert isinstance(head, dict)
