"""A recording that is redacted: its file holds no secret that the records do not hold, in clear or in any coding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recorded import Recorded, comparable, replayed
from tests.secrets.carriers import CARRIERS
from tests.secrets.documents import DOCUMENTS
from tests.secrets.heads import HEADS
from tests.secrets.matrix import Case, carrier_cases, document_cases, head_cases, some
from tests.secrets.running import play, policed
from tests.secrets.search import found
from tests.secrets.test_redaction import POLICIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# A body that is left out comes back as one that was cut, of which nothing is known; its bytes have no times.
OF_THE_OMITTED = ("marks", "durationMs", "requestPayloadEncoding", "responsePayloadEncoding")
WITH_DESCRIPTORS = ("requestMessagesJson", "responseMessagesJson", "requestMessages", "responseMessages")


def few(place: str) -> list[str]:
    """Kinds of secrets for a place: that redaction finds all of them is tried elsewhere."""
    return some(place)[:2]


def recorded(case: Case, policy: str, path: Path) -> tuple[bytes, list[dict[str, Any]], Recorded]:
    """(the bytes of the file, the records that it was made of, the file)."""
    pipe = policed(policy, **case.settings)
    play(case.calls, pipe)
    pipe.close_all()
    file = Recorded(path)
    records = file.take(pipe)
    file.close()
    return path.read_bytes(), records, file


def check(cases: Iterator[Case], policy: str, path: Path) -> set[str]:
    """Why some of them are not in the file."""
    made, reasons = 0, set[str]()
    for case in cases:
        data, records, file = recorded(case, policy, path)
        reasons |= file.left_out().keys()
        made += len(records)
        assert file.counters["redacted_file_exchanges"] + sum(file.left_out().values()) == len(records)
        again = replayed(path)
        if not file.left_out():
            assert len(again) == len(records), case
            for one, other in zip(again, records, strict=True):
                otherwise = WITH_DESCRIPTORS + (OF_THE_OMITTED if "omitted" in other["marks"] else ())
                if case.place == "target-user-alone":  # what was taken out of its authority leaves another host there
                    otherwise += ("marks",)
                assert comparable(one, *otherwise) == comparable(other, *otherwise), case
        if policy in case.due:
            leaked = list(found(data + json.dumps(again).encode(), case.secret))  # what is compressed in the file, too
            known = {kind for kind, _hit in found(json.dumps(records).encode(), case.secret)} if leaked else set()
            assert not [hit for kind, hit in leaked if kind not in known], case
    assert made, "nothing was tried"
    return reasons


@POLICIES
@pytest.mark.parametrize("name", HEADS)
def test_a_head(name: str, policy: str, tmp_path: Path) -> None:
    assert check(head_cases(HEADS[name], few(name)), policy, tmp_path / "capture") <= {"doubtful"}


@POLICIES
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_body(name: str, policy: str, tmp_path: Path) -> None:
    assert not check(document_cases(DOCUMENTS[name], kinds=few(name)), policy, tmp_path / "capture")


@POLICIES
@pytest.mark.parametrize("name", CARRIERS)
def test_a_body_on_its_way(name: str, policy: str, tmp_path: Path) -> None:
    assert check(carrier_cases(CARRIERS[name], kinds=few(name)), policy, tmp_path / "capture") <= {"websocket", "doubtful"}


def test_what_is_not_redacted_is_found(tmp_path: Path) -> None:
    """Or the search of the others would prove nothing."""
    tried = 0
    for document in ("json", "form", "text"):
        for carrier in ("request", "response-in-chunks", "http2-request"):
            for case in carrier_cases(CARRIERS[carrier], kinds=["jwt", "password"]):
                if case.place.endswith(document):
                    data, _records, _file = recorded(case, "off", tmp_path / "capture")
                    assert found(data, case.secret), case
                    tried += 1
    assert tried >= 6
