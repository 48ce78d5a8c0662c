"""The rules of a policy against the plainest reading of them: whichever moment decides, the first that fits does."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from collector.policy import reading
from collector.shards import globs
from tests.events import Conversation

PATHS = ["/", "/a", "/a/b", "/b", "/a%2Fb", "/%61"]
HOSTS = ["a.x", "b.x", "A.X:80"]
STATUSES = [200, 204, 404, 500]
MEDIA = ["text/html", "image/png", "image/png; q=1", ""]

_LISTS = {
    "paths": st.sampled_from(["*", "/a", "/a*", "*b", "/*/*", "/b"]),
    "hosts": st.sampled_from(["*", "a.x", "*.x", "b*"]),
    "methods": st.sampled_from(["GET", "POST"]),
    "statuses": st.sampled_from([200, "2xx", "404-500", 0]),
    "contentTypes": st.sampled_from(["*", "image/*", "text/html"]),
    "processes": st.sampled_from(["server", "s*", "other"]),
    "addresses": st.sampled_from(["10.0.0.1", "10.0.0.2/31", "192.168.0.0/16"]),
    "directions": st.sampled_from(["inbound", "outbound"]),
}
MATCHES = st.dictionaries(st.sampled_from(sorted(_LISTS)), st.none(), min_size=1, max_size=3).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.lists(_LISTS[key], min_size=1, max_size=2) for key in keys})
)
RULES = st.lists(st.tuples(st.booleans(), MATCHES), max_size=5)
EXCHANGES = st.lists(
    st.tuples(
        st.sampled_from(["GET", "POST"]),
        st.sampled_from(PATHS),
        st.sampled_from(HOSTS),
        st.sampled_from(STATUSES),
        st.sampled_from(MEDIA),
    ),
    min_size=1,
    max_size=4,
)


def like(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def of_status(wanted: int | str, status: int) -> bool:
    if wanted == "2xx":
        return 200 <= status < 300
    if wanted == "404-500":
        return 404 <= status <= 500
    return wanted == status


def fits(match: dict, method: str, path: str, host: str, status: int, media: str) -> bool:
    asked = {
        "paths": lambda one: like(one, path.replace("%61", "a")),
        "hosts": lambda one: like(one, host.lower().removesuffix(":80")),
        "methods": lambda one: one == method,
        "statuses": lambda one: of_status(one, status),
        "contentTypes": lambda one: like(one, media.partition(";")[0]),
        "processes": lambda one: like(one, "server"),
        "addresses": lambda one: one != "192.168.0.0/16",
        "directions": lambda one: one == "inbound",
    }
    return all(any(asked[key](one) for one in values) for key, values in match.items())


def yaml_of(rules: list) -> bytes:
    listed = [{"include" if include else "exclude": match} for include, match in rules]
    return json.dumps({"version": 1, "rules": listed}).encode()


@given(RULES, EXCHANGES, st.booleans())
def test_the_first_rule_that_fits_decides(rules: list, exchanges: list, late: bool) -> None:
    """``late``: the policy comes when the requests have been read."""
    c = Conversation()
    policy = reading.read(yaml_of(rules), "p.yaml")
    if not late:
        c.pipe.use_policy(policy)
    for method, path, host, _status, _media in exchanges:
        c.request(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
    if late:
        c.pipe.use_policy(policy)
    for _method, _path, _host, status, media in exchanges:
        head = f"Content-Type: {media}\r\n" if media else ""
        c.response(f"HTTP/1.1 {status} X\r\n{head}".encode() + (b"\r\n" if status == 204 else b"Content-Length: 1\r\n\r\nx"))
    expected = []
    for exchange in exchanges:
        decisions = [include for include, match in rules if fits(match, *exchange)]
        if not decisions or decisions[0]:
            expected.append((exchange[0], exchange[1], str(exchange[3])))
    assert [(r["method"], r["path"], r["statusCode"]) for r in c.records()] == expected
    assert c.counters()["filtered_policy"] == len(exchanges) - len(expected)
    assert c.counters()["filtered_policy_doubt"] == 0 and c.counters()["queued_exchanges"] == 0


@given(st.text(st.sampled_from("ab*"), max_size=8), st.text(st.sampled_from("ab"), max_size=12))
def test_globs(pattern: str, text: str) -> None:
    assert globs.matches(pattern.encode(), text.encode()) is like(pattern, text)
