"""`AKTO_MODULE_DISCOVERY_CONFIG`: which exchanges are recorded, by their request headers.

Grammar: a JSON array of ``{"key": {"eq": HEADER, "ifAbsent": "reject"|"accept"}, "value": {"regex": RE2}}``.
An exchange is left out if any entry says so. Member names are matched in any case. An entry without ``eq`` is ignored;
a missing header rejects only with ``ifAbsent`` = reject; a present one must contain a match of the regex (unanchored,
case-sensitive); a missing or empty regex matches all. Unset, empty, `[]` and `null`: no filter. `akto-default`: AKTO_RULES,
which Akto's collector uses when nothing is set; by that any client can make its requests invisible with one header.

What does not parse refuses to start: a broken filter must never export what it was meant to hold back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import re2

from collector.errors import ConfigError

MAX_RULES, MAX_NAME = 32, 63  # fixed places in shards/state.pxd
VARIABLE = "AKTO_MODULE_DISCOVERY_CONFIG"
EXPECTED = 'a JSON array of {"key":{"eq":HEADER,"ifAbsent":"reject"|"accept"},"value":{"regex":RE2}}, or akto-default'
AKTO_DEFAULT = "akto-default"
AKTO_RULES = '[{"key":{"eq":"x-envoy-peer-metadata-id","ifAbsent":"accept"},"value":{"regex":".*sidecar.*"}}]'


@dataclass(frozen=True)
class Rule:
    """One entry: ``header`` is a field name in lower case, ``regex`` RE2 text ("" matches all)."""

    header: str
    reject_absent: bool
    regex: str


def _member(obj: Any, name: str) -> Any:
    if not isinstance(obj, dict):
        return None
    for key, value in obj.items():
        if key.lower() == name:
            return value
    return None


def _fail(value: str, why: str) -> ConfigError:
    return ConfigError(f"{VARIABLE}={value!r}: {why}; expected {EXPECTED}")


def parse_rules(text: str | None) -> list[Rule]:
    """The rules of the variable's text; raises ConfigError naming the variable when it does not parse."""
    if text is None or text.strip() == "":
        return []
    if text.strip() == AKTO_DEFAULT:
        text = AKTO_RULES
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _fail(text, f"not JSON ({error})") from None
    if config is None:
        return []
    if not isinstance(config, list):
        raise _fail(text, "not an array")
    rules: list[Rule] = []
    for number, entry in enumerate(config):
        if not isinstance(entry, dict):
            raise _fail(text, f"entry {number} is not an object")
        key, value = _member(entry, "key"), _member(entry, "value")
        for part, name in ((key, "key"), (value, "value")):
            if part is not None and not isinstance(part, dict):
                raise _fail(text, f"entry {number}: {name} is not an object")
        header, absent, regex = _member(key, "eq"), _member(key, "ifabsent"), _member(value, "regex")
        for part, name in ((header, "eq"), (absent, "ifAbsent"), (regex, "regex")):
            if part is not None and not isinstance(part, str):
                raise _fail(text, f"entry {number}: {name} is not a text")
        if not header:
            continue
        try:
            re2.compile(regex or "")
        except re2.error as error:
            raise _fail(text, f"entry {number}: the regex is not RE2 ({error})") from None
        if len(header.encode("latin-1", "replace")) > MAX_NAME or len(rules) == MAX_RULES:
            raise _fail(text, f"entry {number}: at most {MAX_RULES} rules and {MAX_NAME} characters of a header name")
        rules.append(Rule(header.lower(), (absent or "").lower() == "reject", regex or ""))
    return rules
