"""What must be known of certificates that `ssl` does not tell: PEM blocks in a text, and for how long each is valid.

`ssl` shows a certificate only when it has verified it; an expired one is what we want to see.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def certificates(pem: str) -> list[bytes]:
    """The certificates (DER) of a text, in their order. Raises ValueError for a block that is not base64."""
    found = []
    for kind, text in _BLOCK.findall(pem):
        if kind in ("CERTIFICATE", "X509 CERTIFICATE"):
            try:
                found.append(base64.b64decode("".join(text.split()), validate=True))
            except binascii.Error:
                raise ValueError("a certificate that is not base64") from None
    return found


def has_key(pem: str) -> bool:
    """Is there a private key in the text?"""
    return any(kind.endswith("PRIVATE KEY") for kind, _text in _BLOCK.findall(pem))


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """(tag, start of the contents, end) of the element at ``at`` (X.690). Raises ValueError."""
    if at + 2 > len(der):
        raise ValueError("cut off")
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size]), start + size
        if not 0 < size <= 4:
            raise ValueError("a length of no or too many bytes")
    if start + length > len(der):
        raise ValueError("cut off")
    return tag, start, start + length


def _inside(der: bytes, at: int) -> tuple[int, int]:
    tag, start, end = _element(der, at)
    if tag != _SEQUENCE:
        raise ValueError("not a sequence")
    return start, end


def _time(der: bytes, at: int) -> tuple[float, int]:
    """(Unix time, end) of a time as RFC 5280 section 4.1.2.5 has it."""
    tag, start, end = _element(der, at)
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%S%z").timestamp(), end


def validity(der: bytes) -> tuple[float, float]:
    """From when until when (Unix times) a certificate is valid (RFC 5280 section 4.1). Raises ValueError when it is none."""
    certificate, _end = _inside(der, 0)
    at, _end = _inside(der, certificate)
    if der[at : at + 1] == bytes([_VERSION]):
        at = _element(der, at)[2]
    for _part in ("serial number", "signature", "issuer"):
        at = _element(der, at)[2]
    at, _end = _inside(der, at)
    begin, at = _time(der, at)
    return begin, _time(der, at)[0]


def date(seconds: float) -> str:
    """A Unix time for people."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
