"""The list of what the image consists of."""

from __future__ import annotations

import datetime
import importlib.util
import json
import re
import sys
from types import ModuleType

import pytest

from tests.conftest import ROOT

STATUS = """\
libllvm14\t1:14.0.6-12\tamd64\tllvm-toolchain-14\t1:14.0.6-12\thttps://www.llvm.org/\tLLVM Packaging Team <llvm@example.org>
libstdc++6\t12.2.0-14+deb12u1\tamd64\tgcc-12\t12.2.0-14+deb12u1\thttp://gcc.gnu.org/\tDebian GCC <gcc@example.org>
bash\t5.2.15-2+b9\tamd64\tbash\t5.2.15-2\t\tMatthias Klose <doko@example.org>
"""


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "deploy" / "image" / "sbom.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def urls(packages: list[dict]) -> list[str]:
    return [one["externalRefs"][0]["referenceLocator"] for one in packages]


def test_packages_of_debian_are_known_by_name_version_and_source(sbom: ModuleType) -> None:
    packages = list(sbom.debian(STATUS, "debian-12"))
    assert urls(packages) == [
        "pkg:deb/debian/bash@5.2.15-2%2Bb9?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2",
        "pkg:deb/debian/libllvm14@1%3A14.0.6-12?arch=amd64&distro=debian-12&upstream=llvm-toolchain-14%401%3A14.0.6-12",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
        "&upstream=gcc-12%4012.2.0-14%2Bdeb12u1",
    ]
    assert packages[1]["supplier"] == "Organization: LLVM Packaging Team (llvm@example.org)"
    assert "homepage" not in packages[0] and packages[1]["homepage"] == "https://www.llvm.org/"


def test_distributions_are_those_of_this_environment_once_each(sbom: ModuleType) -> None:
    names = [one["name"] for one in sbom.python()]
    assert {"pyzmq", "kafka-python", "ebpf-api-collector", "multiprocessing-logging"} <= set(names)
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"pkg:pypi/[a-z0-9-]+@\S+", url) for url in urls(list(sbom.python())))
    assert "bcc" not in names  # the system's, which dpkg lists


def test_the_same_content_is_the_same_document(sbom: ModuleType) -> None:
    now = datetime.datetime(2026, 11, 28, 2, 3, 4, tzinfo=datetime.UTC)
    packages = [*sbom.debian(STATUS, "debian-12"), *sbom.python()]
    one, two = (sbom.document("1.2.3", packages, now) for _ in range(2))
    other = sbom.document("1.2.3", packages[1:], now)
    assert json.dumps(one) == json.dumps(two)
    assert one["documentNamespace"] != other["documentNamespace"]
    assert one["creationInfo"]["created"] == "2026-11-28T02:03:04Z"


def test_every_element_is_related_and_has_an_identifier_of_its_own(sbom: ModuleType) -> None:
    now = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
    document = sbom.document("1.2.3", [*sbom.debian(STATUS, "debian-12"), *sbom.python()], now)
    identifiers = [one["SPDXID"] for one in document["packages"]]
    assert len(identifiers) == len(set(identifiers))
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", name) for name in identifiers)
    assert {one["relatedSpdxElement"] for one in document["relationships"]} == set(identifiers)


def test_it_needs_nothing_but_the_standard_library() -> None:
    text = (ROOT / "deploy" / "image" / "sbom.py").read_text()
    names = re.findall(r"^(?:import|from) ([a-z_]+)", text, re.M)
    assert set(names) <= set(sys.stdlib_module_names) | {"__future__"}
