"""Numbers of libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from collector.loader import kernel
from collector.loader.catalogue import NUMBERS, SIZE, Catalogue
from collector.loader.probes.probe import Found


@pytest.fixture
def table() -> Iterator[int]:
    fd = kernel.create_array(SIZE, NUMBERS)
    yield fd
    os.close(fd)


def test_a_number_belongs_to_a_file_until_it_is_released(table: int) -> None:
    catalogue = Catalogue(table)
    assert catalogue.add("fe:01:7:1", "openssl", Found((), "openssl-3.0.22", (1, 2**64 - 1))) == 1
    assert catalogue.add("fe:01:8:1", "go", Found((), "go-1.26")) == 2
    assert catalogue.add("fe:01:7:1", "openssl", Found((), "openssl-3.0.23")) == 1
    assert dict(catalogue.names()) == {1: "openssl-3.0.23", 2: "go-1.26"} and catalogue.names()[0] == ""
    catalogue.remove("fe:01:7:1")
    catalogue.remove("no such file")
    assert catalogue.add("fe:01:9:1", "x", Found((), "x")) == 3, "a number is given again as late as can be"


def test_each_name_is_told_once(table: int) -> None:
    catalogue = Catalogue(table)
    assert catalogue.untold() == {}
    for key, name in (("fe:01:7:1", "openssl-3.0.22"), ("fe:01:8:1", "go-1.26")):
        catalogue.add(key, "x", Found((), name))
    assert catalogue.untold() == {1: "openssl-3.0.22", 2: "go-1.26"} and catalogue.untold() == {}
    catalogue.add("fe:01:8:1", "x", Found((), "go-1.26"))
    assert catalogue.untold() == {}
    catalogue.add("fe:01:8:1", "x", Found((), "go-1.27"))
    catalogue.remove("fe:01:7:1")  # records of its connections may be to come
    assert catalogue.untold() == {2: "go-1.27"}


def test_a_new_loader_goes_on_with_the_numbers(table: int) -> None:
    Catalogue(table).add("fe:01:7:1", "openssl", Found((), "openssl-3.0.22"))
    later = Catalogue(table)
    assert later.untold() == {1: "openssl-3.0.22"}  # perhaps nobody was told by the loader before
    assert dict(later.names()) == {1: "openssl-3.0.22"}
    assert later.add("fe:01:7:1", "openssl", Found((), "openssl-3.0.22")) == 1


def test_without_a_number_left_a_library_has_no_name(table: int) -> None:
    catalogue = Catalogue(table)
    assert [catalogue.add(f"fe:01:{i}:1", "x", Found((), "x")) for i in range(NUMBERS)] == [*range(1, NUMBERS), 0]
    catalogue.remove("fe:01:5:1")
    assert catalogue.add("fe:01:5000:1", "x", Found((), "x")) == 6
