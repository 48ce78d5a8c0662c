"""Requests of machines: named in records, and left out on request."""

from __future__ import annotations

import pytest

from tests.events import OK, Conversation

SCRAPE = b"X-Prometheus-Scrape-Timeout-Seconds: 10\r\n"


def request(agent: bytes, name: bytes = b"User-Agent", line: bytes = b"GET /x") -> bytes:
    """By that client."""
    return line + b" HTTP/1.1\r\nHost: a.example\r\n" + SCRAPE + name + b": " + agent + b"\r\n\r\n"


AGENTS = [
    (b"kube-probe/1.34", "probe"),
    (b"Prometheus/2.53.0", "scrape"),
    (b"vm_promscrape", "scrape"),
    (b"Envoy/HC", "mesh"),
    (b"GoogleHC/1.0", "balancer"),
    (b"ELB-HealthChecker/2.0", "balancer"),
    (b"Consul Health Check", "balancer"),
    (b"kube-lifecycle/1.34", "probe"),
]


@pytest.mark.parametrize(("agent", "noise"), AGENTS)
def test_what_clients_say_of_themselves(agent: bytes, noise: str) -> None:
    for name in (b"User-Agent", b"user-agent", b"USER-AGENT"):
        (record,) = Conversation().request(request(agent, name)).response(OK).records()
        assert record["noise"] == noise


@pytest.mark.parametrize(
    "agent", [b"curl/8", b"", b"kube-prob", b"my kube-probe/1", b"prometheus/2", b"Envoy", b"Consul Health Checker of ours"]
)
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
    assert c.counters()["filtered_noise"] == 3
    (record,) = c.request(request(b"curl/8")).response(OK).records()
    assert "noise" not in record


@pytest.mark.parametrize(
    "line", [b"POST /login", b"DELETE /orders/7", b"PUT /x", b"GETS /x", b"POST /grpc.health.v1.Health/Checks"]
)
def test_what_changes_something_is_no_noise_whoever_says_so(line: bytes) -> None:
    c = Conversation(ignore_noise=("all",))
    for agent, _noise in AGENTS:
        (record,) = c.request(request(agent, line=line)).response(OK).records()
        assert "noise" not in record


@pytest.mark.parametrize("line", [b"HEAD /x", b"POST /grpc.health.v1.Health/Check"])
def test_other_ways_to_look(line: bytes) -> None:
    (record,) = Conversation().request(request(b"kube-probe/1.34", line=line)).response(OK).records()
    assert record["noise"] == "probe"


def test_service_discovery_is_no_scrape() -> None:
    data = request(b"Prometheus/2.53.0").replace(SCRAPE, b"X-Prometheus-Refresh-Interval-Seconds: 60\r\n")
    (record,) = Conversation().request(data).response(OK).records()
    assert "noise" not in record
