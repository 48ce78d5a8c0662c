"""The table of docs/policy.md that shows what each built-in policy makes of one exchange."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collector.policy.model import BUILTIN
from tests.events import Conversation

PAGE = Path(__file__).resolve().parents[3] / "docs/policy.md"
BODY = json.dumps({"user": "ada", "password": "hunter2", "card": "4111 1111 1111 1111", "age": 36, "member": True})
REQUEST = "\r\n".join(
    (
        "POST /v1/users/17/cards?api_key=k-1&page=2 HTTP/1.1",
        "Host: shop.example",
        "Authorization: Basic YWRhOmh1bnRlcjI=",
        "Cookie: sid=8f14e45f; theme=dark",
        "X-Trace: a1",
        "Content-Type: application/json",
        f"Content-Length: {len(BODY)}",
        "",
        BODY,
    )
)
ANSWER = "\r\n".join(
    (
        "HTTP/1.1 200 OK",
        "Set-Cookie: sid=0cc175b9; Path=/; HttpOnly",
        "Content-Type: text/plain",
        "Content-Length: 5",
        "",
        "hello",
    )
)


def record(policy: str) -> dict[str, Any]:
    c = Conversation(policy=BUILTIN[policy])
    c.request(REQUEST.encode()).response(ANSWER.encode())
    (found,) = c.records()
    return found


def table() -> str:
    """In Markdown."""
    records = [record(policy) for policy in BUILTIN]
    body = [json.loads(one["requestPayload"]) for one in records]
    rows: list[tuple[str, list[str]]] = [("`path`", [one["path"] for one in records])]
    for name in ("host", "Authorization", "Cookie", "X-Trace", "Content-Type"):
        rows.append((f"request, `{name}`", [one["request"][name] for one in records]))
    for name in json.loads(BODY):
        rows.append((f"`requestPayload`, `{name}`", [json.dumps(one[name]) for one in body]))
    rows.append(("response, `Set-Cookie`", [one["response"]["Set-Cookie"] for one in records]))
    rows.append(("`responsePayload` (text/plain)", [one["responsePayload"] for one in records]))
    rows.append(("`requestSize`", [one["requestSize"] for one in records]))
    rows.append(("`redacted`", [one.get("redacted", "") for one in records]))
    rows.append(("`marks`", [one["marks"] for one in records]))
    lines = ["| | " + " | ".join(f"`{policy}`" for policy in BUILTIN) + " |", "|---|" + "---|" * len(BUILTIN)]
    lines += [f"| {what} | " + " | ".join(f"`{text}`" if text else "" for text in texts) + " |" for what, texts in rows]
    return "\n".join(lines) + "\n"


def test_the_page_has_it() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), table()
