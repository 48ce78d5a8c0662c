"""Judges records by the truth, the marks and docs/records.md, and by nothing else.

A record is right when it says of one true exchange what is so, except for what its marks say is missing. What else there
is to a record is a `Problem`. A mark excuses the problems that it announces: `pairing_uncertain` that request and answer
do not belong together, but each of them has to be right by itself; `request_framing_uncertain` all that the record says of
the request, `response_framing_uncertain` of the response. A problem that is not excused is a failure, whatever other marks
the record has.
"""

from __future__ import annotations

import base64
import binascii
import json
import os.path
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.judge import play
from tests.judge.truth import MARKER, SERVER_BYTES, Conversation, Event, Exchange, Message

# What each word of doubt excuses, of: pair, request, response.
DOUBT = {
    "pairing_uncertain": frozenset({"pair"}),
    "request_framing_uncertain": frozenset({"pair", "request"}),
    "response_framing_uncertain": frozenset({"pair", "response"}),
    "ambiguous_framing": frozenset[str](),
}
FOREIGN = ("foreign", "invented")  # bytes that are not this message's
# What excuses a problem; if it is not here, the side that it is of. Whose a loss was is as doubtful as the pair.
_EXCUSE = {"pair": "pair", "loss": "pair", "address": ""}
# (direction: where the opening was not seen, what looks like a request says which side is traced)
_OF_THE_REQUEST = ("method", "path", "recordId", "startTimeMs", "direction")
_CLOSERS = re.compile(rb'"?[\]}]*')


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, of which part of a record: `pair`, `record`, or a field."""

    part: str
    what: str  # foreign, invented, pair, missing, gap, size, count, loss, mark, messages, address, time
    text: str = ""

    @property
    def excuse(self) -> str:
        """What a mark must name to excuse it; empty: nothing does."""
        if self.what in _EXCUSE:
            return _EXCUSE[self.what]
        where = self.text if self.part == "marks" else self.part
        if self.part in _OF_THE_REQUEST or where.startswith("request"):
            return "request"
        return "response" if where.startswith(("response", "status", "no_response")) else ""


@dataclass(slots=True)
class Verdict:
    """What a record is."""

    record: dict[str, Any]
    marks: dict[str, str]  # word: the rest
    request: Exchange | None = None  # whose request it shows
    response: Exchange | None = None
    problems: list[Problem] = field(default_factory=list)
    excused: list[Problem] = field(default_factory=list)
    unanswered: bool = False  # shows no answer, though all of it was there to be seen

    @property
    def doubt(self) -> bool:
        """Some mark says that the pair or the framing is in doubt."""
        return not self.marks.keys().isdisjoint(DOUBT)

    @property
    def outcome(self) -> str:
        """One word for the tables."""
        if self.problems:
            return "wrong_marked" if self.marks else "wrong_unmarked"
        if self.excused:
            return "wrong_in_doubt"
        if self.doubt:
            return "right_in_doubt"
        return "right_marked" if self.marks else "right_unmarked"

    @property
    def foreign(self) -> bool:
        """Foreign bytes in a field that no mark names."""
        return any(p.what in FOREIGN for p in self.problems)


@dataclass(slots=True)
class Account:
    """All that came of one conversation."""

    conversation: Conversation
    verdicts: list[Verdict]
    missing: list[Exchange] = field(default_factory=list)  # all of them was seen, and there is no record
    half_missing: list[Exchange] = field(default_factory=list)  # all of the request was seen, and there is no record
    twice: list[Verdict] = field(default_factory=list)  # further records of an exchange that has one
    ids: list[Verdict] = field(default_factory=list)  # a record's id, and another content

    @property
    def silently_missing(self) -> int:
        """Bytes of requests that were seen whole and are in no record, when no record of the connection is in doubt: they
        have to be counted as skipped. (With doubt, they may be what another record shows as its body.)"""
        if any(v.doubt for v in self.verdicts):
            return 0
        return sum(ex.request.end - ex.request.start for ex in self.missing + self.half_missing)

    @property
    def failures(self) -> list[str]:
        """One line for each thing that must not be."""
        out = []
        for v in self.verdicts:
            if v.problems:
                kinds = ", ".join(f"{p.part} {p.what}{': ' + p.text if p.text else ''}" for p in v.problems)
                out.append(
                    f"{v.outcome}: {v.record['method']} {v.record['path'][:60]} -> {v.record['status'][:60]!r}"
                    f" marks {v.record['marks']}: {kinds}"
                )
        out += [
            f"recorded twice: {v.record['method']} {v.record['path'][:60]} marks {v.record['marks']}" for v in self.twice
        ]
        out += [f"one recordId, two contents: {v.record['recordId']}" for v in self.ids]
        return out


def _covered(captured: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(a <= start and end <= b for a, b in captured)


def _uncovered(captured: list[tuple[int, int]], start: int, end: int) -> int:
    return end - start - sum(max(0, min(b, end) - max(a, start)) for a, b in captured)


class Judge:
    """Of one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.requests = {ex.request.owner: ex for ex in conversation.exchanges}
        self.answers = {ex.response.owner: ex for ex in conversation.exchanges if ex.response is not None}
        self.captured = conversation.captured(0), conversation.captured(1)
        asking, answering = play.ends_of(conversation)
        self.ends = f"{asking[0]}:{asking[1]}", f"{answering[0]}:{answering[1]}"
        self.end_seen = conversation.close in ("normal", "reset") or any(
            e.eof and e.sender == SERVER_BYTES for e in conversation.fed
        )

    # ---- single records ----

    def record(self, record: dict[str, Any]) -> Verdict:
        """The verdict on one record."""
        words: dict[str, str] = {}
        for mark in json.loads(record["marks"]):
            word, _, rest = mark.partition(":")
            words[word] = rest
        verdict = Verdict(record, words)
        found: list[Problem] = []
        self._request(verdict, found)
        self._answer(verdict, found)
        if verdict.request is not None and verdict.response is not None and verdict.request is not verdict.response:
            found.append(Problem("pair", "pair", f"exchange {verdict.request.number} and {verdict.response.number}"))
        if record["direction"] != ("2" if self.conversation.plan.client else "1"):
            found.append(Problem("direction", "messages", record["direction"]))
        for name, end in zip(("ip", "destIp"), self.ends, strict=True):
            if record[name] != end and (record[name] != "0.0.0.0:0" or "peer_unknown" not in words):
                found.append(Problem(name, "address", record[name]))
        for name, value in zip(("process_id", "socket_id"), play.process_of(self.conversation), strict=True):
            if record[name] != str(value):
                found.append(Problem(name, "address", f"{record[name]} instead of {value}"))
        excused = frozenset[str]().union(*(DOUBT.get(word, frozenset()) for word in words))
        for problem in found:
            (verdict.excused if problem.excuse in excused else verdict.problems).append(problem)
        return verdict

    def _request(self, verdict: Verdict, found: list[Problem]) -> None:
        record = verdict.record
        owner = MARKER.search(record["path"])
        ex = self.requests.get(owner[0]) if owner else None
        if ex is None:
            found.append(Problem("request", "invented", record["path"][:60]))
            return
        verdict.request = ex
        m = ex.request
        if record["method"] != m.method:
            found.append(Problem("method", "foreign", record["method"]))
        if record["path"] != m.target and not ("headers_cut" in verdict.marks and m.target.startswith(record["path"])):
            found.append(Problem("path", "foreign", record["path"]))
        self._headers(verdict, m, record["requestHeaders"], "requestHeaders", found)
        self._body(verdict, m, "request", found)
        if int(record["recordId"].split("-")[-1], 16) != m.start:
            found.append(Problem("recordId", "messages", record["recordId"]))
        began = next((e for e in self.conversation.fed if _holds(e, 0, m.start)), None)
        if began is not None and int(record["startTimeMs"]) != (play.BASE_NS + began.ns + play.WALL_NS) // 1_000_000:
            found.append(Problem("startTimeMs", "time", record["startTimeMs"]))

    def _answer(self, verdict: Verdict, found: list[Problem]) -> None:
        record = verdict.record
        if record["statusCode"] == "0":
            if "no_response" not in verdict.marks:
                found.append(Problem("marks", "mark", "no_response is missing"))
            if (record["status"], record["responseHeaders"], record["responsePayload"], record["responseSize"]) != (
                "",
                "{}",
                "",
                "0",
            ):
                found.append(Problem("response", "invented", "of no answer"))
            if verdict.request is not None:
                verdict.unanswered = self.answer_seen(verdict.request)
            return
        owner = MARKER.search(record["status"])
        ex = self.answers.get(owner[0]) if owner else None
        if ex is None or ex.response is None:
            found.append(Problem("response", "invented", record["status"][:60]))
            return
        verdict.response = ex
        m = ex.response
        if record["status"] != m.status or record["statusCode"] != m.status[:3]:
            found.append(Problem("status", "foreign", record["status"]))
        if "no_response" in verdict.marks:
            found.append(Problem("marks", "mark", "no_response, with one"))
        self._headers(verdict, m, record["responseHeaders"], "responseHeaders", found)
        self._body(verdict, m, "response", found)

    def _headers(self, verdict: Verdict, m: Message, text: str, part: str, found: list[Problem]) -> None:
        shown: dict[str, str] = json.loads(text)
        if shown == m.fields:
            return
        cut = "headers_cut" in verdict.marks
        for name, value in shown.items():
            expected = m.fields.get(name)
            if expected == value or (cut and ((expected or "").startswith(value))):
                continue
            found.append(Problem(part, "foreign", f"{name}: {value[:60]}"))
        if not cut and "headers_uncertain" not in verdict.marks:
            missing = m.fields.keys() - shown.keys()
            if missing:
                found.append(Problem(part, "missing", ", ".join(sorted(missing))))

    def _body(self, verdict: Verdict, m: Message, side: str, found: list[Problem]) -> None:
        record, marks = verdict.record, verdict.marks
        lost = marks.get(f"{side}_bytes_lost")
        cut = marks.get(f"{side}_body_cut")
        unended = (
            f"{side}_incomplete" in marks
            or "headers_cut" in marks
            or lost == ""
            or (m.until_close and "end_unseen" in marks)
        )
        # sizes
        size, true = int(record[f"{side}Size"]), len(m.coded)
        if size != true and (size > true or not unended):
            found.append(Problem(f"{side}Size", "size", f"{size} instead of {true}"))
        if lost:
            # a hole that reaches beyond the message counts as a whole: nobody knows where the message ended in it
            direction = 0 if m.request else 1
            most = _uncovered(self.captured[direction], m.start, self.conversation.sent[direction] if unended else m.end)
            if not 0 < int(lost) <= most:
                found.append(Problem("marks", "loss", f"{side}_bytes_lost:{lost} instead of at most {most}"))
        # bytes
        part = f"{side}Payload"
        data = record[part].encode()
        if record.get(f"{part}Encoding") == "base64":
            try:
                data = base64.b64decode(data, validate=True)
            except binascii.Error:
                found.append(Problem(part, "foreign", "no base64"))
                return
        whole = m.coded if f"{side}_body_undecoded" in marks else m.plain
        if f"{side}_body_omitted" in marks:
            if not m.omitted or data:
                found.append(Problem("marks", "mark", f"{side}_body_omitted"))
            return
        if data == whole:
            return
        short = unended or lost is not None or cut is not None
        if whole.startswith(data):
            if not short:
                found.append(Problem(part, "missing", f"{len(whole) - len(data)} bytes"))
            elif cut and lost is None and not unended and not m.coding and int(cut) != true - len(data):
                found.append(Problem("marks", "count", f"{side}_body_cut:{cut}"))
            return
        if m.closable and short:
            prefix = os.path.commonprefix((data, whole))
            if _CLOSERS.fullmatch(data[len(prefix) :]):
                return
        owners = set(MARKER.findall(data.decode("latin-1")))
        own = owners and owners <= set(MARKER.findall(whole.decode("latin-1")))
        found.append(Problem(part, "gap" if own else "foreign", repr(data[:80])))

    # ---- the conversation ----

    def answer_seen(self, ex: Exchange) -> bool:
        """All of the answer was given to the collector."""
        m = ex.response
        return m is not None and _covered(self.captured[1], m.start, m.end) and (not m.until_close or self.end_seen)

    def account(self, records: Iterable[dict[str, Any]]) -> Account:
        """The verdicts on all records of the conversation, and what is missing."""
        account = Account(self.conversation, [self.record(record) for record in records])
        recorded: set[int] = set()
        ids: dict[str, dict[str, Any]] = {}
        for v in account.verdicts:
            if v.request is not None:
                if v.request.number in recorded:
                    account.twice.append(v)
                recorded.add(v.request.number)
            if ids.setdefault(v.record["recordId"], v.record) != v.record:
                account.ids.append(v)
        for ex in self.conversation.exchanges:
            if ex.number not in recorded and _covered(self.captured[0], ex.request.start, ex.request.end):
                (account.missing if self.answer_seen(ex) else account.half_missing).append(ex)
        return account


def _holds(e: Event, sender: int, pos: int) -> bool:
    return e.sender == sender and e.pos <= pos < e.pos + len(e.data)


def judge_batch(batch: play.Batch, records: list[dict[str, Any]], only: frozenset[int] | None = None) -> list[Account]:
    """An account of each conversation of a batch, or of those that `only` names."""
    of: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        of.setdefault(int(record["recordId"].split("-")[-2], 16), []).append(record)
    accounts = []
    for c in batch.conversations:
        own = of.pop(play.connection_of(c)[0], [])
        if only is None or c.number in only:
            accounts.append(Judge(c).account(own))
    assert not of, f"records of no connection: {sorted(of)}"
    return accounts
