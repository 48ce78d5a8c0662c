"""Every name that says that its value is a secret, in every place that has names; and those that only look like one."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable

import pytest

from tests.secrets.documents import FORM, JSON, dumps, escaped
from tests.secrets.names import FIELDS, HEADERS, ORDINARY, PASSWORDS, PERSONAL, TOKENS
from tests.secrets.running import CLIENT, PLAIN_ANSWER, SERVER, Calls, asked, written

VALUE = "q7Zr2KpX9w"
quote = urllib.parse.quote


def body(text: str, kind: str) -> Calls:
    return [(CLIENT, asked(text.encode(), kind)), (SERVER, PLAIN_ANSWER)]


def target(text: str) -> Calls:
    return [(CLIENT, asked(method="GET", target=text)), (SERVER, PLAIN_ANSWER)]


def header(name: str, value: str) -> Calls:
    return [(CLIENT, asked(b"{}", JSON, f"{name}: {value}")), (SERVER, PLAIN_ANSWER)]


def camel(name: str) -> str:
    first, *rest = name.replace("-", "_").split("_")
    return first.lower() + "".join(part.capitalize() for part in rest)


WAYS: dict[str, Callable[[str, str], Calls]] = {
    "json": lambda n, v: body(dumps({"a": 1, n: v}), JSON),
    "json, upper case": lambda n, v: body(dumps({n.upper(): v}), JSON),
    "json, camel case": lambda n, v: body(dumps({camel(n): v}), JSON),
    "json, escaped": lambda n, v: body(f'{{"{escaped(n)}": "{v}"}}', JSON),
    "json, below others": lambda n, v: body(dumps({"a": [{"b": {n: v}}]}), JSON),
    "json, of a user": lambda n, v: body(dumps({f"user_{n}": v}), JSON),
    "json, as text": lambda n, v: body(dumps({n: v}), "text/plain"),
    "form": lambda n, v: body(f"a=1&{quote(n)}={v}", FORM),
    "query": lambda n, v: target(f"/x?a=1&{quote(n)}={v}"),
    "query, after a slash": lambda n, v: target(f"/x/?{quote(n)}={v}#a"),
    "multipart": lambda n, v: body(
        f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n--b--\r\n', "multipart/form-data; boundary=b"
    ),
    "xml": lambda n, v: body(f"<a><{n}>{v}</{n}></a>", "text/xml"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_field_by_its_name(way: str) -> None:
    names = (*PASSWORDS, *TOKENS) if "of a user" in way else FIELDS
    shown = [name for name in names if VALUE.encode() in written(WAYS[way](name, VALUE), "secrets")[0]]
    assert not shown, shown


def test_a_header_by_its_name() -> None:
    shown = [name for name in HEADERS if VALUE.encode() in written(header(name, f"Bearer {VALUE}"), "secrets")[0]]
    shown += [name for name in HEADERS if VALUE.encode() in written(header(name.lower(), VALUE), "secrets")[0]]
    assert not shown, shown


@pytest.mark.parametrize("value", ["4829137", "482913", "9", "-12"])
def test_short_values_and_numbers_of_what_a_person_keeps(value: str) -> None:
    """A one-time code, a PIN, the number at the back of a card, as text and as a number."""
    numbers = [n for n in PERSONAL if n.lower() not in ("sid", "jsessionid", "phpsessid") and "session" not in n.lower()]
    for name in numbers:
        for text in (dumps({name: value}), f'{{"{name}": {value}}}'):
            _, (record,) = written(body(text, JSON), "secrets")
            assert json.loads(record["requestPayload"])[name] not in (value, int(value)), (name, text)
        _, (record,) = written(target(f"/x?{name}={value}"), "secrets")
        assert f"={value}" not in record["path"], name


@pytest.mark.parametrize("way", [way for way in WAYS if "of a user" not in way])
def test_ordinary_names_are_left_alone(way: str) -> None:
    changed = [name for name in ORDINARY if VALUE.encode() not in written(WAYS[way](name, VALUE), "secrets")[0]]
    assert not changed, changed


@pytest.mark.parametrize("value", ["", "null", "true", "{}", "[]", '""'])
def test_what_holds_nothing_stays_json(value: str) -> None:
    for name in ("password", "access_token", "cookie"):
        text = f'{{"{name}": {value or 0}, "b": 2}}'
        _, (record,) = written(body(text, JSON), "secrets")
        shown = json.loads(record["requestPayload"])
        assert shown.keys() == {name, "b"} and shown["b"] == 2, record["requestPayload"]
