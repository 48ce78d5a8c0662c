"""Paths with their identifiers folded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.eyes.folding import folded


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/users/7", "/users/{id}"),
        ("/users/7/orders/8/", "/users/{id}/orders/{id}/"),
        ("/", "/"),
        ("", ""),
        ("*", "*"),
        ("/a?b=/7", "/a"),
        ("http://h.example:80/12?z", "/{id}"),
        ("http://h.example", ""),
        ("h.example:443", "h.example:443"),
        ("/550e8400-e29b-41d4-a716-446655440000", "/{id}"),
        ("/deadbeefdeadbeef0", "/{id}"),
        ("/feedfacefeedface", "/feedfacefeedface"),
        ("/AbC9dEf8GhI7jKl6MnO5p", "/{id}"),
        ("/v1/oauth2/base64", "/v1/oauth2/base64"),
        ("/a-long-readable-slug-of-2024", "/{id}"),
        ("//7", "//{id}"),
    ],
)
def test_forms(path: str, form: str) -> None:
    assert folded(path.encode()) == form.encode()


@given(st.text(max_size=60), st.integers(0, 80))
def test_it_is_bounded_and_divides_no_character_nor_escape(path: str, most: int) -> None:
    out = folded(json.dumps(path, ensure_ascii=False)[1:-1].encode("utf-8", "replace"), most)
    assert len(out) <= most
    json.loads(b'"' + out + b'"')


@given(st.binary(max_size=100), st.integers(0, 256))
def test_any_bytes_do_no_harm(path: bytes, most: int) -> None:
    assert len(folded(path, most)) <= most
