"""Descriptor sets of the schemas beside this file, as protoc makes them, and messages of theirs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

HERE = Path(__file__).parent
RICH, OLD = ("rich.proto",), ("old.proto", "more.proto")


@cache
def descriptor_set(*names: str, imports: bool = True) -> bytes:
    """What `protoc --descriptor_set_out` writes for these schemas."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        arguments = [f"-I{HERE}", f"--descriptor_set_out={out}", *(["--include_imports"] if imports else []), *names]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, timeout=60)
        return out.read_bytes()


@cache
def pool(*names: str) -> descriptor_pool.DescriptorPool:
    """What an end of a call knows, which has all of it."""
    made = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set(*names)).file:
        made.Add(file)
    return made


@cache
def kind(name: str, *names: str) -> Any:
    """The class of a message type, for code that knows its fields."""
    return message_factory.GetMessageClass(pool(*names).FindMessageTypeByName(name))


def rich(**fields: Any) -> Any:
    """A message of the large type of rich.proto."""
    return kind("rich.v1.Everything", *RICH)(**fields)


def as_json(message: Message, *names: str) -> Any:
    """What its sender's library says that it is, as it is read again."""
    import json

    return json.loads(json_format.MessageToJson(message, descriptor_pool=pool(*names)))
