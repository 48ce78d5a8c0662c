"""What of a path is an identifier, by its form alone."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.sampling.folding import fold

IDENTIFIERS = {
    "numbers": ["7", "123", "00042", "-5", "1,2,3", "52.5200,13.4050", "20261127"],
    "dates and times": [
        "2026-11-27",
        "2026-11",
        "10:15",
        "2026-11-27T10:15:00Z",
        "20261127T101500Z",
        "2026-11-27T10:15+01:00",
    ],
    "IPv4 addresses": ["10.0.0.12"],
    "UUIDs": ["550e8400-e29b-41d4-a716-446655440000", "urn:uuid:550e8400-e29b-41d4-a716-446655440000"],
    "hexadecimal": [
        "4f90d13a",
        "507f1f77bcf86cd799439011",
        "DA39A3EE5E6B4B0D",
        "main.3f2a1b9c.js",
        "sha256:9f86d081884c7d65",
    ],
    "ULIDs and the like": ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "0ujsszwN8NRY24YaXiTIE2VWDTS", "cjld2cjxh0000qzrmn831i7rn"],
    "base64url": [
        "dQw4w9WgXcQ",
        "V1StGXR8_Z5jdHi6B-myT",
        "cus_9s6XKzkNRiz8i3",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.x",
    ],
    "number behind a word": ["order-12345", "INV00042", "user_100200"],
    "e-mail": ["ann@example.com", "ann%40example.com"],
    "percent-encoded": ["New%20York", "%D0%9C%D0%B8%D1%80"],
    "long": ["a" * 65],
}
NAMES = [
    "", "users", "v1", "v2.0", "1.1", "1.10.2", "oauth2", "oauth2-callback", "iso8601", "top-10-best", "getUserById2",
    "@ann", "deadbeef", "s3", "en-US", "index.html", "jquery-3.7.1.min.js", "$metadata", "Products(ID)", "a" * 64,
    "well-known",
]  # fmt: skip


@pytest.mark.parametrize("segment", [one for form in IDENTIFIERS.values() for one in form])
def test_identifiers_are_folded(segment: str) -> None:
    assert fold(b"/items/%s/parts?id=7" % segment.encode()) == b"/items/*/parts"
    assert fold(b"/items/" + segment.encode()) == b"/items/*"


@pytest.mark.parametrize("segment", NAMES)
def test_names_stay(segment: str) -> None:
    assert fold(b"/a/%s/b" % segment.encode()) == b"/a/%s/b" % segment.encode()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/users/7?page=2/3", b"/users/*"),
        (b"/users#7", b"/users"),
        (b"/users;jsessionid=1A2B3C4D5E6F/7;v=1", b"/users/*"),
        (b"http://api.example:8080/users/7", b"/users/*"),
        (b"HTTPS://api.example", b""),
        (b"*", b"*"),
        (b"", b""),
        (b"/", b"/"),
        (b"//7/", b"//*/"),
    ],
)
def test_only_the_path_counts(target: bytes, path: bytes) -> None:
    assert fold(target) == path


def test_random_identifiers_of_common_forms_are_nearly_always_folded() -> None:
    """What is not, is a name by its form: a random one has no digit, or only one."""
    choose = random.Random(14)
    base62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    forms = {
        "uuid": (lambda: str(uuid.UUID(int=choose.getrandbits(128))), 0.001),
        "hex": (lambda: f"{choose.getrandbits(64):016x}", 0.001),
        "ulid": (lambda: "".join(choose.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=26)), 0.001),
        "base62 of 22": (lambda: "".join(choose.choices(base62, k=22)), 0.03),
    }
    for name, (make, most) in forms.items():
        missed = sum(fold(make().encode()) != b"*" for _ in range(10_000))
        assert missed <= most * 10_000, (name, missed)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_path_that_folds_to_itself(target: bytes) -> None:
    folded = fold(target)
    assert b"?" not in folded and b"#" not in folded and b";" not in folded
    if not folded.lower().startswith((b"http://", b"https://")):
        assert fold(folded) == folded
