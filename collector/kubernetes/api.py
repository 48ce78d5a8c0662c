"""The API server, from inside of a pod: lists in pages, and watches (Kubernetes API concepts: "Efficient detection of
changes", "Retrieving large results sets in chunks").

Plain HTTP/1.1 by the standard library: the official client holds models of the whole API in memory, and of it one list and
one watch are wanted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from collector.config_kubernetes import ACCOUNT

PAGE = 500  # objects of one answer to a list
CONNECT_SECONDS = 10.0
WATCH_SECONDS = 290  # after which the server ends a watch, so that one that hangs is found out
SILENT_SECONDS = WATCH_SECONDS + 30.0
LINE_BYTES = 8 << 20  # of one event; etcd holds no larger object than 1.5 MiB


Parse = Callable[[Mapping[str, Any]], Any]  # what is wanted of an object, which may be large


def read_token(path: str) -> str:
    """Of an account. Raises OSError, ValueError."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


class ApiError(Exception):
    """The server cannot be reached, refuses, or says what makes no sense. ``status``: of its answer, 0 for none."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Gone(ApiError):
    """The version to go on from is too old (410): only a new list helps."""


@dataclass(frozen=True, slots=True)
class Event:
    """Of a watch. ``kind``: ADDED, MODIFIED, DELETED or BOOKMARK, which has a version and nothing else."""

    kind: str
    object: Mapping[str, Any]

    @property
    def version(self) -> str:
        """To go on from."""
        return _version(self.object)


def _version(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is and who we are. ``token_path`` is read anew for each request, for the kubelet renews the token; or
    ``token`` says what it is now. ``ca_path`` of the authorities that may sign its certificate. Without TLS (a proxy beside
    us) both may be empty.
    """

    host: str
    port: int
    token_path: str = ""
    ca_path: str = ""
    tls: bool = True
    page: int = PAGE
    silent_seconds: float = SILENT_SECONDS
    token: Callable[[], str] | None = None

    @classmethod
    def inside(cls, environment: Mapping[str, str] = os.environ, account: str = ACCOUNT) -> Server | None:
        """As a pod is told by the kubelet; None outside of a cluster."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdigit():
            return None
        return cls(host, int(port), f"{account}/token", f"{account}/ca.crt")

    def list(self, path: str, query: Mapping[str, str], parse: Parse = lambda found: found) -> tuple[list[Any], str]:
        """(what ``parse`` makes of all objects, the version of the list). Raises ApiError; Gone when its pages were too old
        to be continued.
        """
        items: list[Any] = []
        more = ""
        while True:
            asked = {**query, "limit": str(self.page), **({"continue": more} if more else {})}
            with self._answer(path, asked, CONNECT_SECONDS) as answer:
                try:
                    document = json.loads(answer.read())
                except (ValueError, OSError, http.client.HTTPException) as error:
                    raise ApiError(f"{path}: {error}") from error
            metadata = document.get("metadata") if isinstance(document, dict) else None
            if not isinstance(metadata, dict) or not isinstance(document.get("items"), list | None):
                raise ApiError(f"{path}: that is no list")
            items += [parse(one) for one in document.get("items") or () if isinstance(one, dict)]
            more = metadata.get("continue") or ""
            if not more:
                return items, _version(document)

    def watch(
        self, path: str, query: Mapping[str, str], version: str, opened: Callable[[], None] = lambda: None
    ) -> Iterator[Event]:
        """What changes from ``version`` on, until the server ends it; ``opened`` is called when it has agreed to that, which
        may be long before the first event. Raises ApiError; Gone when that is too old.
        """
        asked = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        with self._answer(path, asked, self.silent_seconds) as answer:
            opened()
            while True:
                try:
                    line = answer.readline(LINE_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise ApiError(f"{path}: {error or type(error).__name__}") from error
                if not line:
                    return
                yield _event(path, line)

    def _token(self) -> str:
        if self.token is not None:
            return self.token()
        return read_token(self.token_path) if self.token_path else ""

    @contextlib.contextmanager
    def _answer(self, path: str, query: Mapping[str, str], seconds: float) -> Iterator[http.client.HTTPResponse]:
        connection: http.client.HTTPConnection
        try:
            if self.tls:
                context = ssl.create_default_context(cafile=self.ca_path or None)
                connection = http.client.HTTPSConnection(self.host, self.port, timeout=CONNECT_SECONDS, context=context)
            else:
                connection = http.client.HTTPConnection(self.host, self.port, timeout=CONNECT_SECONDS)
            headers = {"Accept": "application/json", "User-Agent": "ebpf-api-collector"}
            if token := self._token():
                headers["Authorization"] = f"Bearer {token}"
        except (OSError, ValueError) as error:
            raise ApiError(str(error)) from error
        with contextlib.closing(connection):
            try:
                connection.request("GET", f"{path}?{urllib.parse.urlencode(query)}", headers=headers)
                if isinstance(connection.sock, socket.socket):
                    connection.sock.settimeout(seconds)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise ApiError(f"{self.host}:{self.port}: {error or type(error).__name__}") from error
            if answer.status == http.HTTPStatus.GONE:
                raise Gone(f"{path}: too old", answer.status)
            if answer.status != http.HTTPStatus.OK:
                raise ApiError(f"{path}: {answer.status} {answer.reason}", answer.status)
            yield answer


def _event(path: str, line: bytes) -> Event:
    try:
        document = json.loads(line)
        kind, found = document["type"], document["object"]
    except (ValueError, TypeError, KeyError) as error:
        raise ApiError(f"{path}: an event that is none") from error
    if not isinstance(found, dict):
        raise ApiError(f"{path}: an event that is none")
    if kind == "ERROR":
        if found.get("code") == http.HTTPStatus.GONE:
            raise Gone(f"{path}: {found.get('message', 'too old')}", http.HTTPStatus.GONE)
        raise ApiError(f"{path}: {found.get('message', 'error')}")
    return Event(str(kind), found)
