"""The pinned packages of the image are those that pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HELP = "run scripts/image --pins"


def pinned(name: str) -> dict[str, tuple[Version, int]]:
    """Version and number of digests of each package in a file of deploy/image."""
    text = (ROOT / "deploy" / "image" / name).read_text().replace("\\\n", " ")
    out: dict[str, tuple[Version, int]] = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            found = re.match(r"(\S+)==(\S+)", line)
            assert found, f"{line!r}: no exact version"
            out[canonicalize_name(found[1])] = (Version(found[2]), line.count("--hash=sha256:"))
    return out


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("build-requirements.txt", PROJECT["build-system"]["requires"]),
    ],
)
def test_each_dependency_is_pinned_to_a_version_that_will_do(file: str, wanted: list[str]) -> None:
    pins = pinned(file)
    for requirement in map(Requirement, wanted):
        version, digests = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}, pinned to {version}: {HELP}"
        assert digests > 0
    assert all(digests for _version, digests in pins.values())


def test_nothing_of_the_tests_is_in_the_image() -> None:
    tests = {canonicalize_name(Requirement(one).name) for one in PROJECT["project"]["optional-dependencies"]["test"]}
    needed = {canonicalize_name(Requirement(one).name) for one in PROJECT["project"]["dependencies"]}
    assert not (tests - needed) & set(pinned("requirements.txt"))
