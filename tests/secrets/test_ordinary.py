"""Ordinary values stay as they are: at most one in a thousand is taken for a secret by mistake."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from tests.events import Conversation
from tests.secrets import ordinary
from tests.secrets.documents import FORM, JSON
from tests.secrets.running import PLAIN_ANSWER, answered, asked, drained, head, play, policed

MOST = 1 / 1000


class Count:
    """Values, and those that were redacted by mistake."""

    def __init__(self) -> None:
        self.values = 0
        self.by_mistake: list[str] = []

    def add(self, path: tuple[str, ...], before: Any, after: Any) -> None:
        self.values += 1
        if before != after and ordinary.counts(path, str(before)):
            self.by_mistake.append(f"{'/'.join(path)}: {str(before)[:80]!r} became {str(after)[:80]!r}")

    def check(self, least: int) -> None:
        print(f"{len(self.by_mistake)} of {self.values}", *self.by_mistake, sep="\n")  # noqa: T201 - pytest -s shows it
        assert self.values >= least
        assert len(self.by_mistake) <= self.values * MOST, "\n".join(self.by_mistake)


def records(calls: Iterable[tuple[bool, bytes]]) -> list[dict[str, Any]]:
    """With `secrets`, one connection each two calls."""
    pipe = policed("secrets")
    out = []
    for asks, data in calls:
        play([(True, data), (False, PLAIN_ANSWER)] if asks else [(True, asked(method="GET")), (False, data)], pipe)
        out += drained(pipe)[1]
    return out


def check_bodies(bodies: list[Any], least: int) -> None:
    count = Count()
    texts = [json.dumps(body).encode() for body in bodies]
    calls = [(n % 2 == 0, (asked if n % 2 == 0 else answered)(text, JSON)) for n, text in enumerate(texts)]
    for n, (record, text) in enumerate(zip(records(calls), texts, strict=True)):
        shown = json.loads(record["responsePayload" if n % 2 else "requestPayload"])
        for (path, before), (_, after) in zip(ordinary.leaves(json.loads(text)), ordinary.leaves(shown), strict=True):
            count.add(path, before, after)
    count.check(least)


def test_json_of_examples(corpora: Path) -> None:
    check_bodies(list(ordinary.json_bodies(corpora)), 3000)


def test_json_with_names_that_look_like_others() -> None:
    check_bodies(list(ordinary.made_bodies(Random(2), 2500)), 20_000)


def test_forms_of_examples(corpora: Path) -> None:
    from urllib.parse import parse_qsl, urlencode

    count = Count()
    forms = list(ordinary.forms(corpora))
    for record, form in zip(records((True, asked(urlencode(f).encode(), FORM)) for f in forms), forms, strict=True):
        shown = dict(parse_qsl(record["requestPayload"], keep_blank_values=True))
        for name, value in form.items():
            count.add((name,), value, shown.get(name))
    count.check(1500)


def test_targets(corpora: Path) -> None:
    from urllib.parse import parse_qsl

    count = Count()
    targets = [*ordinary.targets(corpora), *ordinary.header_targets(corpora)]
    for record, target in zip(records((True, asked(method="GET", target=t)) for t in targets), targets, strict=True):
        path, _, query = target.partition("?")
        shown_path, _, shown_query = record["path"].partition("?")
        for before, after in zip(path.split("/"), shown_path.split("/"), strict=True):
            count.add((), before, after)
        shown = parse_qsl(shown_query, keep_blank_values=True)
        for (name, before), (_, after) in zip(parse_qsl(query, keep_blank_values=True), shown, strict=True):
            count.add((name,), before, after)
    count.check(10_000)


def test_headers_of_browsers(corpora: Path) -> None:
    count = Count()
    lists = [[(n, v) for n, v in fields if n != "content-length"] for fields in ordinary.header_lists(corpora)]
    for fields in lists:
        pipe = policed("secrets")
        wire = head("GET / HTTP/1.1", *(f"{name}: {value}" for name, value in fields))
        play([(True, wire), (False, PLAIN_ANSWER)], pipe)
        (record,) = drained(pipe)[1]
        plain = Conversation()
        plain.request(wire).response(PLAIN_ANSWER).close()
        shown, (before,) = json.loads(record["requestHeaders"]), plain.records()
        for name, value in before["request"].items():
            count.add((name,), value, shown.get(name))
    count.check(5000)
