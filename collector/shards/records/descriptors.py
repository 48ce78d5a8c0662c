"""Protobuf messages as JSON (https://protobuf.dev/programming-guides/json/), as descriptor sets say what they are.

    methods = Methods([data])                           # a FileDescriptorSet, as protoc and buf write it
    methods.json_of(b"/shop.Orders/Get", True, [message], 1000, 10**6)

A message that cannot be one of its type, or would be too much, is `null` in the array; nothing is raised, and no other
message is lost by it. What a message costs is found before it is begun (weigh.pyx). Nothing here opens a file: all modules
that the library may want are imported with this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message

from collector.shards.records.weigh import Scale, Shape

WORK_JSON = 7000  # units of WORK (codings.pyx) for each message, besides what weigh.pyx says
_NULL = json.dumps(None)
_NULL_BYTES = len(_NULL) + len(",")
_VARINT, _FIXED64, _FIXED32, _ENUM, _STRING, _PATH, _BYTES = 0, 1, 5, 8, 9, 10, 11  # as in weigh.pyx
_ALONE = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_ENUM: _ENUM,
    FieldDescriptor.TYPE_STRING: _STRING,
    FieldDescriptor.TYPE_BYTES: _BYTES,
}


class DescriptorError(ValueError):
    """What is wrong with a descriptor set."""


class _Type:
    """A message type: its shape, and the library's class, made when a message of it comes."""

    def __init__(self, descriptor: Descriptor, shape: Shape) -> None:
        self._descriptor = descriptor
        self.shape = shape
        self._class: type[Message] | None = None

    def parse(self, data: bytes) -> Message:
        """Raises DecodeError."""
        if self._class is None:
            self._class = message_factory.GetMessageClass(self._descriptor)
        return self._class.FromString(data)


class _Files:
    """The files of a descriptor set. Its pool builds one when somebody asks for what is in it: built they take twelve times
    as much memory as here, and most of a large set never comes by. The methods' names are the library's.
    """

    def __init__(self, data: bytes) -> None:
        """Raises DescriptorError."""
        self.services = 0
        self.extending: dict[str, list[str]] = {}  # the names of the files that extend a type
        self._files: dict[str, bytes] = {}
        self.symbols: dict[str, str] = {}  # the file that a type or service is in; nested types are where the outer one is
        for file in _in_order(data):
            self.services += len(file.service)
            for one in (*file.message_type, *file.enum_type, *file.service):
                self.symbols[f"{file.package}.{one.name}".lstrip(".")] = file.name
            for extended in _extended(file):
                self.extending.setdefault(extended, []).append(file.name)
            self._files[file.name] = file.SerializeToString()
        if not self.services:
            raise DescriptorError("there is no service in it")

    def FindFileByName(self, name: str) -> descriptor_pb2.FileDescriptorProto:
        """Raises KeyError."""
        return descriptor_pb2.FileDescriptorProto.FromString(self._files[name])

    def FindFileContainingSymbol(self, symbol: str) -> descriptor_pb2.FileDescriptorProto:
        """Raises KeyError."""
        while symbol and symbol not in self.symbols:
            symbol = symbol.rpartition(".")[0]
        return self.FindFileByName(self.symbols[symbol])


class _Set:
    """One descriptor set, in a pool of its own: two sets may have the same file in two versions."""

    def __init__(self, data: bytes) -> None:
        """Raises DescriptorError."""
        self._files = _Files(data)
        self.pool = descriptor_pool.DescriptorPool(self._files)
        self._types: dict[str, _Type] = {}
        self.scale = Scale(self._named)

    def method(self, service: str, method: str) -> MethodDescriptor | None:
        """None when it is not in this set."""
        if service not in self._files.symbols:  # anybody can ask for anything
            return None
        try:
            return self.pool.FindServiceByName(service).FindMethodByName(method)
        except KeyError:
            return None

    def type_of(self, descriptor: Descriptor) -> _Type:
        """The same for each message of a type."""
        known = self._types.get(descriptor.full_name)
        if known is None:
            shape = Shape(
                lambda: self._fields(descriptor),
                descriptor.full_name,
                descriptor.GetOptions().message_set_wire_format,
            )
            known = self._types[descriptor.full_name] = _Type(descriptor, shape)
        return known

    def _fields(self, descriptor: Descriptor) -> Iterator[tuple[int, bool, int, Shape | None]]:
        """For Shape, extensions included."""
        for name in self._files.extending.get(descriptor.full_name, ()):
            self.pool.FindFileByName(name)
        extensions = self.pool.FindAllExtensions(descriptor) if descriptor.is_extendable else ()
        for field in (*descriptor.fields, *extensions):
            held = field.message_type
            shape = self.type_of(held).shape if held is not None else None
            alone = _ALONE.get(field.type, _VARINT)
            if descriptor.full_name == "google.protobuf.FieldMask" and alone == _STRING:
                alone = _PATH
            yield field.number, field.is_repeated, alone, shape

    def _named(self, url: bytes) -> Shape | None:
        """What an Any names (google/protobuf/any.proto: what follows the last slash), None when it is not in this set."""
        try:
            return self.type_of(self.pool.FindMessageTypeByName(url.decode().rpartition("/")[2])).shape
        except (KeyError, UnicodeError):
            return None


def _extended(types: descriptor_pb2.FileDescriptorProto | descriptor_pb2.DescriptorProto) -> Iterator[str]:
    """The names of the types that a file or a type extends."""
    for extension in types.extension:
        yield extension.extendee.lstrip(".")
    nested = types.message_type if isinstance(types, descriptor_pb2.FileDescriptorProto) else types.nested_type
    for one in nested:
        yield from _extended(one)


def _in_order(data: bytes) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """The files of a set without their comments, each behind those that it imports. Raises DescriptorError."""
    try:
        files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(data).file}
    except DecodeError:
        files = {}
    if not files:
        raise DescriptorError("is no FileDescriptorSet, as `protoc --descriptor_set_out` and `buf build -o` write it")
    done: set[str] = set()
    for name in files:
        waiting = [name]
        while waiting:
            file = files[waiting[-1]]
            missing = next((one for one in file.dependency if one not in files), None)
            if missing is not None:
                raise DescriptorError(f"{file.name!r} imports {missing!r}, which is not in it (protoc: --include_imports)")
            first = next((one for one in file.dependency if one not in done), None)
            if first is None:
                if waiting.pop() not in done:
                    done.add(file.name)
                    file.ClearField("source_code_info")
                    yield file
            elif first in waiting:
                raise DescriptorError(f"{first!r} imports itself")
            else:
                waiting.append(first)


def services(data: bytes) -> int:
    """How many a set describes. Builds all of it. Raises DescriptorError for what cannot be used."""
    pool = descriptor_pool.DescriptorPool()
    for file in _in_order(data):
        try:
            pool.AddSerializedFile(file.SerializeToString())
        except Exception as error:  # TypeError, as a rule: what the library has to say
            raise DescriptorError(f"{file.name!r}: {error}") from None
    return _Files(data).services


class Methods:
    """The methods of these sets; of one that two have, the first. Raises DescriptorError, but not for all that is wrong:
    sets are checked where they are read (`services`).
    """

    def __init__(self, sets: Iterable[bytes]) -> None:
        self._sets = [_Set(data) for data in sets]
        self._known: dict[bytes, tuple[_Set, _Type, _Type]] = {}

    def _find(self, path: bytes) -> tuple[_Set, _Type, _Type] | None:
        """(set, type of requests, type of answers) for a path that ends with /package.Service/Method; a query is ignored."""
        _, service, method = (b"//" + path.partition(b"?")[0]).rsplit(b"/", 2)
        name = service + b"/" + method
        known = self._known.get(name)
        if known is None and name.isascii():
            for one in self._sets:
                found = one.method(service.decode(), method.decode())
                if found is not None:
                    known = one, one.type_of(found.input_type), one.type_of(found.output_type)
                    self._known[name] = known
                    break
        return known

    def json_of(
        self, path: bytes, is_request: bool, messages: Sequence[bytes | None], most: int, allowance: int
    ) -> tuple[bytes, int, int] | None:
        """(a JSON array of these messages, how many of them are null in it, work); None when the method is unknown.

        A message that is None is null. ``most``: bytes that the array may have as a text in a record, with its escapes.
        ``allowance``: units of work.
        """
        found = self._find(path)
        if found is None:
            return None
        one, asked, answered = found
        kind = asked if is_request else answered
        out: list[str] = []
        failed = work = 0
        room = most - _NULL_BYTES * len(messages) - len("[]")
        for message in messages:
            text = None
            if message is not None and work < allowance:
                text, size, cost = _json(one, kind, message, allowance - work)
                work += cost
                if size > room + _NULL_BYTES:
                    text = None
            if text is None:
                failed += 1
            else:
                room -= size - _NULL_BYTES
            out.append(text or _NULL)
        return f"[{','.join(out)}]".encode(), failed, work


def _json(one: _Set, kind: _Type, message: bytes, allowance: int) -> tuple[str | None, int, int]:
    """(JSON or None, its bytes in a record, a comma behind it, work)."""
    work = WORK_JSON
    try:
        fits, weight = one.scale.weigh(kind.shape, message, allowance - WORK_JSON)
        work += weight
        if not fits:
            return None, 0, work
        value = json_format.MessageToDict(kind.parse(message), descriptor_pool=one.pool)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        data = text.encode()
    except Exception:  # whatever the library says of a message from the wire: it has a dozen ways, and RecursionError
        return None, 0, work
    # Escaped, quotes and backslashes are two bytes; U+007F is six, and U+0080 to U+009F, which begin as some others do, too
    size = len(data) + data.count(b'"') + data.count(b"\\") + 5 * data.count(b"\x7f") + 4 * data.count(b"\xc2") + len(",")
    return text, size, work
