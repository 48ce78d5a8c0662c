"""No secret is in anything that comes out of the pipeline, wherever it stood: the policies `secrets` and `strict`."""

from __future__ import annotations

import pytest

from tests.secrets.carriers import CARRIERS
from tests.secrets.documents import DOCUMENTS
from tests.secrets.heads import HEADS
from tests.secrets.matrix import carrier_cases, document_cases, head_cases, leaks, some

POLICIES = pytest.mark.parametrize("policy", ["secrets", "strict"])


def check(found: tuple[list[str], int]) -> None:
    leaked, of = found
    assert of, "nothing was tried"
    assert not leaked, f"{len(leaked)} of {of}:\n" + "\n".join(leaked)


@POLICIES
@pytest.mark.parametrize("name", HEADS)
def test_a_head(name: str, policy: str) -> None:
    check(leaks(head_cases(HEADS[name], some(name)), policy))


@POLICIES
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_body(name: str, policy: str) -> None:
    if name == "json-as-name" and policy == "strict":
        return  # which keeps names
    check(leaks(document_cases(DOCUMENTS[name], kinds=some(name)), policy))


@POLICIES
@pytest.mark.parametrize("name", CARRIERS)
def test_a_body_on_its_way(name: str, policy: str) -> None:
    check(leaks(carrier_cases(CARRIERS[name], kinds=some(name)), policy))


@pytest.mark.slow
@pytest.mark.timeout(900)
@POLICIES
@pytest.mark.parametrize("group", ["heads", "documents", "carriers"])
def test_every_kind_everywhere(group: str, policy: str) -> None:
    made = {
        "heads": lambda: (case for head in HEADS.values() for case in head_cases(head)),
        "documents": lambda: (case for one in DOCUMENTS.values() for case in document_cases(one)),
        "carriers": lambda: (case for one in CARRIERS.values() for case in carrier_cases(one)),
    }[group]
    check(leaks(made(), policy))
