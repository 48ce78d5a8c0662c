"""What redaction leaves: JSON of the same shape, sizes as they were, equal values that can be told equal; and without it
nothing is different.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from collector.policy.model import BUILTIN
from tests.secrets.carriers import CARRIERS
from tests.secrets.documents import DOCUMENTS
from tests.secrets.heads import HEADS
from tests.secrets.kinds import FEW, KINDS, make
from tests.secrets.matrix import EVERYWHERE, body_cases, carrier_cases, document_cases, head_cases, some
from tests.secrets.running import JSON_TYPE, PLAIN_ANSWER, SERVER, asked, drained, play, policed, written
from tests.secrets.test_redaction import POLICIES

SAME = ("requestSize", "responseSize", "statusCode", "method", "type", "protocol", "recordId", "direction", "ip", "time")


def shape(value: Any) -> Any:
    """Keys, lengths of arrays, and where values are."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return None


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return ...


def payload(record: dict[str, Any], side: str) -> str:
    text: str = record[f"{side}Payload"]
    if record.get(f"{side}PayloadEncoding") == "base64" and f"{side}Messages" not in record:
        return base64.b64decode(text).decode("utf-8", "replace")
    return text


@POLICIES
@pytest.mark.parametrize(
    "name", [name for name in DOCUMENTS if name.startswith(("json", "graphql")) and name != "json-as-name"]
)
def test_json_keeps_its_shape(name: str, policy: str) -> None:
    for case in document_cases(DOCUMENTS[name], kinds=some(name)):
        _, (before,) = written(case.calls, "off")
        _, (after,) = written(case.calls, policy)
        for side in ("request", "response"):
            was = parsed(payload(before, side))
            if was is ...:
                continue
            now = parsed(payload(after, side))
            assert now is not ..., (str(case), payload(after, side)[:300])
            assert shape(now) == shape(was), (str(case), payload(after, side)[:300])


@POLICIES
@pytest.mark.parametrize("name", CARRIERS)
def test_facts_stay_as_they_were(name: str, policy: str) -> None:
    for case in carrier_cases(CARRIERS[name], kinds=some(name)):
        _, before = written(case.calls, "off", **case.settings)
        _, after = written(case.calls, policy, **case.settings)
        assert [[r[f] for f in SAME] for r in after] == [[r[f] for f in SAME] for r in before], str(case)
        for was, now in zip(before, after, strict=True):
            assert was.keys() <= now.keys() | {"requestPayloadEncoding", "responsePayloadEncoding"}, str(case)
            assert "redacted" not in was
            assert json.loads(now["requestHeaders"]).keys() == json.loads(was["requestHeaders"]).keys()
            assert json.loads(now["responseHeaders"]).keys() == json.loads(was["responseHeaders"]).keys()


@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_record_says_how_much_was_redacted(name: str) -> None:
    for case in body_cases(CARRIERS["request"], DOCUMENTS[name], FEW):
        _, (record,) = written(case.calls, "secrets")
        if "secrets" in case.due:
            assert int(record["redacted"]) >= 1, str(case)
            assert "[redacted:" in record["requestPayload"], str(case)


def test_nothing_to_redact_is_not_said() -> None:
    calls = [(True, asked(b'{"name":"ann","n":[1,2.5,null,true]}', JSON_TYPE)), (SERVER, PLAIN_ANSWER)]
    (output, (record,)), (plain, _) = written(calls, "secrets"), written(calls, "off")
    assert output == plain and "redacted" not in record


@pytest.mark.parametrize("group", ["heads", "documents", "carriers"])
def test_off_changes_no_byte(group: str) -> None:
    made = {
        "heads": lambda: (case for head in HEADS.values() for case in head_cases(head, some(head.name)[:3])),
        "documents": lambda: (
            case for one in DOCUMENTS.values() for case in body_cases(CARRIERS["response"], one, some(one.name)[:3])
        ),
        "carriers": lambda: (case for one in CARRIERS.values() for case in carrier_cases(one, kinds=some(one.name)[:3])),
    }[group]
    for case in made():
        assert written(case.calls, "off", **case.settings)[0] == written(case.calls, None, **case.settings)[0], str(case)


def test_a_policy_holds_from_then_on_and_off_again() -> None:
    secret = make("jwt", 1)
    calls = HEADS["x-api-key"].build(secret, "")
    pipe = policed("off")
    seen = []
    for policy in ("off", "secrets", "off", "strict", "secrets"):
        pipe.use_policy(BUILTIN[policy], b"")
        play(calls, pipe)
        seen.append(secret.text.encode() in drained(pipe)[0])
    assert seen == [True, False, True, False, False]


# ---- with a key ----


def shown(kind: str, seed: int, key: bytes, document: str = "json") -> str:
    """The text that stands for a secret of this kind."""
    secret = make(kind, seed)
    (case,) = body_cases(CARRIERS["request"], DOCUMENTS[document], (kind,), seed)
    _, (record,) = written(case.calls, "secrets", key)
    assert secret.text not in record["requestPayload"]
    text: str = record["requestPayload"]
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_key_equal_values_give_equal_texts(kind: str) -> None:
    one, other = b"k" * 32, b"l" * 32
    assert shown(kind, 1, one) == shown(kind, 1, one)
    assert shown(kind, 1, one) != shown(kind, 2, one), "two secrets look the same"
    assert shown(kind, 1, one) != shown(kind, 1, other), "the key does not count"
    assert shown(kind, 1, b"") == shown(kind, 2, b""), "without a key nothing tells them apart"


def test_with_a_key_a_value_is_the_same_wherever_it_stands() -> None:
    """In a header, in the query and in a body; by name, and by form."""
    key, secret = b"a key of some length, 32 or more", make("github-ghp", 3)
    marks = set()
    for calls in (
        HEADS["query"].build(secret, "access_token"),
        HEADS["x-api-key"].build(secret, ""),
        HEADS["authorization-Bearer"].build(secret, ""),
        HEADS["header-X-Custom"].build(secret, ""),
        HEADS["query-other-name"].build(secret, ""),
        *(case.calls for case in body_cases(CARRIERS["response"], DOCUMENTS["json-other-name"], ("github-ghp",), 3)),
        *(case.calls for case in body_cases(CARRIERS["response"], DOCUMENTS["form"], ("github-ghp",), 3)),
    ):
        output, _ = written(calls, "secrets", key)
        start = output.index(b"[redacted:")
        marks.add(output[start : output.index(b"]", start)].rpartition(b":")[2])
    assert len(marks) == 1, marks
