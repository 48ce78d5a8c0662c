"""Whose the processes are, in the records of a live collector: groups as a container runtime makes them, and an API server
that speaks the watch protocol.
"""

from __future__ import annotations

import json
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.collector.kubernetes.api_server import NAMESPACES, PATH, ApiServer, running
from tests.live import cgroup
from tests.live.harness import Collector, wait_for
from tests.live.kafka_broker import free_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass
class Lab:
    """An API server, and pods whose containers run here."""

    api: ApiServer
    url: str
    stack: ExitStack
    uids: dict[str, str] = field(default_factory=dict)
    containers: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by pod

    def namespace(self, name: str, kind: str = "ADDED", **labels: str) -> None:
        """New or changed."""
        self.api.tell(NAMESPACES, kind, {"metadata": {"name": name, "labels": labels}})

    def container(self, name: str, container: str = "app") -> str:
        """The id of a container of that pod."""
        return uuid.uuid5(uuid.UUID(self.uids.setdefault(name, str(uuid.uuid4()))), container).hex * 2

    def pod(self, name: str, namespace: str = "shop", kind: str = "ADDED", **annotations: str) -> None:
        """A pod with the `containers` of that name, or one, called `app`. Annotations have `__` for a slash."""
        containers = self.containers.get(name, ("app",))
        uid = self.uids.setdefault(name, str(uuid.uuid4()))
        named = {key.replace("__", "/"): text for key, text in annotations.items()}
        metadata = {
            "uid": uid,
            "name": name,
            "namespace": namespace,
            "labels": {"app": name, "quote": 'a"b'},
            "annotations": named,
            "ownerReferences": [{"kind": "StatefulSet", "name": "owner", "controller": True}],
        }
        spec = {
            "nodeName": "n1",
            "serviceAccountName": "robot",
            "containers": [{"name": container, "image": "shop:1"} for container in containers],
        }
        status = {
            "containerStatuses": [
                {"name": container, "containerID": f"containerd://{self.container(name, container)}"}
                for container in containers
            ]
        }
        self.api.tell(PATH, kind, {"metadata": metadata, "spec": spec, "status": status})

    def group(self, name: str, container: str = "app") -> Path:
        """Of a container of a pod, which may be told of later."""
        identifier = self.container(name, container)
        path = f"kubepods/besteffort/pod{self.uids[name]}/{identifier}"
        return self.stack.enter_context(cgroup.group(path))

    def server(self, name: str) -> int:
        """A web server in that pod; its port."""
        port = free_port()
        process = cgroup.start(self.group(name), [sys.executable, "-c", SERVER, str(port)])
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        wait_for(lambda: answers(port), 20)
        return port


def answers(port: int, path: str = "/up") -> bool:
    """Is there a server?"""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
    except OSError:
        return False
    return True


@pytest.fixture
def lab(live: None) -> Iterator[Lab]:
    assert cgroup.tree() is not None, "no cgroup version 2 in which groups can be made"
    with ExitStack() as stack:
        api, server = stack.enter_context(running(""))
        api.token = ""
        yield Lab(api, f"http://127.0.0.1:{server.port}", stack)


def collector(tmp_path: Path, lab: Lab, **environment: str) -> Collector:
    found = Collector(
        tmp_path,
        **{
            "COLLECTOR_KUBERNETES": "on",
            "COLLECTOR_KUBERNETES_API": lab.url,
            "NODE_NAME": "n1",
            **environment,
        },
    )
    wait_for(lambda: found.metric("collector_kubernetes_behind") == 0, 20)
    return found


def served(c: Collector, part: str, count: int = 1) -> list[dict[str, Any]]:
    """The server's side of what was asked."""
    wait_for(lambda: len([one for one in c.records(part) if one["direction"] == "1"]) >= count, 20)
    return [one for one in c.records(part) if one["direction"] == "1"]


def test_a_record_knows_its_pod(lab: Lab, tmp_path: Path) -> None:
    lab.namespace("shop")
    lab.pod("cart-0")
    port = lab.server("cart-0")
    c = collector(tmp_path, lab)
    try:
        assert answers(port, "/cart")
        (record,) = served(c, "/cart")
        assert c.metric("collector_kubernetes_pods") == 1
    finally:
        assert c.stop() == 0, c.log()
    expected = {
        "namespace": "shop",
        "pod": "cart-0",
        "container": "app",
        "node": "n1",
        "workload": "StatefulSet/owner",
        "serviceAccount": "robot",
        "image": "shop:1",
    }
    assert {name: record.get(name) for name in expected} == expected
    assert json.loads(record["tag"]) == {"app": "cart-0", "quote": 'a"b'}
    (client,) = [one for one in c.records("/cart") if one["direction"] == "2"]
    assert "pod" not in client and client["node"] == "n1"


def test_a_pod_that_is_told_of_late(lab: Lab, tmp_path: Path) -> None:
    """Its first records wait; those of a pod that is never told of go without, and are counted."""
    lab.namespace("shop")
    c = collector(tmp_path, lab, COLLECTOR_POD_WAIT_MS="8000")
    try:
        port = lab.server("late-0")  # asks `/up` until it answers
        assert answers(port, "/early")
        lab.pod("late-0")
        (record,) = served(c, "/early")
        assert record["pod"] == "late-0", record
        other = lab.server("never-0")
        assert answers(other, "/never")
        (record,) = served(c, "/never")
        assert "pod" not in record
        wait_for(lambda: c.metric("collector_owner_unknown_records_total") >= 1, 10)
        lab.pod("never-0")
        wait_for(lambda: answers(other, "/now") and served(c, "/now")[-1].get("pod") == "never-0", 20)
    finally:
        assert c.stop() == 0, c.log()


def test_the_server_goes_away_and_comes_back(lab: Lab, tmp_path: Path) -> None:
    lab.namespace("shop")
    lab.pod("cart-0")
    port = lab.server("cart-0")
    c = collector(tmp_path, lab)
    try:
        lab.api.refuses = 500
        lab.api.disturb("cut")
        wait_for(lambda: c.metric("collector_kubernetes_behind") == 1, 20)
        assert answers(port, "/away") and served(c, "/away")[0]["pod"] == "cart-0"
        lab.api.refuses = 0
        wait_for(lambda: c.metric("collector_kubernetes_behind") == 0, 60)
        lab.pod("new-0")
        other = lab.server("new-0")
        assert answers(other, "/back") and served(c, "/back")[0]["pod"] == "new-0"
    finally:
        assert c.stop() == 0, c.log()


@pytest.mark.parametrize("victim", ["kubernetes.process", "loader.process", "shards.process"])
def test_whoever_is_killed_pods_are_known_again(lab: Lab, tmp_path: Path, victim: str) -> None:
    import os
    import signal

    from tests.live.test_adversity import replaced

    lab.namespace("shop")
    lab.pod("cart-0")
    port = lab.server("cart-0")
    c = collector(tmp_path, lab)
    try:
        assert answers(port, "/before") and served(c, "/before")[0]["pod"] == "cart-0"
        old = c.child(victim)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: replaced(c, victim, old), 30)
        lab.pod("other-0")
        other = lab.server("other-0")
        wait_for(lambda: answers(other, "/after") and served(c, "/after")[-1].get("pod") == "other-0", 30)
        wait_for(lambda: answers(port, "/again") and served(c, "/again")[-1].get("pod") == "cart-0", 30)
    finally:
        assert c.stop() == 0, c.log()


def test_outside_of_kubernetes(live: None, tmp_path: Path) -> None:
    """A service of systemd, and a container of Docker: by their control groups, without any server."""
    container = uuid.uuid4().hex * 2
    with ExitStack() as stack:
        ports = {}
        for path in ("system.slice/collector-test.service", f"docker/{container}"):
            ports[path] = free_port()
            process = cgroup.start(stack.enter_context(cgroup.group(path)), [sys.executable, "-c", SERVER, str(ports[path])])
            stack.callback(process.wait)
            stack.callback(process.kill)
        for port in ports.values():
            wait_for(lambda port=port: answers(port), 20)  # type: ignore[misc]
        c = Collector(tmp_path, COLLECTOR_ATTRIBUTION="on", NODE_NAME="n1")
        try:
            for number, port in enumerate(ports.values()):
                assert answers(port, f"/of-{number}")
            (unit,), (contained,) = served(c, "/of-0"), served(c, "/of-1")
        finally:
            assert c.stop() == 0, c.log()
    assert (unit["workload"], unit["node"]) == ("Unit/collector-test.service", "n1")
    assert contained["node"] == "n1" and "pod" not in contained and "workload" not in contained


def test_no_fields_unless_they_are_asked_for(live: None, tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = free_port()
        directory = stack.enter_context(cgroup.group("system.slice/collector-test.service"))
        process = cgroup.start(directory, [sys.executable, "-c", SERVER, str(port)])
        stack.callback(process.wait)
        stack.callback(process.kill)
        wait_for(lambda: answers(port), 20)
        c = Collector(tmp_path)
        try:
            assert answers(port, "/plain")
            (record,) = served(c, "/plain")
        finally:
            assert c.stop() == 0, c.log()
    assert not {"node", "workload", "container"} & set(record)
