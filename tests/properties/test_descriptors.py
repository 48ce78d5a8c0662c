"""Messages as JSON: for any message what its sender's library makes of it, for any bytes nothing but JSON."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.shards.records.descriptors import WORK_JSON, Methods
from tests.protobuf import OLD, RICH, as_json, descriptor_set, kind, pool

NO_BOUND = 1 << 40
LEAST_WORK = 500  # of what becomes a value of the JSON
METHODS = Methods([descriptor_set(*RICH), descriptor_set(*OLD)])
SCHEMAS = {b"/rich.v1.Rich/One": ("rich.v1.Everything", RICH), b"/old.Old/Get": ("old.Before", OLD)}

_INTEGERS = {"INT32": (-(1 << 31), (1 << 31) - 1), "INT64": (-(1 << 63), (1 << 63) - 1)}
_INTEGERS |= {"UINT32": (0, (1 << 32) - 1), "UINT64": (0, (1 << 64) - 1)}
_CPP = {getattr(FieldDescriptor, f"CPPTYPE_{name}"): st.integers(*bounds) for name, bounds in _INTEGERS.items()}
_CPP |= {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
}


@st.composite
def messages(draw: Any, name: str, names: tuple[str, ...], depth: int = 3) -> Any:
    """Of this type, with some of its fields, those that extend it included."""
    message = kind(name, *names)()
    fill(draw, message, message.DESCRIPTOR, names, depth)
    return message


def fill(draw: Any, message: Any, descriptor: Descriptor, names: tuple[str, ...], depth: int) -> None:
    if descriptor.full_name == "google.protobuf.Any":
        if depth and draw(st.booleans()):
            message.Pack(draw(messages(SCHEMAS[b"/rich.v1.Rich/One"][0], RICH, depth - 1)))
        return
    extensions = pool(*names).FindAllExtensions(descriptor) if descriptor.is_extendable else []
    fields = [field for field in (*descriptor.fields, *extensions) if depth or field.message_type is None]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=6, unique_by=lambda field: field.number)) if fields else []
    for field in [*chosen, *(one for one in descriptor.fields if one.is_required and one not in chosen)]:
        if field.is_extension:
            place = message.Extensions[field] if field.is_repeated or field.message_type else None
        else:
            place = getattr(message, field.name)
        put(draw, message, place, field, names, depth)


def put(draw: Any, message: Any, place: Any, field: FieldDescriptor, names: tuple[str, ...], depth: int) -> None:
    held = field.message_type
    if held is not None and held.GetOptions().map_entry:
        key, value = held.fields_by_name["key"], held.fields_by_name["value"]
        for one in draw(st.lists(scalar(key), max_size=3)):
            if value.message_type is None:
                place[one] = draw(scalar(value))
            else:
                fill(draw, place[one], value.message_type, names, depth - 1)
    elif held is not None and field.is_repeated:
        for _ in range(draw(st.integers(0, 3))):
            fill(draw, place.add(), held, names, depth - 1)
    elif held is not None:
        place.SetInParent()
        fill(draw, place, held, names, depth - 1)
    elif field.is_repeated:
        place.extend(draw(st.lists(scalar(field), max_size=4)))
    elif field.is_extension:
        message.Extensions[field] = draw(scalar(field))
    else:
        setattr(message, field.name, draw(scalar(field)))


def scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    if field.enum_type is not None:
        known = st.sampled_from([value.number for value in field.enum_type.values])
        return known if field.enum_type.is_closed else known | st.integers(-(1 << 31), (1 << 31) - 1)
    return _CPP[field.cpp_type]


def json_of(path: bytes, data: bytes, most: int = 1 << 24) -> tuple[Any, int]:
    """(the one value, the work)."""
    found = METHODS.json_of(path, True, [data], most, NO_BOUND)
    assert found is not None
    text, failed, work = found
    (value,) = json.loads(text)
    assert failed == (value is None)
    return value, work


def expected(data: bytes, path: bytes) -> Any:
    """What a receiver's library says, None when it has no JSON for it."""
    name, names = SCHEMAS[path]
    try:
        return as_json(kind(name, *names).FromString(data), *names)
    except (DecodeError, json_format.Error, TypeError, ValueError, OverflowError):
        return None


def values(found: Any) -> int:
    """How many there are in a JSON text."""
    if isinstance(found, dict):
        return sum(map(values, found.values())) + 1
    return sum(map(values, found)) + 1 if isinstance(found, list) else 1


PATHS = st.sampled_from(sorted(SCHEMAS))


@given(PATHS.flatmap(lambda path: st.tuples(st.just(path), messages(*SCHEMAS[path]))))
def test_any_message_is_what_its_sender_says(case: tuple[bytes, Any]) -> None:
    path, message = case
    data = message.SerializePartialToString()
    found, work = json_of(path, data)
    assert found == expected(data, path)
    assert work >= WORK_JSON + values(found) * LEAST_WORK - LEAST_WORK


@given(PATHS.flatmap(lambda path: st.tuples(st.just(path), messages(*SCHEMAS[path]))), st.data())
@settings(max_examples=300)
def test_changed_bytes_are_what_a_receiver_says_or_null(case: tuple[bytes, Any], data: st.DataObject) -> None:
    path, message = case
    changed = bytearray(message.SerializePartialToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed)))
        match data.draw(st.integers(0, 3)):
            case 0:
                changed[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
            case 1:
                del changed[place : place + data.draw(st.integers(1, 9))]
            case 2:
                changed[place:place] = data.draw(st.binary(max_size=4))
            case _:
                changed[place:place] = changed[: data.draw(st.integers(0, 40))]
    found, work = json_of(path, bytes(changed))
    assert found is None or found == expected(bytes(changed), path)
    assert work >= values(found) * LEAST_WORK


@given(PATHS, st.binary(max_size=300))
def test_any_bytes_are_what_a_receiver_says_or_null(path: bytes, data: bytes) -> None:
    found, _ = json_of(path, data)
    assert found is None or found == expected(data, path)


@given(st.lists(st.binary(max_size=40) | st.none(), max_size=8), st.integers(0, 300), st.integers(0, 100_000), st.binary())
def test_any_arguments(parts: list[bytes | None], most: int, allowance: int, path: bytes) -> None:
    METHODS.json_of(path, True, parts, most, allowance)
    found = METHODS.json_of(b"/rich.v1.Rich/One", False, parts, most, allowance)
    assert found is not None
    assert len(json.loads(found[0])) == len(parts)
