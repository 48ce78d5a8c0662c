"""The forms of patterns in a policy. Each check returns why a text is none, or "" when it is one."""

from __future__ import annotations

import ipaddress
import re

import re2

_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_WITH_PORT = re.compile(r"[^:]*:[0-9*]+|\[.*\](:.*)?")
_POINTER_ESCAPE = re.compile(r"~(?![01])")


def host(text: str) -> str:
    """A glob of host names (model.Scope)."""
    if "/" in text or any(c.isspace() for c in text):
        return "is no host name"
    if _WITH_PORT.fullmatch(text):
        return "is expected without a port and without brackets: any port is meant"
    return ""


def path(text: str) -> str:
    """A glob of paths."""
    if not text.startswith(("/", "*")):
        return f"is expected to begin with / or *; did you mean /{text}?"
    if "?" in text or "#" in text:
        return "is expected to be a path without query; `*` stands for any characters, `?` for none"
    return ""


def method(text: str) -> str:
    """The name of a method, which is case-sensitive (RFC 9110 section 9.1)."""
    if text not in _KNOWN_METHODS and text.upper() in _KNOWN_METHODS:
        return f"is no method; did you mean {text.upper()}?"
    return ""


def content_type(text: str) -> str:
    """A glob of media types without parameters."""
    if ";" in text or any(c.isspace() for c in text):
        return "is expected to be a media type without parameters, such as text/html"
    if "/" not in text and "*" not in text:
        return "is expected to be a media type, such as text/html or image/*"
    return ""


def address(text: str) -> str:
    """A network or an address (CIDR)."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        try:
            return f"has bits beyond its prefix; did you mean {ipaddress.ip_network(text, strict=False)}?"
        except ValueError:
            return "is expected to be an address or a network, such as 10.0.0.0/8 or fd00::/8"
    return ""


def regex(text: str) -> str:
    """RE2, as the shards use it."""
    try:
        re2.compile(text.encode(), _quiet())
    except re2.error as error:
        why = error.args[0] if error.args else error
        return f"is no RE2: {why.decode(errors='replace') if isinstance(why, bytes) else why}"
    return ""


def _quiet() -> re2.Options:
    options = re2.Options()
    options.log_errors = False  # the library would write the pattern to standard error
    return options


def pointer(text: str) -> str:
    """A JSON pointer (RFC 6901) whose segments may be `*` or `**`."""
    if not text.startswith("/"):
        return f"is expected to begin with /; did you mean /{text.removeprefix('$').lstrip('.').replace('.', '/')}?"
    if _POINTER_ESCAPE.search(text):
        return "has a `~` that is neither ~0 (for ~) nor ~1 (for /)"
    return ""


def template(text: str) -> str:
    """A path whose segments are texts, `*` (any one), or in braces (any one, which is redacted): `{*}` or, with a name for
    people, `{id}`.
    """
    if not text.startswith("/"):
        return f"is expected to begin with /; did you mean /{text}?"
    if "?" in text or "#" in text:
        return "is expected to be a path without query"
    braces = 0
    for segment in text[1:].split("/"):
        inner = segment
        if segment.startswith("{") and segment.endswith("}") and len(segment) > 2:
            braces += 1
            inner = segment[1:-1]
        if "{" in inner or "}" in inner:
            return f"has braces that are not around a whole segment: {segment}"
        if "*" in inner and inner != "*":
            return f"has a `*` that is not a whole segment: {segment}"
    return "" if braces else "has no segment in braces, so nothing of it would be redacted; such as /customers/{*}/orders"
