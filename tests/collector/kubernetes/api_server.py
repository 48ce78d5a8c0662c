"""An API server for tests: it has pods, and speaks lists in pages and watches as the real one does - a chunked answer, an
event a line, bookmarks, versions that become too old - and goes wrong when it is told to.
"""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from collector.kubernetes.api import Server

PATH = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"


class ApiServer:
    """Changes are events with rising versions; those at or below ``compacted`` cannot be watched from any more."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.objects: dict[str, dict[str, dict[str, Any]]] = {PATH: {}, NAMESPACES: {}}
        self.events: list[tuple[int, str, str, dict[str, Any]]] = []  # version, path, kind, object
        self.lists: dict[tuple[str, int], list[dict[str, Any]]] = {}  # of which there are further pages, by version
        self.version = 100
        self.compacted = 0
        self.refuses = 0  # with this status, when it is one
        self.cut = 0  # counts up: every watch under way is cut off
        self.end = 0  # likewise: ended as after timeoutSeconds
        self.ends_at_once = False  # each watch
        self.asked: list[dict[str, str]] = []
        self.token = "token-1"

    def change(self, kind: str, uid: str, **status: Any) -> None:
        """ADDED, MODIFIED, DELETED or BOOKMARK, of a pod of which little is said."""
        found: dict[str, Any] = {"metadata": {}}
        if kind != "BOOKMARK":
            found = {"metadata": {"uid": uid, "name": f"pod-{uid}", "namespace": "shop"}, "status": status}
        self.tell(PATH, kind, found)

    def tell(self, path: str, kind: str, found: dict[str, Any]) -> None:
        """The same, of any object."""
        with self.changed:
            self.version += 1
            found = {**found, "metadata": {**found["metadata"], "resourceVersion": str(self.version)}}
            key = found["metadata"].get("uid") or found["metadata"].get("name", "")
            if kind in ("ADDED", "MODIFIED"):
                self.objects[path][key] = found
            elif kind == "DELETED":
                self.objects[path].pop(key, None)
            self.events.append((self.version, path, kind, found))
            self.changed.notify_all()

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        """By UID."""
        return self.objects[PATH]

    def compact(self) -> None:
        """What has happened so far cannot be watched any more."""
        with self.changed:
            self.compacted = self.version
            self.cut += 1
            self.changed.notify_all()

    def disturb(self, what: str) -> None:
        """`cut` or `end`."""
        with self.changed:
            setattr(self, what, getattr(self, what) + 1)
            self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    api: ApiServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        """Nothing."""

    def do_GET(self) -> None:
        """A list or a watch."""
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.api.asked.append({**query, "authorization": self.headers.get("Authorization", "")})
        if self.api.refuses:
            self.answer({"kind": "Status"}, self.api.refuses)
        elif self.api.token and self.headers.get("Authorization") != f"Bearer {self.api.token}":
            self.answer({"kind": "Status"}, 401)
        elif "watch" in query:
            self.watch(url.path, int(query["resourceVersion"]))
        else:
            self.list(url.path, int(query["limit"]), query.get("continue", ""))

    def answer(self, document: Any, status: int = 200) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def list(self, path: str, limit: int, more: str) -> None:
        """A page. All pages show what was there when the first one was asked for, as etcd's do."""
        with self.api.changed:
            if more:
                asked, _, at = more.partition("/")
                version, first, items = int(asked), int(at), self.api.lists[path, int(asked)]
            else:
                version, first, items = self.api.version, 0, list(self.api.objects[path].values())
            metadata = {"resourceVersion": str(version)}
            if first + limit < len(items):
                metadata["continue"] = f"{version}/{first + limit}"
                self.api.lists[path, version] = items
        self.answer({"kind": "List", "metadata": metadata, "items": items[first : first + limit]})

    def watch(self, path: str, version: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        cut, end = self.api.cut, self.api.end - self.api.ends_at_once
        while True:
            with self.api.changed:
                if version < self.api.compacted:
                    gone = {"kind": "Status", "code": 410, "message": f"too old resource version: {version}"}
                    waiting = [(0, "ERROR", gone)]
                else:
                    waiting = [(at, kind, found) for at, of, kind, found in self.api.events if at > version and of == path]
                if not waiting and (self.api.cut, self.api.end) == (cut, end):
                    self.api.changed.wait()
            for newest, kind, found in waiting:
                version = newest
                line = json.dumps({"type": kind, "object": found}).encode() + b"\n"
                half = len(line) // 2  # of an event in two chunks
                for piece in (line[:half], line[half:]):
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
                if kind == "ERROR":
                    break
            if self.api.cut != cut:
                self.close_connection = True
                return  # in the middle of a chunked answer
            if self.api.end != end or (waiting and waiting[0][1] == "ERROR"):
                self.wfile.write(b"0\r\n\r\n")
                return


@contextmanager
def running(token_path: str) -> Iterator[tuple[ApiServer, Server]]:
    """The server, and how to reach it."""
    api = ApiServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api, Server("127.0.0.1", http.server_address[1], token_path, tls=False, page=10, silent_seconds=20.0)
    finally:
        api.disturb("cut")
        http.shutdown()
        http.server_close()
        thread.join(10)
