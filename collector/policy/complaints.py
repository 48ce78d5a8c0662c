"""What is wrong with a document by the schema, as one error that says where and what was expected."""

from __future__ import annotations

import difflib
import itertools
from typing import Any

import jsonschema

from collector.policy.document import Document, Path, Place, PolicyError
from collector.policy.schema import SCHEMA

_MOST_ERRORS = 1000  # that are looked at: a file can have 90,000, which would take the supervisor seconds

_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
}


def check(document: Document) -> None:
    """Raises PolicyError for what stands first in the file, among the first _MOST_ERRORS in the order of the schema."""
    first: PolicyError | None = None
    for error in itertools.islice(_VALIDATOR.iter_errors(document.data), _MOST_ERRORS):
        found = _complaint(document, error)
        if first is None or _order(found.place) < _order(first.place):
            first = found
    if first is not None:
        raise first


def _order(place: Place) -> tuple[int, int]:
    return place.line, place.column


def _complaint(document: Document, error: jsonschema.ValidationError) -> PolicyError:
    path: Path = tuple(error.absolute_path)
    schema: dict[str, Any] = error.schema
    value: Any = error.instance
    if error.validator == "additionalProperties":
        return _unknown_key(document, path, sorted(set(value) - set(schema["properties"])), list(schema["properties"]))
    if error.validator == "required":
        missing = next(name for name in schema["required"] if name not in value)
        what = schema["properties"][missing].get("description", "")
        return document.error(path, f"{missing} is missing{': ' if what else ''}{what}")
    expected = schema.get("description", "")
    if error.validator == "type":
        kind = _KINDS[schema["type"]]
        hint = ""
        if schema["type"] == "string" and isinstance(value, (bool, int, float)):
            hint = "; write it in quotes"
        elif schema["type"] == "array" and isinstance(value, str):
            hint = f"; did you mean [{value:.40}]?"
        return document.error(path, f"expected {kind}" + (f" ({expected})" if expected else "") + hint)
    if error.validator == "enum":
        near = difflib.get_close_matches(str(value), schema["enum"], 1, 0.6)
        return document.error(path, f"expected {expected}" + (f"; did you mean {near[0]}?" if near else ""))
    if error.validator == "oneOf" and isinstance(value, dict):
        given = sorted(set(value) & {one["required"][0] for one in schema["oneOf"]})
        return document.error(path, f"expected {expected}; there " + ("are " + " and ".join(given) if given else "is none"))
    if error.validator in ("minItems", "minLength"):
        return document.error(path, f"is empty; expected {expected}")
    if error.validator in ("maxItems", "maxLength"):
        most = schema[error.validator]
        return document.error(
            path, f"is too long: more than {most} {'entries' if error.validator == 'maxItems' else 'characters'}"
        )
    return document.error(path, f"expected {expected}")


def _unknown_key(document: Document, path: Path, unknown: list[str], known: list[str]) -> PolicyError:
    key = min(unknown, key=lambda name: _order(document.keys.get((*path, name), Place())))
    near = difflib.get_close_matches(key, known, 1, 0.6) or [name for name in known if name.lower() == key.lower()]
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
    return document.error((*path, key), f"unknown key{hint}", key=True)
