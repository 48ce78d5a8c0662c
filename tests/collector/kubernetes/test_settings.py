"""Whom is asked, by the configuration and by what the kubelet tells a pod."""

from __future__ import annotations

import pytest

from collector.config import load
from collector.config_kubernetes import captured
from collector.errors import ConfigError
from collector.settings import KubernetesSettings, LoaderSettings

INSIDE = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture(autouse=True)
def _no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in INSIDE:
        monkeypatch.delenv(name, raising=False)


def test_outside_of_kubernetes_nobody() -> None:
    config = load({})
    assert KubernetesSettings.of(config) is None
    assert LoaderSettings.of(config, rings=1).owners is None


def test_a_pod_without_account_names_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in INSIDE.items():
        monkeypatch.setenv(name, value)
    config = load({"NODE_NAME": "n1"})
    assert KubernetesSettings.of(config) is None
    owners = LoaderSettings.of(config, rings=1).owners
    assert owners is not None and (owners.node, owners.kubernetes) == ("n1", False)


def test_a_pod_with_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in INSIDE.items():
        monkeypatch.setenv(name, value)
    config = load({"NODE_NAME": "n1", "COLLECTOR_KUBERNETES": "on", "COLLECTOR_ALL_NAMESPACES": "false"})
    found = KubernetesSettings.of(config)
    assert found is not None
    assert (found.host, found.port, found.tls, found.node, found.everything) == ("10.96.0.1", 443, True, "n1", False)
    assert KubernetesSettings.from_message(found.to_message()) == found


def test_a_proxy_of_this_host() -> None:
    config = load({"COLLECTOR_KUBERNETES": "on", "COLLECTOR_KUBERNETES_API": "http://[::1]:8001/"})
    found = KubernetesSettings.of(config)
    assert found is not None and (found.host, found.port, found.tls, found.token_path) == ("::1", 8001, False, "")


def test_nobody_to_ask() -> None:
    with pytest.raises(ConfigError, match="not in a pod"):
        KubernetesSettings.of(load({"COLLECTOR_KUBERNETES": "on"}))


@pytest.mark.parametrize(
    "text",
    [
        "http://api.example.org:80",
        "https://127.0.0.1:6443",
        "http://127.0.0.1",
        "x",
        "http://127.0.0.1:99999",
        "http://127.999.1.1:80",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="COLLECTOR_KUBERNETES_API"):
        load({"COLLECTOR_KUBERNETES_API": text})


FILTERS = ["{}", "[1]", '[{"namespce": "a"}]', "[", '[{"namespace": []}]', "[" * 50_000, '[{"namespace": ","}]']


@pytest.mark.parametrize("text", [*FILTERS, '[{"node_name": "worker-*"}]'], ids=range(8))
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="COLLECTOR_FILTERS"):
        load({"COLLECTOR_FILTERS": text})


def test_filters_that_select_nothing_more_are_warned_of() -> None:
    filters = {"COLLECTOR_FILTERS": '[{"namespace": "shop"}]'}
    assert any("COLLECTOR_FILTERS" in text for text in load(filters).warnings)
    assert not load({**filters, "COLLECTOR_ALL_NAMESPACES": "false"}).warnings


@pytest.mark.parametrize(
    ("everything", "host", "words"),
    [
        ("true", "true", "all processes"),
        ("true", "false", "all pods"),
        ("false", "true", "selected pods and the node's own processes"),
        ("false", "false", "selected pods"),
    ],
)
def test_the_start_says_whose_http_is_captured(everything: str, host: str, words: str) -> None:
    assert captured(load({"COLLECTOR_ALL_NAMESPACES": everything, "COLLECTOR_HOST_PROCESSES": host})) == words
