"""scripts/bench hostile: what bodies cost under a policy that are made to cost much, in ns of CPU time a byte, against an
ordinary body of the same size; and a quarter of each, which must not cost less a byte (that would be worse than linear).

scripts/bench hostile --policy secrets --body 65536
scripts/bench hostile --only digits,percent
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import time
from collections.abc import Callable

from collector import abi
from collector.policy.model import BUILTIN
from tests.bench import core
from tests.bench.traffic import json_body


def _repeated(piece: bytes, before: bytes = b"", after: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: before + (piece * (size // len(piece) + 1))[: size - len(before) - len(after)] + after


def _grown(start: str, wrap: Callable[[str], str]) -> Callable[[int], bytes]:
    def make(size: int) -> bytes:
        text = start
        while len(text) < size:
            text = wrap(text)
        return text[:size].encode()

    return make


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


JWT = b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
BODIES: dict[str, Callable[[int], bytes]] = {
    "ordinary": lambda size: json_body(size, random.Random(1)),
    "digits": _repeated(b"4111111111111112"),
    "digits in groups": _repeated(b"4111 1111 1111 1112 "),
    "digits with dashes": _repeated(b"4-1-1-1-"),
    "cards": _repeated(b"4111111111111111 "),
    "near IBANs": _repeated(b"DE89 3704 0044 0532 0130 01 "),
    "beginnings of JWTs": _repeated(b"eyJ"),
    "near JWTs": _repeated(b"eyJhbGciOiJI."),
    "JWTs": _repeated(b'"' + JWT + b'",', b"[", b"1]"),
    "BEGIN": _repeated(b"-----BEGIN PRIVATE KEY-----"),
    "dashes": _repeated(b"-"),
    "beginnings of keys": _repeated(b"ghp_AKIAsk-SG.xoxb-glpat-"),
    "URLs": _repeated(b"://a:b"),
    "short members": _repeated(b'"a":"b",', b"{", b'"a":1}'),
    "secret members": _repeated(b'"password":"b",', b"{", b'"a":1}'),
    "secret members, wide": _repeated('"密码":"x",'.encode(), b"{", b'"a":1}'),
    "arrays": _repeated(b"["),
    "objects": _repeated(b'{"a":'),
    "escapes": _repeated(b"\\u0061", b'{"a":"', b'"}'),
    "escaped names": _repeated(b'"\\u0070\\u0061":1,', b"{", b'"a":1}'),
    "backslashes": _repeated(b"\\", b'{"a":"', b'"}'),
    "quotes": _repeated(b'"'),
    "JSON in JSON": _grown('{"password":"x"}', lambda text: json.dumps({"a": text})),
    "base64 of base64": _grown('{"password":"hunter2222222"}', _encoded),
    "base64 of JSON of base64": _grown('{"password":"x"}', lambda text: json.dumps({"a": _encoded(text)})),
    "base64": lambda size: base64.b64encode(random.Random(1).randbytes(size * 3 // 4)),
    "base64 of text": lambda size: base64.b64encode(b"hello world " * (size // 16)),
    "base64 of JSON": _repeated(b'"' + base64.b64encode(b'{"a":"b","c":1}') + b'",', b"[", b"1]"),
    "percent": _repeated(b"%25"),
    "percent of percent": _repeated(b"%2525252525"),
    "JSON in a form": _repeated(b"a=%7B%22a%22%3A1%7D&"),
    "form": _repeated(b"a=1&"),
    "empty form": _repeated(b"&="),
    "elements": _repeated(b"<a>"),
    "secret elements": _repeated(b"<password>"),
    "attributes": _repeated(b'<a b="'),
    "character references": _repeated(b"&#x61;"),
    "parts": _repeated(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'),
    "literals of a query": _repeated(b'password:\\"a\\" ', b'{"query":"', b'"}'),
    "events": _repeated(b"data: {}\n\n"),
    "hexadecimal": _repeated(b"0123456789abcdef"),
    "NUL": _repeated(b"\0"),
    "no text": _repeated(b"\xff"),
}


def exchange(number: int, body: bytes, media: str) -> bytes:
    """A connection with one exchange whose answer is this body."""
    conn = (1 << 50 | number << 12, 100, 5)
    ask = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (media.encode(), len(body)) + body
    pieces = [
        abi.pack_open(conn, ts_ns=1, local=("10.0.0.1", 80), remote=("10.0.0.2", 1)),
        abi.pack_data(conn, 0, 0, ask, ts_ns=1),
    ]
    for at in range(0, len(answer), 16384):
        pieces.append(abi.pack_data(conn, 1, at, answer[at : at + 16384], ts_ns=1))
    return b"".join([*pieces, abi.pack_close(conn, ts_ns=2, final_in=len(ask), final_out=len(answer))])


def cost(policy: str, body: bytes, media: str, runs: int = 3) -> float:
    """ns of CPU time a byte, the least of so many runs."""
    count = max(1, (1 << 20) // len(body))
    span = [exchange(n, body, media) for n in range(count)]
    best = []
    for _ in range(runs):
        pipe = core.pipeline(body_bytes=1 << 20)
        if policy != "off":
            pipe.use_policy(BUILTIN[policy], b"")
        started = time.process_time()
        core.feed(pipe, span)
        best.append(time.process_time() - started)
        assert pipe.statistics()["records"] == count
    return min(best) / (count * len(body)) * 1e9


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench hostile`."""
    parser = argparse.ArgumentParser(prog="scripts/bench hostile", description=__doc__)
    parser.add_argument("--policy", choices=list(BUILTIN), default="secrets")
    parser.add_argument("--body", type=int, default=65536)
    parser.add_argument("--type", default="application/json", help="what the bodies are said to be")
    parser.add_argument("--only", default="", help="names of bodies, with commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    ordinary = cost(options.policy, BODIES["ordinary"](options.body), options.type)
    for name in options.only.split(",") if options.only else BODIES:
        whole = cost(options.policy, BODIES[name](options.body), options.type)
        quarter = cost(options.policy, BODIES[name](options.body // 4), options.type)
        without = cost("off", BODIES[name](options.body), options.type)
        result = {"ns_per_byte": whole, "off": without, "quarter": quarter, "times_ordinary": whole / ordinary}
        rounded = {key: round(value, 2) for key, value in result.items()}
        print(
            json.dumps({"body": name, **rounded})
            if options.json
            else f"{name:26}" + "".join(f"{v:>10}" for v in rounded.values())
        )
