"""The JSON schema of policy files: what `make docs` writes to docs/policy.schema.json, and what files are checked against.

A ``description`` is what an error says was expected; editors show it, too.
"""

from __future__ import annotations

import json
from typing import Any

MOST_RULES = 64  # a bit for each (shards/state.pxd exchange_t.candidates)
MOST_PATTERNS = 1000  # of one list
MOST_TEXT = 1000  # characters of one pattern

_TOKEN = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"  # RFC 9110 section 5.6.2


def _texts(what: str, **further: Any) -> dict[str, Any]:
    item = {"type": "string", "minLength": 1, "maxLength": MOST_TEXT, "description": what, **further}
    return {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_PATTERNS, "description": f"a list; each: {what}"}


def _object(properties: dict[str, Any], **further: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **further}


_HOSTS = _texts("a host name without port, in which `*` stands for any characters")
_PATHS = _texts("a path without query, in which `*` stands for any characters, such as /v1/*")
_PATTERN = {"type": "string", "minLength": 1, "maxLength": MOST_TEXT}

_MATCH = _object(
    {
        "hosts": _HOSTS,
        "paths": _PATHS,
        "methods": _texts("a method, such as GET", pattern=_TOKEN),
        "statuses": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_PATTERNS,
            "description": "a list of status codes",
            "items": {
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": 999},
                    {"type": "string", "pattern": "^([1-9]xx|[0-9]{1,3}(-[0-9]{1,3})?)$"},
                ],
                "description": "a status code (404), a class (2xx) or a range (500-503); 0: no answer",
            },
        },
        "contentTypes": _texts("a media type of the answer without parameters, such as image/*"),
        "processes": _texts(
            "the name of a process, of which the first 15 bytes count, in which `*` stands for any characters"
        ),
        "addresses": _texts("an address or a network of either end, such as 10.0.0.0/8 or fd00::/8"),
        "directions": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "description": "a list of directions",
            "items": {"type": "string", "enum": ["inbound", "outbound"], "description": "inbound or outbound"},
        },
    },
    minProperties=1,
    description="at least one of hosts, paths, methods, statuses, contentTypes, processes, addresses, directions; "
    "of each that is given one has to fit",
)

_RULE = _object(
    {
        "name": {"type": "string", "minLength": 1, "maxLength": 64, "description": "what the rule is called, for people"},
        "include": _MATCH,
        "exclude": _MATCH,
    },
    oneOf=[{"required": ["include"]}, {"required": ["exclude"]}],
    description="a rule with either include or exclude",
)

_PARTS = ("header", "query", "path", "json", "name", "value")

_REDACTION_RULE = _object(
    {
        "kind": {
            "type": "string",
            "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,31}$",
            "description": "what a redacted value is called: a letter, then up to 31 letters, digits, `-` and `_`",
        },
        "header": {**_PATTERN, "pattern": _TOKEN, "description": "the name of a header field, in any case"},
        "query": {**_PATTERN, "description": "the name of a query parameter"},
        "path": {**_PATTERN, "description": "a template such as /customers/{*}/orders: the segments in braces are redacted"},
        "json": {
            **_PATTERN,
            "description": "a JSON pointer (RFC 6901); a segment may be `*`, or `**` for any number of them",
        },
        "name": {**_PATTERN, "description": "RE2, which is to match the whole name of a field, parameter or header"},
        "value": {**_PATTERN, "description": "RE2, which is looked for in every value"},
        "hosts": _HOSTS,
        "paths": _PATHS,
        "keep": {"type": "boolean", "description": "true: such values stay as they are"},
    },
    oneOf=[{"required": [part]} for part in _PARTS],
    description="a rule with exactly one of " + ", ".join(_PARTS),
)


def _count(what: str, least: int = 0) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": 1_000_000, "description": what}


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Policy of the collector",
    "description": "a policy: what is redacted, recorded and sampled",
    **_object(
        {
            "version": {"const": 1, "description": "the version of this format: 1"},
            "name": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
                "description": "at most 63 letters, digits, `.`, `-` and `_`, which metrics and the start line show",
            },
            "redaction": _object(
                {
                    "builtin": {
                        "type": "string",
                        "enum": ["off", "secrets", "strict"],
                        "description": "off, secrets or strict",
                    },
                    "rules": {
                        "type": "array",
                        "items": _REDACTION_RULE,
                        "maxItems": MOST_PATTERNS,
                        "description": "a list of rules, of which the first that matches a value decides",
                    },
                },
                description="what is done to values",
            ),
            "rules": {
                "type": "array",
                "items": _RULE,
                "maxItems": MOST_RULES,
                "description": f"a list of at most {MOST_RULES} rules, of which the first that matches decides",
            },
            "sampling": _object(
                {
                    "first": _count("exchanges of each endpoint and minute that are recorded whole, from 0"),
                    "oneIn": _count("of the further ones one in so many is recorded; 0: none"),
                    "headsOnly": {
                        "type": "boolean",
                        "description": "true: the further ones are recorded without bodies; false: they are left out",
                    },
                    "errorsOneIn": _count("of answers from 400 to 599 one in so many; 1: all, 0: as the others"),
                    "markedOneIn": _count("of records with marks one in so many; 1: all, 0: as the others"),
                    "endpoints": _count("endpoints that are known at a time, from 1 to 1000000", 1),
                },
                required=["first"],
                description="how many exchanges of each endpoint are recorded",
            ),
        },
        required=["version"],
    ),
}


def text() -> str:
    """docs/policy.schema.json."""
    return json.dumps(SCHEMA, indent=2) + "\n"
