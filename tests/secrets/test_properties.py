"""Whatever the bytes of a body are and whatever it is said to be: the record comes, JSON stays JSON, what was redacted once
is not changed again, and with `strict` no value is shown.
"""

from __future__ import annotations

import base64
import json
import re
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.secrets.carriers import CODINGS
from tests.secrets.documents import DOCUMENTS, FORM, JSON
from tests.secrets.kinds import make
from tests.secrets.matrix import body_of
from tests.secrets.names import FIELDS, ORDINARY
from tests.secrets.running import CLIENT, PLAIN_ANSWER, PLAIN_REQUEST, SERVER, answered, asked, drained, play, policed
from tests.secrets.search import found

POLICY = st.sampled_from(["secrets", "strict"])
MEDIA = st.sampled_from(
    [
        "",
        JSON,
        FORM,
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "text/event-stream",
    ]
    + [
        "application/x-ndjson",
        "application/graphql",
        "application/grpc",
        "application/grpc-web-text",
        "application/connect+json",
    ]
    + ["text/html; charset=utf-16", "text/plain; charset=iso-8859-1", "application/octet-stream", "application/problem+json"]
)
# the beginnings and the middles of what is looked for
PIECE = st.sampled_from(
    [
        b'{"password":"',
        b'"',
        b"\\",
        b'\\"',
        b'":',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"password=",
        b"&",
        b"%",
        b"%25",
        b"%7B%22",
        b"=",
    ]
    + [
        b"eyJhbGciOiJIUzI1NiJ9.",
        b"-----BEGIN PRIVATE KEY-----",
        b"-----END PRIVATE KEY-----",
        b"4111111111111111",
        b"ghp_",
        b"sk-",
    ]
    + [
        b"DE89370400440532013000",
        b"<password>",
        b"</password>",
        b"<a b='",
        b"<![CDATA[",
        b"--b\r\n",
        b"--b--",
        b"\r\n\r\n",
        b"\n",
    ]
    + [
        b'Content-Disposition: form-data; name="token"',
        b"data: ",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xc3",
        b"\\u0070",
        b"\\ud83d",
    ]
    + [
        b"[redacted:password]",
        b"[redacted:",
        b"Bearer ",
        b"://a:b@",
        b"eyJwYXNzd29yZCI6ImEifQ==",
        b"null",
        b"-1.5e300",
        "пароль".encode(),
    ]
)
BODY = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(PIECE, st.binary(max_size=6)), max_size=40).map(b"".join),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=5),
            st.dictionaries(st.one_of(st.text(max_size=8), st.sampled_from(FIELDS)), inner, max_size=5),
        ),
        max_leaves=20,
    ).map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
)


def record(body: bytes, media: str, policy: str, *, answer: bool = True, key: bytes = b"", **how: Any) -> dict[str, Any]:
    """The one record of an exchange with this body, as request and as answer."""
    pipe = policed(policy, key, **how)
    coding = how.get("coding", "")
    said = [f"Content-Encoding: {coding}"] if coding else []
    calls = [(CLIENT, PLAIN_REQUEST), (SERVER, answered(body, media, *said))] if answer else []
    play(calls or [(CLIENT, asked(body, media, *said)), (SERVER, PLAIN_ANSWER)], pipe)
    records = drained(pipe)[1]
    counted = pipe.statistics()
    assert len(records) == 1 and counted["callback_errors"] == counted["records_dropped_size"] == 0, counted
    return records[0]


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return ...


def plain(shown: dict[str, Any], side: str) -> bytes:
    text = shown[f"{side}Payload"]
    return base64.b64decode(text) if f"{side}PayloadEncoding" in shown else text.encode()


@settings(max_examples=400)
@given(BODY, MEDIA, POLICY, st.booleans(), st.sampled_from([b"", b"k" * 32]))
def test_the_record_always_comes_and_json_stays_json(body: bytes, media: str, policy: str, answer: bool, key: bytes) -> None:
    side = "response" if answer else "request"
    before = record(body, media, "off", answer=answer)
    after = record(body, media, policy, answer=answer, key=key)
    assert before[f"{side}Size"] == after[f"{side}Size"]
    was, now = (parsed(one[f"{side}Payload"]) for one in (before, after))
    if isinstance(was, dict | list) or (was is not ... and media != FORM and f"{side}PayloadEncoding" not in before):
        assert now is not ..., after[f"{side}Payload"]
        assert type(now) is type(was) or not isinstance(was, (dict, list))


@settings(max_examples=300)
@given(BODY, MEDIA, st.booleans())
def test_what_was_redacted_is_not_changed_again(body: bytes, media: str, answer: bool) -> None:
    side = "response" if answer else "request"
    once = record(body, media, "secrets", answer=answer)
    if f"{side}Messages" in once:
        return
    in_utf8 = re.sub("charset=[a-z0-9-]+", "charset=utf-8", media)  # as records are
    again = record(plain(once, side), in_utf8, "secrets", answer=answer)
    if f"{side}PayloadEncoding" not in once:
        assert again[f"{side}Payload"] == once[f"{side}Payload"]


# ---- strict ----

# Values of upper-case letters and names of lower-case ones: what the collector itself writes has no run of such.
VALUE = st.text("ABCDEFGHJKLMNPQRSTUVWXYZ", min_size=4, max_size=30)
NAME = st.one_of(
    st.text(string.ascii_lowercase, min_size=1, max_size=8), st.sampled_from([n for n in ORDINARY if n.islower()])
)
TREE = st.recursive(
    VALUE, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAME, inner, max_size=4)), max_leaves=12
)


def runs(text: str) -> set[str]:
    return {text[at : at + 4] for at in range(len(text) - 3)}


def values(tree: Any) -> set[str]:
    if isinstance(tree, str):
        return runs(tree)
    return set().union(*(values(one) for one in (tree.values() if isinstance(tree, dict) else tree)))


def unseen(tree: Any, shown: dict[str, Any]) -> None:
    text = json.dumps(shown) + plain(shown, "request").decode("utf-8", "replace")
    hits = sorted(run for run in values(tree) if run in text)
    assert not hits, (hits, shown["requestPayload"])


@settings(max_examples=200)
@given(TREE, st.sampled_from([JSON, "text/plain", "", FORM, "application/x-ndjson"]), st.integers(0, 40))
def test_strict_shows_no_value_of_json(tree: Any, media: str, cut: int) -> None:
    body = json.dumps(tree).encode()
    unseen(tree, record(body, media, "strict", answer=False))
    unseen(tree, record(body[: max(1, len(body) - cut)], media, "strict", answer=False))


@settings(max_examples=200)
@given(st.dictionaries(NAME, VALUE, max_size=5), st.sampled_from(["form", "xml", "multipart", "lines", "query", "graphql"]))
def test_strict_shows_no_value_of_other_texts(tree: dict[str, str], form: str) -> None:
    parts = list(tree.items())
    media, text = {
        "form": (FORM, "&".join(f"{n}={v}" for n, v in parts)),
        "xml": ("text/xml", "<a>" + "".join(f"<{n} b='{v}'>{v}</{n}>" for n, v in parts) + "</a>"),
        "multipart": (
            "multipart/form-data; boundary=b",
            "".join(f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in parts) + "--b--\r\n",
        ),
        "lines": ("application/x-ndjson", "".join(json.dumps({n: v}) + "\n" for n, v in parts)),
        "query": ("text/plain", " ".join(f"{n}: {v}" for n, v in parts)),
        "graphql": (JSON, json.dumps({"query": "{ a(" + ", ".join(f'{n}: "{v}"' for n, v in parts) + ") }"})),
    }[form]
    unseen(tree, record(text.encode(), media, "strict", answer=False))


@settings(max_examples=100)
@given(st.lists(VALUE, min_size=1, max_size=4), st.sampled_from([*CODINGS, "unknown"]))
def test_strict_shows_nothing_of_what_it_cannot_read(texts: list[str], coding: str) -> None:
    """Said to be packed, and it is not; bytes that are no text."""
    body = b"\xff\0".join(text.encode() for text in texts)
    pipe = policed("strict")
    play([(CLIENT, asked(body, "text/plain", f"Content-Encoding: {coding}")), (SERVER, PLAIN_ANSWER)], pipe)
    (shown,) = drained(pipe)[1]
    unseen(texts, shown)


# ---- damage around a secret ----


@settings(max_examples=400)
@given(
    st.sampled_from(
        ["json", "json-other-name", "json-nested", "json-in-json", "form-other-name", "xml", "multipart-field", "text"]
    ),
    st.sampled_from(["jwt", "github-ghp", "stripe-sk", "card-visa", "iban-de", "slack-bot", "telegram", "vault", "jwe"]),
    st.lists(
        st.tuples(st.floats(0, 1), st.one_of(PIECE, st.just(b""), st.binary(max_size=3)), st.integers(0, 3)), max_size=6
    ),
    MEDIA,
    st.integers(0, 1000),
)
def test_a_damaged_text_still_hides_what_has_a_form(
    name: str, kind: str, damage: list[tuple[float, bytes, int]], media: str, seed: int
) -> None:
    secret = make(kind, seed)
    own, body = body_of(DOCUMENTS[name], secret, "note")
    text = secret.text.encode()
    before, _, after = body.partition(text)
    if found(before + after, secret):
        return  # it is there in another form too, which damage may hit
    edges = (before[-2:], after[:2])  # what is glued to it makes another word of it
    before, after = before[:-2], after[2:]
    for where, piece, gone in damage:
        side, at = (before, int(where * 2 * len(before))) if where < 0.5 else (after, int((where - 0.5) * 2 * len(after)))
        side = side[:at] + piece + side[at + gone :]
        before, after = (side, after) if where < 0.5 else (before, side)
    whole = before + edges[0] + text + edges[1] + after
    for said in (own, media):
        if said.startswith(("application/grpc", "application/connect", "text/html; charset=utf-16", "application/octet")):
            continue
        shown = record(whole, said, "secrets")
        assert not found(json.dumps(shown).encode(), secret), (said, whole, shown["responsePayload"])


@pytest.mark.parametrize("policy", ["secrets", "strict"])
@pytest.mark.parametrize("depth", [10, 1000, 20_000])
def test_depth_is_no_danger(policy: str, depth: int) -> None:
    for left, right in ((b"[", b"]"), (b'{"a":', b"}"), (b'{"password":', b"}"), (b"<a>", b"</a>")):
        shown = record(left * depth + b'"x"' + right * depth, JSON, policy)
        assert shown["responsePayload"] or (policy == "strict" and left == b"<a>")
