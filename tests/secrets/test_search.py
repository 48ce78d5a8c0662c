"""The search itself, before it is believed: without a policy it finds every secret at every place."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.parse
from collections.abc import Callable

import pytest

from tests.secrets.carriers import CARRIERS
from tests.secrets.documents import DOCUMENTS, escaped
from tests.secrets.heads import HEADS
from tests.secrets.kinds import CARDS, FEW, IBANS, KINDS, RUN, card_number, grouped, iban, luhn, make
from tests.secrets.matrix import carrier_cases, document_cases, head_cases, some
from tests.secrets.running import written
from tests.secrets.search import found, needles

FORMS: dict[str, Callable[[str], bytes]] = {
    "itself": str.encode,
    "url-encoded": lambda text: urllib.parse.quote(text, "").encode(),
    "url-encoded twice": lambda text: urllib.parse.quote(urllib.parse.quote(text, ""), "").encode(),
    "escaped": lambda text: json.dumps(text).encode(),
    "escaped twice": lambda text: json.dumps(json.dumps(text)).encode(),
    "all escaped": lambda text: escaped(text).encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64url, unpadded": lambda text: base64.urlsafe_b64encode(text.encode()).rstrip(b"="),
    "hex": lambda text: text.encode().hex().encode(),
    "HEX": lambda text: text.encode().hex().upper().encode(),
    "UTF-16": lambda text: text.encode("utf-16-le"),
    "UTF-16 in base64": lambda text: base64.b64encode(text.encode("utf-16-be")),
    "gzip in base64": lambda text: base64.b64encode(gzip.compress(text.encode())),
    "JSON in base64": lambda text: base64.b64encode(json.dumps({"a": text}).encode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_at_every_place_of_a_text(form: str) -> None:
    for kind in (*FEW, *some(form)):
        secret = make(kind, "form")
        if "UTF-16" in form and kind in ("password-wide", "password-latin"):
            continue  # nothing tells that it is text
        for before in (b"", b"a", b"ab", b"abc", b" "):
            data = b'{"payload":"' + before + FORMS[form](secret.text) + b'"}'
            assert found(data, secret), (kind, form, before)
            assert not found(data, make(kind, "another one")), (kind, form)


def test_a_run_of_eight_is_found_and_one_of_seven_is_not() -> None:
    secret = make("token-hex", 1)
    for at in range(len(secret.text) - RUN):
        assert found(b"[" + secret.text[at : at + RUN].encode() + b"]", secret)
        assert not found(b"[" + secret.text[at : at + RUN - 1].encode() + b"]", secret)


def test_numbers_have_their_check_digits() -> None:
    assert luhn("7992739871") == "3"  # ISO/IEC 7812-1 annex B has the method
    from random import Random

    rng = Random(1)
    for prefix, size in CARDS.values():
        number = card_number(rng, prefix, size)
        assert len(number) == size and luhn(number[:-1]) == number[-1]
    assert grouped("123456789012345", " ") == "1234 567890 12345"
    for country in IBANS:
        number = iban(rng, country)
        assert int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1


def test_a_seed_makes_the_same_secrets_again() -> None:
    for kind in KINDS:
        assert make(kind, 5) == make(kind, 5) != make(kind, 6)
        assert needles(make(kind, 5)) and not set(needles(make(kind, 5))) & set(needles(make(kind, 6)))


def unseen(cases) -> list[str]:
    return [str(case) for case in cases if not found(written(case.calls, None, **case.settings)[0], case.secret)]


@pytest.mark.parametrize("name", [name for name, head in HEADS.items() if head.recorded])
def test_without_a_policy_heads_show_every_secret(name: str) -> None:
    assert not unseen(head_cases(HEADS[name], some(name)))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_without_a_policy_bodies_show_every_secret(name: str) -> None:
    assert not unseen(document_cases(DOCUMENTS[name], kinds=some(name)))


@pytest.mark.parametrize("name", CARRIERS)
def test_without_a_policy_every_carrier_shows_every_secret(name: str) -> None:
    shown = [
        case
        for case in carrier_cases(CARRIERS[name], kinds=some(name))
        if name != "http-0-9" or case.body[:1] in (b"{", b"<")
    ]
    assert shown and not unseen(shown)
