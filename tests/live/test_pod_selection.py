"""Which pods are captured, live: groups as a container runtime makes them, an API server that speaks the watch protocol, and
changes under way.
"""

from __future__ import annotations

import http.client
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bench.tls import certificate
from tests.conftest import skip_or_fail
from tests.live import cgroup
from tests.live.harness import Collector, wait_for
from tests.live.kafka_broker import free_port
from tests.live.test_owners import Lab, answers, collector, lab, served  # noqa: F401 - a fixture
from tests.live.tlsplay import attached

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

FOLLOWED_SECONDS = 2.0  # a change has to be followed in
PREFORK = """
import http.server, os, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
os.fork()
server.serve_forever()
"""
TLS = """
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


class KeptAlive:
    """A connection that stays."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def get(self, path: str) -> None:
        """One exchange on it."""
        self._connection.request("GET", path)
        self._connection.getresponse().read()

    def close(self) -> None:
        """It ends."""
        self._connection.close()


def recorded(c: Collector, part: str) -> list[str]:
    """The paths of the servers' records."""
    return [record["path"] for record in c.records(part) if record["direction"] == "1"]


def followed(c: Collector, ask: Callable[[str], object], wanted: bool, name: str) -> None:
    """Ask for half a second, until FOLLOWED_SECONDS have passed since the change: what is asked then is recorded, or not.
    How long it took to get there is the machine's affair.
    """
    deadline = time.monotonic() + 30
    number = 0
    while True:
        number += 1
        path = f"/{name}-{number}-"
        ask(path)
        time.sleep(0.4)
        if bool(recorded(c, path)) == wanted:
            break
        assert time.monotonic() < deadline, f"not followed: {name}"
    for again in range(3):
        ask(f"/{name}-then-{again}")
    time.sleep(0.6)
    assert len(set(recorded(c, f"/{name}-then-"))) == (3 if wanted else 0)


@pytest.fixture
def prefork(lab: Lab) -> Iterator[Callable[[str], int]]:  # noqa: F811
    """Starts a server whose worker is a child that begins no program, in a pod."""
    with ExitStack() as stack:

        def start(name: str) -> int:
            port = free_port()
            process = cgroup.start(lab.group(name), [sys.executable, "-c", PREFORK, str(port)])

            def end() -> None:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                process.kill()
                process.wait()
                for child in children:
                    cgroup.kill(int(child))

            stack.callback(end)
            wait_for(lambda: answers(port), 20)
            return port

        yield start


def test_nothing_until_it_is_selected(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    """The chart's default, and each way to select on one connection that stays."""
    lab.namespace("shop")
    lab.namespace("other")
    lab.pod("cart-0")
    lab.pod("alien-0", namespace="other")
    ports = {name: lab.server(name) for name in ("cart-0", "alien-0")}
    c = collector(tmp_path, lab, COLLECTOR_ALL_NAMESPACES="false", COLLECTOR_HOST_PROCESSES="false")
    try:
        kept = {name: KeptAlive(port) for name, port in ports.items()}
        for connection in kept.values():
            lab.stack.callback(connection.close)
        for name, connection in kept.items():
            followed(c, connection.get, False, f"nothing-{name}")
        lab.namespace("shop", "MODIFIED", **{"wallarm-mirror": "enabled"})
        followed(c, kept["cart-0"].get, True, "namespace")
        lab.pod("cart-0", kind="MODIFIED", **{"wallarm.com__enabled": "true"})  # not its name
        followed(c, kept["cart-0"].get, True, "not-that-name")
        lab.pod("cart-0", kind="MODIFIED", **{"mirror.wallarm.com__enabled": "false"})
        followed(c, kept["cart-0"].get, False, "annotation-false")
        lab.pod("cart-0", kind="MODIFIED", **{"mirror.wallarm.com__enabled": "true"})
        followed(c, kept["cart-0"].get, True, "annotation-true")
        lab.namespace("shop", "MODIFIED", **{"wallarm-mirror": "disabled"})
        followed(c, kept["cart-0"].get, False, "namespace-disabled")
        lab.pod("alien-0", namespace="other", kind="MODIFIED", **{"ebpf-api-collector__capture": "enabled"})
        followed(c, kept["alien-0"].get, True, "ours")
        assert {record["direction"] for record in c.records()} == {"1"}, "the clients are no pod's"
        assert c.metric("collector_kubernetes_selected_containers") == 1
    finally:
        assert c.stop() == 0, c.log()


def test_filters(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    lab.namespace("shop")
    lab.pod("cart-0")
    lab.pod("stock-0")
    filters = '[{"namespace": "none"}, {"namespace": "shop", "pod_labels": {"app": "x, cart-0"}, "container_name": "app"}]'
    ports = {name: lab.server(name) for name in ("cart-0", "stock-0")}
    c = collector(tmp_path, lab, COLLECTOR_ALL_NAMESPACES="false", COLLECTOR_FILTERS=filters)
    try:
        followed(c, lambda path: answers(ports["cart-0"], path), True, "cart")
        followed(c, lambda path: answers(ports["stock-0"], path), False, "stock")
    finally:
        assert c.stop() == 0, c.log()


def test_workers_that_began_no_program(lab: Lab, prefork: Callable[[str], int], tmp_path: Path) -> None:  # noqa: F811
    """A child of fork is captured as its parent is, and follows what is said later."""
    lab.namespace("shop", **{"wallarm-mirror": "enabled"})
    lab.pod("early-0")
    early = prefork("early-0")
    c = collector(tmp_path, lab, COLLECTOR_ALL_NAMESPACES="false", COLLECTOR_HOST_PROCESSES="false")
    try:
        lab.pod("late-0")
        late = prefork("late-0")
        for name, port in (("early", early), ("late", late)):
            followed(c, lambda path, port=port: [answers(port, path) for _ in range(4)], True, f"{name}-on")  # type: ignore[misc]
        lab.namespace("shop", "MODIFIED", **{"wallarm-mirror": "disabled"})
        for name, port in (("early", early), ("late", late)):
            followed(c, lambda path, port=port: [answers(port, path) for _ in range(4)], False, f"{name}-off")  # type: ignore[misc]
    finally:
        assert c.stop() == 0, c.log()


def test_programs_that_live_for_a_moment(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    """In a container that is selected, while what starts them, of the host, is not."""
    lab.namespace("shop", **{"wallarm-mirror": "enabled"})
    lab.pod("cart-0")
    lab.pod("alien-0", **{"mirror.wallarm.com__enabled": "false"})
    group, other = lab.group("cart-0"), lab.group("alien-0")
    port = lab.server("stock-0")
    c = collector(tmp_path, lab, COLLECTOR_ALL_NAMESPACES="false", COLLECTOR_HOST_PROCESSES="false")
    try:

        def ask(directory: Path, path: str) -> None:
            assert cgroup.start(directory, ["curl", "-s", f"http://127.0.0.1:{port}{path}"]).wait(20) == 0

        wait_for(lambda: [ask(group, "/warm"), time.sleep(0.3), c.records("/warm")][2], 20)
        for number in range(20):
            ask(group, f"/moment-{number}-")
            ask(other, f"/moment-not-{number}-")
        wait_for(lambda: len(c.records("/moment-")) >= 20, 10, quiet=True)
        found = sorted(record["path"] for record in c.records("/moment-"))
        assert found == sorted(f"/moment-{number}-" for number in range(20))
        assert {record["pod"] for record in c.records("/moment-")} == {"cart-0"}
    finally:
        assert c.stop() == 0, c.log()


def test_a_group_is_not_taken_for_the_one_that_its_first_process_went_to(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    """What a container runtime starts begins in a group of the host and enters the pod's at once."""
    lab.namespace("shop", **{"wallarm-mirror": "enabled"})
    for name in ("cart-0", "stock-0"):
        lab.pod(name)
    into, port = lab.group("cart-0") / "cgroup.procs", lab.server("stock-0")
    services = [lab.stack.enter_context(cgroup.group(f"system.slice/service-{n}.service")) for n in range(30)]
    c = collector(tmp_path, lab, COLLECTOR_ALL_NAMESPACES="false", COLLECTOR_HOST_PROCESSES="false")
    try:
        wait_for(lambda: answers(port, "/ready") and recorded(c, "/ready"), 20)
        for service in services:
            process = cgroup.start(service, ["sh", "-c", f"echo $$ > {into}; exec sleep 0.2"])
            time.sleep(0.1)
            process.wait()
        for number, service in enumerate(services):
            cgroup.start(service, ["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/host-{number}-"]).wait()
        wait_for(lambda: len(recorded(c, "/host-")) == len(services), 20)
        time.sleep(0.5)
        assert not [record for record in c.records("/host-") if record["direction"] == "2"]
    finally:
        assert c.stop() == 0


def test_nobody_is_chosen_while_the_server_is_away(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    """Not by a loader either that does not know which pods there are."""
    lab.namespace("shop", **{"wallarm-mirror": "enabled"})
    lab.namespace("other")
    lab.pod("stock-0")
    selected = lab.server("stock-0")
    c = collector(tmp_path, lab, COLLECTOR_ALL_NAMESPACES="false", COLLECTOR_HOST_PROCESSES="true")
    try:
        wait_for(lambda: answers(selected, "/ready") and recorded(c, "/ready"), 20)
        lab.api.refuses = 500
        lab.api.disturb("cut")
        wait_for(lambda: c.metric("collector_kubernetes_behind") == 1, 20)
        victims = {name: c.child(name) for name in ("kubernetes.process", "loader.process")}
        for victim in victims.values():
            cgroup.kill(victim)
        wait_for(lambda: all(c.child(name) not in (0, pid) for name, pid in victims.items()), 30)
        wait_for(lambda: c.page("readyz").strip() == "ok", 30)
        new = lab.server("new-0")
        for number in range(5):
            assert answers(new, f"/new-{number}") and answers(selected, f"/old-{number}")
        wait_for(lambda: len(recorded(c, "/old-")) == 5, 20)
        assert not recorded(c, "/new-")
        lab.pod("new-0", namespace="other")
        lab.api.refuses = 0
        wait_for(lambda: c.metric("collector_kubernetes_behind") == 0, 60)
        followed(c, lambda path: answers(selected, path), True, "selected")
        followed(c, lambda path: answers(new, path), False, "not-selected")
        assert not recorded(c, "/new-")
    finally:
        assert c.stop() == 0


def test_everything_but_one_pod(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    """The environment-driven default; host processes too."""
    lab.namespace("shop")
    lab.pod("cart-0", **{"mirror.wallarm.com__enabled": "false"})
    lab.pod("stock-0")
    c = collector(tmp_path, lab)
    try:
        ports = {name: lab.server(name) for name in ("cart-0", "stock-0")}
        assert answers(ports["stock-0"], "/stock") and served(c, "/stock")[0]["pod"] == "stock-0"
        followed(c, lambda path: answers(ports["cart-0"], path), False, "cart")
        assert [one for one in c.records("/cart") if one["direction"] == "2"], "the client is of the host"
    finally:
        assert c.stop() == 0, c.log()
    ends = {record["destIp"] for record in c.records() if record["direction"] == "1"}
    assert f"127.0.0.1:{ports['cart-0']}" not in ends, "not even before it was looked at"


def test_tls_of_selected_pods_only(lab: Lab, tmp_path: Path) -> None:  # noqa: F811
    """Both have the same file of the library."""
    import ssl
    import urllib.request

    certificate(tmp_path)
    lab.namespace("shop")
    lab.pod("cart-0", **{"mirror.wallarm.com__enabled": "true"})
    lab.pod("stock-0")
    ports = {name: free_port() for name in ("cart-0", "stock-0")}
    for name, port in ports.items():
        files = [str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")]
        process = cgroup.start(lab.group(name), [sys.executable, "-c", TLS, str(port), *files])
        lab.stack.callback(process.wait)
        lab.stack.callback(process.kill)
    context = ssl._create_unverified_context()

    def ask(name: str, path: str) -> bool:
        try:
            urllib.request.urlopen(f"https://127.0.0.1:{ports[name]}{path}", context=context, timeout=5).read()
        except OSError:
            return False
        return True

    wait_for(lambda: all(ask(name, "/up") for name in ports), 20)
    c = collector(tmp_path, lab, COLLECTOR_ALL_NAMESPACES="false", COLLECTOR_HOST_PROCESSES="false")
    try:
        wait_for(lambda: attached(c, "libssl.so.3"), 60)
        followed(c, lambda path: ask("cart-0", path), True, "cart")
        followed(c, lambda path: ask("stock-0", path), False, "stock")
        (record,) = [one for one in c.records("/cart-then-0") if one["direction"] == "1"]
        assert (record["pod"], record["tls"]) == ("cart-0", "true")
        lab.pod("stock-0", kind="MODIFIED", **{"mirror.wallarm.com__enabled": "true"})
        followed(c, lambda path: ask("stock-0", path), True, "stock-on")
    finally:
        assert c.stop() == 0, c.log()


PROXY = """global
 maxconn 64
defaults
 mode http
 timeout connect 5s
 timeout client 30s
 timeout server 30s
frontend inbound
 bind 127.0.0.1:{inbound}
 default_backend app
backend app
 server app 127.0.0.1:{app}
frontend outbound
 bind 127.0.0.1:{outbound}
 default_backend elsewhere
backend elsewhere
 server elsewhere 127.0.0.1:{elsewhere}
"""
# An application that, asked, asks another one by way of the proxy beside it
ASKS = """
import http.server, sys, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = urllib.request.urlopen("http://127.0.0.1:" + sys.argv[2] + self.path + "/further").read()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize("sidecars", ["istio-proxy,linkerd-proxy", "none"])
def test_each_exchange_once_beside_a_sidecar(lab: Lab, tmp_path: Path, sidecars: str) -> None:  # noqa: F811
    """What is asked of an application, and what it asks, both by way of the proxy in its pod: recorded where the application
    takes part in it. Without the rule the proxy's own ends are there as well.
    """
    haproxy = shutil.which("haproxy") or skip_or_fail("needs haproxy")
    lab.namespace("shop")
    lab.containers["cart-0"] = ("app", "istio-proxy")
    lab.pod("cart-0")
    lab.pod("stock-0")
    ports = {name: free_port() for name in ("inbound", "outbound", "app")}
    ports["elsewhere"] = lab.server("stock-0")
    (tmp_path / "haproxy.cfg").write_text(PROXY.format(**ports))
    programs = {
        "app": [sys.executable, "-c", ASKS, str(ports["app"]), str(ports["outbound"])],
        "istio-proxy": [str(haproxy), "-db", "-f", str(tmp_path / "haproxy.cfg")],
    }
    for container, command in programs.items():
        process = cgroup.start(lab.group("cart-0", container), command)
        lab.stack.callback(process.wait)
        lab.stack.callback(process.kill)
    wait_for(lambda: answers(ports["inbound"]), 20)
    c = collector(tmp_path, lab, COLLECTOR_HOST_PROCESSES="false", COLLECTOR_SIDECARS=sidecars)
    try:
        wanted = {
            ("/order", "1", "cart-0", "app"),
            ("/order/further", "2", "cart-0", "app"),
            ("/order/further", "1", "stock-0", "app"),
        }
        if sidecars == "none":
            wanted |= {
                (path, direction, "cart-0", "istio-proxy") for path in ("/order", "/order/further") for direction in "12"
            }
        for name in ("app", "elsewhere"):  # until the pods are known to be captured
            wait_for(lambda name=name: answers(ports[name], f"/warm-{name}") and recorded(c, f"/warm-{name}"), 20)  # type: ignore[misc]
        assert answers(ports["inbound"], "/order")
        c.wait_records("/order", len(wanted))
        found = [(one["path"], one["direction"], one.get("pod"), one.get("container")) for one in c.records("/order")]
    finally:
        assert c.stop() == 0, c.log()
    assert sorted(found) == sorted(wanted), "each once"
