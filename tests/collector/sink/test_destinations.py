"""The table of destinations: who an output belongs to, what each says of itself, and that nobody else spells a kind."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from collector import config
from collector.errors import ConfigError
from collector.router import batches
from collector.sink import destinations
from collector.sink.jsonlines import JsonLines
from collector.sink.kafka.destination import Kafka
from collector.sink.null import Null

PACKAGE = Path(destinations.__file__).resolve().parents[1]
BROKER = {"AKTO_KAFKA_BROKER_MAL": "b:2"}


def test_kinds_are_unique_and_found() -> None:
    kinds = [one.kind for one in destinations.DESTINATIONS]
    assert len(set(kinds)) == len(kinds)
    for one in destinations.DESTINATIONS:
        assert destinations.by_kind(one.kind) is one and one.accepts >= {batches.JSON_LINES}
    with pytest.raises(ValueError, match="elsewhere"):
        destinations.by_kind("elsewhere")


@pytest.mark.parametrize(
    ("environment", "option", "destination", "name", "words"),
    [
        ({}, None, JsonLines, "-", "standard output"),
        ({}, "-", JsonLines, "-", "standard output"),
        ({}, "/dev/stdout", JsonLines, "/dev/stdout", "standard output"),
        ({}, "records.jsonl", JsonLines, "records.jsonl", "file records.jsonl"),
        ({}, "./null", JsonLines, "./null", "file ./null"),
        ({"COLLECTOR_OUTPUT": "a/file"}, None, JsonLines, "a/file", "file a/file"),
        ({"COLLECTOR_OUTPUT": "a/file"}, "null", Null, "null", "nowhere"),
        (BROKER, None, Kafka, "kafka", "Kafka b:2 topic akto.api.logs"),
        ({"AKTO_KAFKA_BROKER_URL": "a:1"}, None, Kafka, "kafka", "Kafka a:1 topic akto.api.logs"),
        (BROKER, "-", JsonLines, "-", "standard output"),
        ({**BROKER, "COLLECTOR_OUTPUT": "null"}, None, Null, "null", "nowhere"),
        ({**BROKER, "COLLECTOR_OUTPUT": "-"}, "kafka", Kafka, "kafka", "Kafka b:2 topic akto.api.logs"),
    ],
)
def test_the_option_goes_before_the_variable_and_that_before_what_is_configured(
    environment: dict[str, str], option: str | None, destination: type, name: str, words: str
) -> None:
    settings = config.load(environment)
    output = destinations.chosen(settings, option)
    assert (output.destination, output.name, output.describe(settings)) == (destination, name, words)
    sink = output.settings(settings)
    assert destinations.by_kind(sink.kind) is destination
    assert (output.reopen(settings, shared=False) is not None) == words.startswith("file")


@pytest.mark.parametrize(
    ("environment", "option", "words"),
    [
        ({}, "kafka", "--output kafka: needs AKTO_KAFKA_BROKER_MAL"),
        ({"COLLECTOR_OUTPUT": "kafka"}, None, "COLLECTOR_OUTPUT='kafka': needs AKTO_KAFKA_BROKER_MAL"),
        ({}, "kafka://b:1", "AKTO_KAFKA_BROKER_MAL=HOST:PORT"),
        ({}, "s3://bucket", "not a file"),
    ],
)
def test_what_cannot_work_is_refused_and_says_how_it_was_named(
    environment: dict[str, str], option: str | None, words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        destinations.chosen(config.load(environment), option)
    assert words in str(error.value)


def test_only_the_destinations_files_spell_their_kinds() -> None:
    """As a string of its own; words of help and documentation may name them."""
    kinds = {one.kind for one in destinations.DESTINATIONS} - {"jsonlines"}  # that is a format, too
    own = {Path(f"sink/{name}.py") for name in ("kafka/destination", "null", "jsonlines")}
    own.add(Path("logs.py"))  # the client's logger has that name
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE) in own:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and node.value in kinds), f"{path}:{node.lineno}"


def test_help_names_every_output() -> None:
    assert re.split(r"\|", destinations.METAVAR) == ["-", "FILE", "null", "kafka"]
