"""Which policy the configuration names, its key, and what is said of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector import config
from collector.errors import EXIT_CONFIG, ConfigError
from collector.policy import describing
from collector.policy.model import BUILTIN
from collector.policy.source import Source

KEY = "0123456789abcdef"


def source(**variables: str) -> Source:
    return Source.of(config.load(variables))


@pytest.mark.parametrize("name", ["off", "secrets", "strict"])
def test_built_in(name: str) -> None:
    found = source(COLLECTOR_POLICY=name)
    assert found.first.policy == BUILTIN[name] and found.files == () and found.read() == found.first
    assert source().first.policy.name == "off"


def test_a_file_and_what_it_says_later(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: one")
    found = source(COLLECTOR_POLICY=str(path))
    assert found.first.policy.name == "one" and found.files == (str(path),) and found.signatures == found.look()
    path.write_text("version: 1\nname: another")
    assert found.read().policy.name == "another" and found.look() != found.signatures
    path.write_text("version: 2")
    with pytest.raises(ConfigError, match=r"^COLLECTOR_POLICY: .*/p.yaml:1:10: version: expected"):
        found.read()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"COLLECTOR_POLICY": "secret"}, "COLLECTOR_POLICY='secret': no such file; did you mean secrets?"),
        ({"COLLECTOR_POLICY": "/nowhere"}, "COLLECTOR_POLICY='/nowhere': no such file; built in are off, secrets, strict"),
        ({"COLLECTOR_POLICY": "/dev/null"}, "COLLECTOR_POLICY: /dev/null: is no regular file"),
        ({"COLLECTOR_REDACTION_KEY": "short"}, "COLLECTOR_REDACTION_KEY: has 5 bytes; expected at least 16"),
        ({"COLLECTOR_REDACTION_KEY": KEY * 300}, "COLLECTOR_REDACTION_KEY: is longer than 4096 bytes"),
        ({"COLLECTOR_REDACTION_KEY": KEY, "COLLECTOR_REDACTION_KEY_FILE": "x"}, "only one of them can be set"),
        ({"COLLECTOR_REDACTION_KEY_FILE": "/nowhere"}, "COLLECTOR_REDACTION_KEY_FILE='/nowhere': No such file"),
        ({"COLLECTOR_REDACTION_KEY_FILE": "/dev/null"}, "COLLECTOR_REDACTION_KEY_FILE='/dev/null': not a regular file"),
    ],
)
def test_what_is_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(**variables)
    assert said in str(caught.value) and caught.value.exit_code == EXIT_CONFIG
    assert KEY not in str(caught.value)


def test_the_key(tmp_path: Path) -> None:
    assert source(COLLECTOR_REDACTION_KEY=KEY).first.key == KEY.encode()
    path = tmp_path / "key"
    path.write_bytes(b"\xff" * 16 + b"\r\n")
    found = source(COLLECTOR_REDACTION_KEY_FILE=str(path))
    assert found.first.key == b"\xff" * 16 and found.files == (str(path),)
    path.write_bytes(b"\n" * 20)
    with pytest.raises(ConfigError, match="has 0 bytes"):
        found.read()


def test_nobody_shows_the_key() -> None:
    variables = {"COLLECTOR_REDACTION_KEY": KEY, "COLLECTOR_POLICY": "secrets"}
    found = source(**variables)
    shown = [repr(found), describing.words(found.first), describing.table(config.load(variables), found)]
    assert not any(KEY in text or KEY.encode().hex() in text for text in shown)


def test_in_words(tmp_path: Path) -> None:
    assert describing.words(source().first) == "off: nothing is redacted"
    assert describing.words(source(COLLECTOR_POLICY="strict").first) == "strict: all values are redacted"
    path = tmp_path / "shop.yaml"
    path.write_text(
        "version: 1\nredaction: {builtin: secrets, rules: [{kind: a, query: b}]}\n"
        "rules: [{exclude: {paths: [/x]}}, {include: {statuses: [200]}}]\nsampling: {first: 1}"
    )
    found = source(COLLECTOR_POLICY=str(path), COLLECTOR_REDACTION_KEY=KEY)
    assert describing.words(found.first) == (
        f"shop ({found.first.policy.digest}): secrets are redacted, 1 redaction rule, values hashed, "
        "2 rules of what is recorded, sampled"
    )


def test_the_table_has_one_list_of_rules_in_the_order_in_which_they_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text("version: 1\nrules: [{exclude: {paths: [/x], statuses: [2xx, 404]}, name: noise}]")
    variables = {
        "COLLECTOR_POLICY": str(path),
        "TRAFFIC_DISABLE_EGRESS": "true",
        "AKTO_IGNORE_IP_TRAFFIC": "true",
        "AKTO_IGNORE_CLOUD_METADATA_CALLS": "true",
        "AKTO_MODULE_DISCOVERY_CONFIG": '[{"key":{"eq":"X-Ns","ifAbsent":"reject"},"value":{"regex":"shop"}}]',
    }
    loaded = config.load(variables)
    lines = describing.table(loaded, Source.of(loaded)).splitlines()
    at = lines.index("rules      the first that fits decides; without one an exchange is recorded")
    assert [" ".join(line.split()) for line in lines[at + 1 : -1]] == [
        "1 exclude directions outbound TRAFFIC_DISABLE_EGRESS",
        "2 exclude server ports 9092, 19092, 29092, 2181, 27017, 6379 TRAFFIC_IGNORE_DEFAULT_PORTS",
        "3 exclude hosts of cloud metadata AKTO_IGNORE_CLOUD_METADATA_CALLS",
        "4 exclude hosts that are addresses, or missing AKTO_IGNORE_IP_TRAFFIC",
        '5 exclude header x-ns does not match "shop" or is absent AKTO_MODULE_DISCOVERY_CONFIG',
        "6 exclude paths /x; statuses 200-299, 404 noise",
    ]
