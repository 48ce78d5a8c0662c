"""`helm test`: what its pod says of the collectors, by a server that answers as the API server does."""

from __future__ import annotations

import json
import runpy
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from collector.kubernetes.api import Server
from tests.deploy import helm

SCRIPT = helm.CHART / "files" / "ready.py"
SELECTOR = "app.kubernetes.io/instance=shop"


class Api(ThreadingHTTPServer):
    """Has the pods of one namespace, and labels of namespaces; or refuses all, with a status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pods: list[dict[str, Any]] = []
        self.namespaces: dict[str, dict[str, str]] = {"default": {}}
        self.status = 200


class Handler(BaseHTTPRequestHandler):
    """Lists only."""

    server: Api

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        """Nothing."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = urllib.parse.parse_qs(url.query)
        items = {
            "/api/v1/namespaces": [
                {"metadata": {"name": name, "labels": had}} for name, had in self.server.namespaces.items()
            ],
            "/api/v1/pods": [],
            "/api/v1/namespaces/capture/pods": self.server.pods if asked.get("labelSelector") == [SELECTOR] else [],
        }[url.path]
        body = json.dumps({"metadata": {"resourceVersion": "1"}, "items": items}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    served = Api()
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    server = Server("127.0.0.1", served.server_address[1], tls=False)
    monkeypatch.setattr(Server, "inside", lambda: server)
    monkeypatch.setenv("NAMESPACE", "capture")
    monkeypatch.setenv("SELECTOR", SELECTOR)
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def pod(name: str, ready: str | None) -> dict[str, Any]:
    """Of a node of the same name."""
    conditions = [] if ready is None else [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]
    return {"metadata": {"name": f"pod-{name}"}, "spec": {"nodeName": name}, "status": {"conditions": conditions}}


def run() -> None:
    """As the pod runs it."""
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_all_are_ready(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.pods = [pod("a", "True"), pod("b", "True")]
    api.namespaces |= {
        "shop": {"ebpf-api-collector/capture": "enabled"},
        "pay": {"wallarm-mirror": "enabled"},
        "x": {"a": "b"},
    }
    run()
    assert capsys.readouterr().out.splitlines() == [
        "ready: pod-a on a",
        "ready: pod-b on b",
        "namespaces that are labelled to be captured: shop, pay",
    ]


@pytest.mark.parametrize("state", ["False", None])
def test_one_is_not(api: Api, capsys: pytest.CaptureFixture[str], state: str | None) -> None:
    api.pods = [pod("a", "True"), pod("b", state)]
    with pytest.raises(SystemExit, match="1 of 2 collectors are not ready"):
        run()
    assert "NOT READY: pod-b on b" in capsys.readouterr().out


def test_there_is_none(api: Api) -> None:
    with pytest.raises(SystemExit, match="there is no collector"):
        run()


def test_the_account_may_not_read(api: Api) -> None:
    api.status = 403
    with pytest.raises(SystemExit, match="cannot read pods and namespaces, so nothing can be selected: .*403"):
        run()


def test_outside_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "inside", lambda: None)
    with pytest.raises(SystemExit, match="no pod of a cluster"):
        run()


def test_the_pod_asks_for_the_pods_of_its_release() -> None:
    made = helm.objects(helm.BROKERS)
    (container,) = made["Pod"]["spec"]["containers"]
    said = {one["name"]: one["value"] for one in container["env"]}
    labels = made["DaemonSet"]["spec"]["selector"]["matchLabels"]
    assert dict(part.split("=") for part in said["SELECTOR"].split(",")) == labels and said["NAMESPACE"] == "capture"
    text = [line.rstrip() for line in container["args"][0].splitlines()]
    assert "\n".join(text).strip() == SCRIPT.read_text().strip()
