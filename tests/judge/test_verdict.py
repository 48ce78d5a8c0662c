"""The judge itself: it lets right records pass and catches every fault that is put into them."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.judge import generator, play
from tests.judge.report import Tally
from tests.judge.truth import Conversation, Plan
from tests.judge.verdict import Account, Judge, Verdict, judge_batch

Record = dict[str, Any]


@cache
def ordinary() -> tuple[Conversation, tuple[Record, ...]]:
    """Eight exchanges at depth 1 that nothing was done to, with bodies of all kinds, and their records. The records are
    the collector's; in a conversation as plain as this it makes no mistakes."""
    plan = Plan(client=True, flow="closed", depth=1, exchanges=12, pace="ms", damage=(), simple=True, heads=0)
    c = generator.conversation(Random("self-test/5"), 7, plan)
    batch = play.Batch(0, 0, {}, [c], False)
    records, _ = play.play(batch)
    assert len(records) == 12
    return c, tuple(records)


def fresh() -> tuple[Judge, list[Record]]:
    c, records = ordinary()
    return Judge(c), copy.deepcopy(list(records))


def marked(record: Record, *marks: str) -> Record:
    return {**record, "marks": json.dumps([*json.loads(record["marks"]), *marks])}


def body_of(records: list[Record], side: str) -> Record:
    """A record with a text body that is long enough to do something to."""
    return next(r for r in records if len(r[f"{side}Payload"]) > 60)


ANSWER = ("status", "statusCode", "responseHeaders", "responsePayload", "responseSize")


def swapped(records: list[Record]) -> Record:
    """The request of one exchange with the answer of the next."""
    return {**records[3], **{name: records[4][name] for name in ANSWER}}


def changed(record: Record, part: str, **fields: str | None) -> Record:
    """Header fields changed, added, or (None) removed."""
    headers = json.loads(record[part]) | fields
    return {**record, part: json.dumps({k: v for k, v in headers.items() if v is not None})}


def test_right_records_are_right() -> None:
    judge, records = fresh()
    account = judge.account(records)
    assert [v.outcome for v in account.verdicts] == ["right_unmarked"] * 12
    assert not account.failures and not account.missing and not account.half_missing


@pytest.mark.parametrize(
    ("marks", "outcome"),
    [
        ((), "wrong_unmarked"),
        (("joined_mid_stream",), "wrong_marked"),
        (("headers_cut",), "wrong_marked"),
        (
            (
                "request_bytes_lost",
                "response_bytes_lost",
                "request_incomplete",
                "response_incomplete",
                "evicted",
                "end_unseen",
                "joined_mid_stream",
                "headers_cut",
                "headers_uncertain",
                "peer_unknown",
            ),
            "wrong_marked",
        ),
        (("ambiguous_framing:start_line",), "wrong_marked"),
        (("pairing_uncertain",), "wrong_in_doubt"),
        (("request_framing_uncertain", "response_framing_uncertain"), "wrong_in_doubt"),
    ],
)
def test_an_answer_of_another_exchange(marks: tuple[str, ...], outcome: str) -> None:
    judge, records = fresh()
    verdict = judge.record(marked(swapped(records), *marks))
    assert verdict.outcome == outcome
    assert "pair" in {p.what for p in (*verdict.problems, *verdict.excused)}


FAULTS: dict[str, tuple[Callable[[list[Record]], Record], str, bool]] = {
    # name: (the record with the fault, what the judge has to call it, whether it is foreign bytes)
    "foreign bytes behind a body": (
        lambda rs: {**body_of(rs, "response"), "responsePayload": body_of(rs, "response")["responsePayload"] + "q7x9z"},
        "foreign",
        True,
    ),
    "framing in a body": (
        lambda rs: {**body_of(rs, "request"), "requestPayload": "1f\r\n" + body_of(rs, "request")["requestPayload"]},
        "gap",
        False,
    ),
    "a body of another message": (
        lambda rs: {**body_of(rs, "response"), "responsePayload": body_of(rs, "request")["requestPayload"]},
        "foreign",
        True,
    ),
    "bytes that nobody sent": (lambda rs: {**body_of(rs, "response"), "responsePayload": "nothing"}, "foreign", True),
    "a piece missing inside": (
        lambda rs: {
            **body_of(rs, "request"),
            "requestPayload": body_of(rs, "request")["requestPayload"][:20] + body_of(rs, "request")["requestPayload"][30:],
        },
        "gap",
        False,
    ),
    "the end of a body missing": (
        lambda rs: {**body_of(rs, "request"), "requestPayload": body_of(rs, "request")["requestPayload"][:-1]},
        "missing",
        False,
    ),
    "no body": (lambda rs: {**body_of(rs, "response"), "responsePayload": ""}, "missing", False),
    "a size too large": (lambda rs: {**rs[0], "responseSize": str(int(rs[0]["responseSize"]) + 1)}, "size", False),
    "a size too small": (
        lambda rs: {**body_of(rs, "request"), "requestSize": str(int(body_of(rs, "request")["requestSize"]) - 1)},
        "size",
        False,
    ),
    "broken base64": (lambda rs: {**rs[0], "responsePayload": "!", "responsePayloadEncoding": "base64"}, "foreign", True),
    "another method": (lambda rs: {**rs[0], "method": "PATCH"}, "foreign", True),
    "more behind the target": (lambda rs: {**rs[0], "path": rs[0]["path"] + "x"}, "foreign", True),
    "a forged request": (lambda rs: {**rs[0], "path": "/f7x0n0z"}, "invented", True),
    "a request of nobody": (lambda rs: {**rs[0], "path": "/"}, "invented", True),
    "a request of another conversation": (lambda rs: {**rs[0], "path": "/q8x0z/items?page=1"}, "invented", True),
    "an interim answer for the final one": (
        lambda rs: {**rs[0], "status": "103 i7x0z", "statusCode": "103"},
        "invented",
        True,
    ),
    "a forged answer": (lambda rs: {**rs[0], "status": "200 f7x0n0z"}, "invented", True),
    "another code": (lambda rs: {**rs[0], "statusCode": "500"}, "foreign", True),
    "a header of another message": (lambda rs: changed(rs[0], "requestHeaders", **{"X-Owner": "q7x1z"}), "foreign", True),
    "a header of nobody": (lambda rs: changed(rs[0], "responseHeaders", **{"X-More": "1"}), "foreign", True),
    "a trailer among the headers": (lambda rs: changed(rs[0], "responseHeaders", **{"X-Trailer": "t7x0z"}), "foreign", True),
    "a header missing": (lambda rs: changed(rs[0], "responseHeaders", **{"X-Owner": None}), "missing", False),
    "no answer, and no word of it": (
        lambda rs: {
            **rs[0],
            "status": "",
            "statusCode": "0",
            "responseHeaders": "{}",
            "responsePayload": "",
            "responseSize": "0",
        },
        "mark",
        False,
    ),
    "no answer, and its body": (
        lambda rs: marked(
            {
                **rs[0],
                "status": "",
                "statusCode": "0",
                "responseHeaders": "{}",
                "responsePayload": "hi",
                "responseSize": "2",
            },
            "no_response",
        ),
        "invented",
        True,
    ),
    "an answer that is there and is not": (lambda rs: marked(rs[0], "no_response"), "mark", False),
    "a body left out that is no binary one": (
        lambda rs: marked({**body_of(rs, "response"), "responsePayload": ""}, "response_body_omitted"),
        "mark",
        False,
    ),
    "bytes lost where none were": (lambda rs: marked(rs[0], "response_bytes_lost:10"), "loss", False),
    "a wrong count of bytes that are not shown": (
        lambda rs: marked(
            {**body_of(rs, "response"), "responsePayload": body_of(rs, "response")["responsePayload"][:-7]},
            "response_body_cut:8",
        ),
        "count",
        False,
    ),
    "another peer": (lambda rs: {**rs[0], "ip": rs[0]["destIp"]}, "address", False),
    "no peer, and no word of it": (lambda rs: {**rs[0], "destIp": "0.0.0.0:0"}, "address", False),
    "another process": (lambda rs: {**rs[0], "process_id": "1"}, "address", False),
    "another descriptor": (lambda rs: {**rs[0], "socket_id": "77"}, "address", False),
    "the other direction": (lambda rs: {**rs[0], "direction": "1"}, "messages", False),
    "another time": (lambda rs: {**rs[0], "startTimeMs": str(int(rs[0]["startTimeMs"]) + 1)}, "time", False),
    "another position": (lambda rs: {**rs[0], "recordId": rs[1]["recordId"]}, "messages", False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_caught(name: str) -> None:
    plant, what, foreign = FAULTS[name]
    judge, records = fresh()
    record = plant(records)
    verdict = judge.record(record)
    assert what in {p.what for p in verdict.problems}
    assert verdict.outcome in ("wrong_unmarked", "wrong_marked")
    assert verdict.foreign == foreign
    account = Account(judge.conversation, [verdict])
    assert len(account.failures) == 1

    # doubt about the pair is no excuse for a side that is wrong by itself; doubt about the framing excuses both messages
    doubted = judge.record(marked(record, "pairing_uncertain"))
    assert doubted.outcome == ("wrong_in_doubt" if what == "loss" else "wrong_marked")
    doubted = judge.record(marked(record, "request_framing_uncertain", "response_framing_uncertain"))
    assert doubted.outcome == ("wrong_marked" if not all(p.excuse for p in verdict.problems) else "wrong_in_doubt")


@pytest.mark.parametrize("side", ["request", "response"])
def test_what_marks_allow(side: str) -> None:
    judge, records = fresh()
    record = body_of(records, side)
    payload, size = record[f"{side}Payload"], int(record[f"{side}Size"])
    prefix = {**record, f"{side}Payload": payload[:20]}
    shorter = {**prefix, f"{side}Size": "20"}
    right, wrong = "right_marked", "wrong_marked"

    def outcome(r: Record, *marks: str) -> str:
        return judge.record(marked(r, *marks)).outcome

    assert outcome(prefix, f"{side}_body_cut:{size - 20}") == right
    assert outcome(prefix, f"{side}_body_cut:{size - 21}") == wrong
    assert outcome(shorter, f"{side}_body_cut:{size - 20}") == wrong  # the size is true
    assert outcome(prefix, f"{side}_incomplete") == right
    assert outcome(shorter, f"{side}_incomplete") == right
    assert outcome(shorter, f"{side}_bytes_lost") == right
    assert outcome({**record, f"{side}Size": str(size + 1)}, f"{side}_incomplete") == wrong
    other = "response" if side == "request" else "request"
    assert outcome(prefix, f"{other}_incomplete") == wrong
    assert outcome(prefix, "end_unseen") == wrong  # no answer until the connection's end
    assert outcome(prefix, "joined_mid_stream") == wrong
    assert outcome({**shorter, f"{side}Payload": "", f"{side}Size": "0"}, "headers_cut") == right
    assert outcome(changed(record, f"{side}Headers", **{"X-Owner": None}), "headers_cut") == right
    in_base64 = {f"{side}Payload": base64.b64encode(payload.encode()).decode(), f"{side}PayloadEncoding": "base64"}
    assert outcome({**record, **in_base64}) == "right_unmarked"


def test_no_peer_with_its_mark_is_right() -> None:
    judge, records = fresh()
    assert judge.record(marked({**records[0], "ip": "0.0.0.0:0"}, "peer_unknown")).outcome == "right_marked"


def test_doubt_about_what_is_right_is_counted() -> None:
    judge, records = fresh()
    for word in ("pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain", "ambiguous_framing:nul"):
        assert judge.record(marked(records[0], word)).outcome == "right_in_doubt"
    assert judge.record(marked(records[0], "end_unseen")).outcome == "right_marked"


def test_what_is_not_there_is_missed() -> None:
    judge, records = fresh()
    account = judge.account(records[:4] + records[5:])
    assert [ex.number for ex in account.missing] == [4]
    no_answer = {
        **records[4],
        "status": "",
        "statusCode": "0",
        "responseHeaders": "{}",
        "responsePayload": "",
        "responseSize": "0",
    }
    assert judge.record(marked(no_answer, "no_response")).unanswered


def test_records_of_one_exchange_and_their_ids() -> None:
    judge, records = fresh()
    copied = judge.account([*records, records[2]])
    assert len(copied.twice) == 1 and not copied.ids
    double = {**records[3], "recordId": records[2]["recordId"]}
    assert len(judge.account([records[2], double]).ids) == 1


@given(
    st.integers(0, 11),
    st.integers(0, 11),
    st.sampled_from(
        (
            "method",
            "path",
            "requestHeaders",
            "requestPayload",
            "requestSize",
            "status",
            "statusCode",
            "responseHeaders",
            "responsePayload",
            "responseSize",
            "startTimeMs",
            "recordId",
        )
    ),
)
def test_no_field_can_come_from_another_record(one: int, two: int, name: str) -> None:
    judge, records = fresh()
    assume(records[one][name] != records[two][name])
    verdict = judge.record({**records[one], name: records[two][name]})
    assert verdict.outcome == "wrong_unmarked"


@given(st.integers(0, 11), st.sampled_from(("requestPayload", "responsePayload")), st.data())
def test_no_byte_of_a_body_can_change(one: int, name: str, data: st.DataObject) -> None:
    judge, records = fresh()
    body = records[one][name]
    at = data.draw(st.integers(0, len(body)))
    before = data.draw(st.integers(0, len(body) - at))
    put = data.draw(st.text(max_size=12))
    other = body[:at] + put + body[at + before :]
    assume(other != body)
    assert judge.record({**records[one], name: other}).outcome == "wrong_unmarked"


def test_marks_that_are_dropped_are_missed() -> None:
    """Of a damaged batch, every record that has to have its mark."""
    batch = play.make_batch(3, 1, ("lost", "size_only", "tail"))
    records, _ = play.play(batch)
    caught = dict.fromkeys(
        ("no_response", "headers_cut", "response_incomplete", "request_incomplete", "response_body_cut", "request_body_cut"),
        0,
    )
    for word in caught:
        for c, own in of_conversations(batch, records):
            for record in own:
                before = Judge(c).record(record)
                if word not in before.marks or before.problems or before.excused:
                    continue
                rest = [m for m in json.loads(record["marks"]) if m.partition(":")[0] != word]
                caught[word] += bool(Judge(c).record({**record, "marks": json.dumps(rest)}).problems)
    assert min(caught.values()) > 0, caught


def of_conversations(batch: play.Batch, records: list[Record]) -> list[tuple[Conversation, list[Record]]]:
    return [(a.conversation, [v.record for v in a.verdicts]) for a in judge_batch(batch, records)]


def test_the_tally_counts_failures_and_what_nobody_counted() -> None:
    judge, records = fresh()
    batch = play.Batch(9, 4, {}, [judge.conversation], False)
    tally = Tally()
    tally.add_batch(batch, [judge.account([swapped(records), *records[5:]])], {"skipped_bytes": 10})
    assert tally.total["wrong_unmarked"] == 1 and tally.total["failures"] == 1
    assert tally.total["missing"] == 4
    assert tally.uncounted[0][0] == "batch 4" and tally.failures == 2
    twin = Tally()
    twin.add_batch(batch, [judge.account([records[6]])], {"skipped_bytes": 10**6})
    assert not twin.uncounted and not twin.failures
    tally.merge(twin)
    assert tally.total["ids"] == 1 and tally.failures == 3  # the same id, in another batch
    text = tally.as_text("scripts/judge --seed 9", 5)
    assert "scripts/judge --seed 9 --only 7\n" in text and "3 failures in 2 conversations, 9 records" in text
    assert json.loads(json.dumps(tally.as_json()))["failures"] == 3


def test_verdicts_name_whose_message_it_is() -> None:
    judge, records = fresh()
    verdict: Verdict = judge.record(swapped(records))
    assert verdict.request is not None and verdict.response is not None
    assert (verdict.request.number, verdict.response.number) == (3, 4)
