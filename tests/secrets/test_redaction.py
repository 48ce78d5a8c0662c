"""No secret is in anything that comes out of the pipeline, wherever it stood: the policies `secrets` and `strict`."""

from __future__ import annotations

import os

import pytest

from tests.secrets.carriers import CARRIERS
from tests.secrets.documents import DOCUMENTS
from tests.secrets.heads import HEADS
from tests.secrets.kinds import KINDS
from tests.secrets.matrix import carrier_cases, document_cases, head_cases, leaks, some

ALL = os.environ.get("SECRETS") == "all"  # every kind of secret everywhere: half an hour
POLICIES = pytest.mark.parametrize("policy", ["secrets", "strict"])


def kinds_of(place: str) -> list[str]:
    return list(KINDS) if ALL else some(place)


def check(found: tuple[list[str], int]) -> None:
    leaked, of = found
    assert of, "nothing was tried"
    assert not leaked, f"{len(leaked)} of {of}:\n" + "\n".join(leaked)


@POLICIES
@pytest.mark.parametrize("name", HEADS)
def test_a_head(name: str, policy: str) -> None:
    check(leaks(head_cases(HEADS[name], kinds_of(name)), policy))


@POLICIES
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_body(name: str, policy: str) -> None:
    if name == "json-as-name" and policy == "strict":
        return  # which keeps names
    check(leaks(document_cases(DOCUMENTS[name], kinds=kinds_of(name)), policy))


@POLICIES
@pytest.mark.parametrize("name", CARRIERS)
def test_a_body_on_its_way(name: str, policy: str) -> None:
    check(leaks(carrier_cases(CARRIERS[name], kinds=kinds_of(name)), policy))
