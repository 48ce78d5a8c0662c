"""What of a path is an identifier, by its form alone."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.folding import folded

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
    "feedfacefeedface", "a-long-readable-slug-of-2024", "{id}", "*",
]  # fmt: skip


@pytest.mark.parametrize("segment", [one for form in IDENTIFIERS.values() for one in form])
def test_identifiers_are_folded(segment: str) -> None:
    assert folded(b"/items/%s/parts?id=7" % segment.encode()) == b"/items/{id}/parts"
    assert folded(b"/items/" + segment.encode()) == b"/items/{id}"


@pytest.mark.parametrize("segment", NAMES)
def test_names_stay(segment: str) -> None:
    assert folded(b"/a/%s/b" % segment.encode()) == b"/a/%s/b" % segment.encode()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/users/7?page=2/3", b"/users/{id}"),
        (b"/users#7", b"/users"),
        (b"/users;jsessionid=1A2B3C4D5E6F/7;v=1", b"/users/{id}"),
        (b"http://api.example:8080/users/7", b"/users/{id}"),
        (b"HTTPS://api.example", b""),
        (b"ws+unix://api.example:80/12?z", b"/{id}"),
        (b"http://", b""),
        (b"://a/b", b"://a/b"),
        (b"h.example:443", b"h.example:443"),
        (b"10.0.0.1:443", b"{id}"),
        (b"*", b"*"),
        (b"", b""),
        (b"/", b"/"),
        (b"//7/", b"//{id}/"),
    ],
)
def test_only_the_path_counts(target: bytes, path: bytes) -> None:
    assert folded(target) == path


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
        missed = sum(folded(make().encode()) != b"{id}" for _ in range(10_000))
        assert missed <= most * 10_000, (name, missed)


targets = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from([b"/", b"//", b"7", b"users", b"v1", b"%41", b"@", b";", b"?", b"#", b"http://", b"-", b"a1b2c3d4"]),
        max_size=20,
    ).map(b"".join),
)


@given(targets)
def test_any_bytes_have_a_path_that_folds_to_itself(target: bytes) -> None:
    """The path has nothing that ends one. It folds to itself if it is one: what begins with a scheme would lose its host."""
    path = folded(target)
    assert not set(b"?#;") & set(path)
    assert len(path) <= 4 * len(target) + 4
    if path.startswith(b"/") or b"://" not in path:
        assert folded(path) == path


@given(targets, st.integers(1, 80))
def test_so_much_of_the_path_as_is_wanted(target: bytes, most: int) -> None:
    assert folded(target, most) == folded(target)[:most]
