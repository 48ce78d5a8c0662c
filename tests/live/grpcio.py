"""Both ends of gRPC calls with messages of rich.proto. The server prints what it gets and sends, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.protobuf import RICH, as_json, kind, rich

SERVICE = "rich.v1.Rich"
EVERYTHING, ITEM = kind("rich.v1.Everything", *RICH), kind("rich.v1.Everything.Item", *RICH)


def log(call: str, side: str, message: Any) -> Any:
    print(json.dumps([call, side, as_json(message, *RICH)]), flush=True)
    return message


def one(asked: Any, _context: Any) -> Any:
    log("One", "request", asked)
    answer = EVERYTHING()
    answer.CopyFrom(asked)
    answer.any.Pack(asked)
    return log("One", "response", answer)


def many(asked: Iterator[Any], _context: Any) -> Iterator[Any]:
    for message in asked:
        log("Many", "request", message)
        for n in range(2):
            yield log("Many", "response", ITEM(name_of_item=message.a_string, count=n))


def handler(make: Callable[..., Any], behaviour: Callable[..., Any], answer: Any) -> Any:
    return make(behaviour, EVERYTHING.FromString, answer.SerializeToString)


def messages(count: int) -> Iterator[Any]:
    for n in range(count):
        message = rich(a_string=f"{n} é", an_int64=n << 40, numbers=range(n), colours=[1, 99])
        message.at.FromSeconds(1_790_000_000 + n)
        message.by_number[n].whole.a_double = float("nan")
        yield message


def main() -> None:
    methods = {
        "One": handler(grpc.unary_unary_rpc_method_handler, one, EVERYTHING),
        "Many": handler(grpc.stream_stream_rpc_method_handler, many, ITEM),
    }
    server = grpc.server(ThreadPoolExecutor(4), compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        unary = channel.unary_unary(f"/{SERVICE}/One", EVERYTHING.SerializeToString, EVERYTHING.FromString)
        stream = channel.stream_stream(f"/{SERVICE}/Many", EVERYTHING.SerializeToString, ITEM.FromString)
        for message in messages(20):
            unary(message, timeout=20)
        assert len(list(stream(messages(10), timeout=20))) == 20
    server.stop(1).wait()


if __name__ == "__main__":
    sys.exit(main())
