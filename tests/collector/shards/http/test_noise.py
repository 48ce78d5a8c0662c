"""Requests of machines: named in records, and left out on request."""

from __future__ import annotations

import pytest

from tests.events import OK, Conversation


def request(agent: bytes, name: bytes = b"User-Agent") -> bytes:
    """A GET by that client."""
    return b"GET /x HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n" + name + b": " + agent + b"\r\n\r\n"


AGENTS = [
    (b"kube-probe/1.34", "probe"),
    (b"Prometheus/2.53.0", "scrape"),
    (b"vm_promscrape", "scrape"),
    (b"Envoy/HC", "mesh"),
    (b"GoogleHC/1.0", "balancer"),
    (b"ELB-HealthChecker/2.0", "balancer"),
    (b"Consul Health Check", "balancer"),
]


@pytest.mark.parametrize(("agent", "noise"), AGENTS)
def test_what_clients_say_of_themselves(agent: bytes, noise: str) -> None:
    for name in (b"User-Agent", b"user-agent", b"USER-AGENT"):
        (record,) = Conversation().request(request(agent, name)).response(OK).records()
        assert record["noise"] == noise


@pytest.mark.parametrize("agent", [b"curl/8", b"", b"kube-prob", b"my kube-probe/1", b"prometheus/2", b"Envoy"])
def test_others(agent: bytes) -> None:
    (record,) = Conversation().request(request(agent)).response(OK).records()
    assert "noise" not in record
    (record,) = Conversation().request(request(b"kube-probe/1", b"X-User-Agent")).response(OK).records()
    assert "noise" not in record


def test_left_out_on_request() -> None:
    c = Conversation(ignore_noise=("probe", "mesh"))
    for agent, _noise in AGENTS:
        c.request(request(agent)).response(OK)
    assert [record["noise"] for record in c.records()] == ["scrape", "scrape", "balancer", "balancer", "balancer"]
    assert c.counters()["filtered_noise"] == 2
    (record,) = c.request(request(b"curl/8")).response(OK).records()
    assert "noise" not in record
