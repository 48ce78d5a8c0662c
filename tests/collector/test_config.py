"""Settings: forms, errors, warnings, generated pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector import config, config_pages, config_setting, config_values, metrics_pages, settings
from collector.errors import ConfigError
from collector.loader.probes import SOURCES
from collector.loader.probes.probe import Source

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "On"])
def test_booleans_true(text: str) -> None:
    assert config.load({"TRAFFIC_DISABLE_EGRESS": text}).TRAFFIC_DISABLE_EGRESS is True


@pytest.mark.parametrize("text", ["false", "False", "0", "NO", "off"])
def test_booleans_false(text: str) -> None:
    assert config.load({"COLLECTOR_RESPONSE_BODIES": text}).COLLECTOR_RESPONSE_BODIES is False


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TRAFFIC_INACTIVITY_THRESHOLD", "5m"),
        ("TRAFFIC_INACTIVITY_THRESHOLD", "3s"),
        ("TRAFFIC_INACTIVITY_THRESHOLD", "-1"),
        ("TRAFFIC_DISABLE_EGRESS", "maybe"),
        ("COLLECTOR_SHARDS", "1.5"),
        ("COLLECTOR_SHARDS", "65"),
        ("COLLECTOR_BODY_BYTES", "262145"),
        ("AKTO_LOG_LEVEL", "LOUD"),
        ("COLLECTOR_HEALTH_ADDRESS", "11226"),
        ("AKTO_KAFKA_BROKER_MAL", "broker"),
        ("AKTO_KAFKA_BROKER_MAL", "a:1,::1:9092"),
        ("AKTO_KAFKA_BROKER_MAL", "a b:1"),
        ("AKTO_KAFKA_BROKER_MAL", "a:0"),
        ("AKTO_KAFKA_BROKER_MAL", "<BROKER>:9092"),
        ("COLLECTOR_KAFKA_SASL", "GSSAPI"),
        ("COLLECTOR_KAFKA_TOPIC", "no topic"),
        ("COLLECTOR_KAFKA_TOPIC", ".."),
        ("COLLECTOR_KAFKA_TOPIC", "t" * 250),
        ("COLLECTOR_COMPRESSION", "lzma"),
        ("COLLECTOR_LOG_FORMAT", "xml"),
        ("COLLECTOR_REAL_IP_HEADER", "X Real"),
        ("COLLECTOR_REAL_IP_HEADER", "X-Real-IP:"),
        ("COLLECTOR_REAL_IP_HEADER", "é"),
        ("COLLECTOR_REAL_IP_HEADER", "x" * 64),
        ("COLLECTOR_TRUSTED_CIDRS", "10.0.0.1/8"),
        ("COLLECTOR_TRUSTED_CIDRS", "10/8"),
        ("COLLECTOR_TRUSTED_CIDRS", "fe80::%eth0/64"),
        ("COLLECTOR_TRUSTED_CIDRS", "10.0.0.0/255.0.0.0"),
        ("COLLECTOR_TRUSTED_CIDRS", "10.0.0.0/33"),
        ("COLLECTOR_TRUSTED_CIDRS", "2001:db8::/129"),
        ("COLLECTOR_TRUSTED_CIDRS", "010.0.0.0/8"),
        ("COLLECTOR_TRUSTED_CIDRS", "10.0.0.0/8 11.0.0.0/8"),
        ("COLLECTOR_TRUSTED_CIDRS", ","),
        ("COLLECTOR_TRUSTED_CIDRS", ",".join(["10.0.0.1"] * 257)),
        ("AKTO_MODULE_DISCOVERY_CONFIG", "{"),
        ("TRAFFIC_MAX_ACTIVE_CONN", "0"),
    ],
)
def test_a_bad_value_names_variable_value_and_form(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.load({name: text})
    assert name in str(error.value) and text in str(error.value)
    assert "expected" in str(error.value)


def test_empty_means_unset_and_aliases_win() -> None:
    loaded = config.load({"COLLECTOR_SHARDS": "", "AKTO_MEM_THRESH_RESTART": "600", "AKTO_MEM_HARD_LIMIT": "700"})
    assert loaded.values["COLLECTOR_SHARDS"].source == "default"
    assert loaded.AKTO_MEM_THRESH_RESTART == 700


def test_the_header_that_names_the_client() -> None:
    assert config.load({}).COLLECTOR_REAL_IP_HEADER == "X-Real-IP"
    assert config.load({"COLLECTOR_REAL_IP_HEADER": "x-forwarded-FOR "}).COLLECTOR_REAL_IP_HEADER == "x-forwarded-FOR"
    assert config.load({"COLLECTOR_REAL_IP_HEADER": "None"}).COLLECTOR_REAL_IP_HEADER == ""


def test_trusted_networks_are_canonical() -> None:
    assert config.load({}).COLLECTOR_TRUSTED_CIDRS == ""
    loaded = config.load({"COLLECTOR_TRUSTED_CIDRS": " 10.0.0.0/8, 192.0.2.7,,2001:DB8:0::/32 , ::1"})
    assert loaded.COLLECTOR_TRUSTED_CIDRS == "10.0.0.0/8,192.0.2.7/32,2001:db8::/32,::1/128"


def test_misspelt_debug_is_accepted() -> None:
    assert config.load({"AKTO_LOG_LEVEL": "dbeug"}).AKTO_LOG_LEVEL == "DEBUG"


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "[]", "a b"])
def test_what_cannot_be_the_name_of_a_broker_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="AKTO_KAFKA_BROKER_MAL"):
        config.load({"AKTO_KAFKA_BROKER_MAL": f"b:1,{host}:9092"})


@pytest.mark.parametrize("host", ["a.b.", "a_b", "b\u00fcro.example", "[::1]", "[fe80::1%eth0]", "10.0.0.1", "x" * 63])
def test_what_may_be_the_name_of_a_broker_is_taken(host: str) -> None:
    assert config.load({"AKTO_KAFKA_BROKER_MAL": f"{host}:9092"}).brokers == f"{host}:9092"


def test_one_name_of_the_brokers_wins() -> None:
    assert config.load({"AKTO_KAFKA_BROKER_URL": "a:1", "AKTO_KAFKA_BROKER_MAL": "b:2,c:3"}).brokers == "b:2,c:3"


def test_every_variable_is_an_attribute_that_is_only_read() -> None:
    loaded = config.load({})
    for setting in config.SETTINGS:
        if setting.section != config.AKTO:
            assert getattr(loaded, setting.name) == setting.default and getattr(config.Config, setting.name) is setting
    with pytest.raises(AttributeError, match="COLLECTOR_SHARDS"):
        loaded.COLLECTOR_SHARDS = 2
    loaded.override(config.Config.COLLECTOR_SHARDS, 3, "--shards")
    assert loaded.COLLECTOR_SHARDS == loaded.shards == 3 and loaded.values["COLLECTOR_SHARDS"].source == "--shards"


def test_the_table_has_what_acts_and_everything_when_asked() -> None:
    loaded = config.load({"HOST_MAPPING": "x"})
    short, everything = (config_pages.table(loaded, everything=wanted) for wanted in (False, True))
    names = [line.split()[0] for line in everything.splitlines()[1:]]
    assert names == [setting.name for setting in config.SETTINGS]
    acting = [line.split()[0] for line in short.splitlines()[1:]]
    assert acting == [setting.name for setting in config.SETTINGS if setting.effect == config_setting.ACTS]
    assert len(names) > len(acting) + 70 and "HOST_MAPPING is set, but does not act yet" in loaded.warnings


def test_unknown_names_are_warned_about_with_the_nearest() -> None:
    warnings = config.load({"TRAFFIC_MAX_ACTIVE_CON": "5", "COLLECTOR_SHARD": "2"}).warnings
    assert any("TRAFFIC_MAX_ACTIVE_CONN" in w for w in warnings) and any("COLLECTOR_SHARDS" in w for w in warnings)


def test_service_links_are_not_settings() -> None:
    links = {
        "COLLECTOR_PORT": "tcp://10.0.0.1:80",
        "COLLECTOR_SERVICE_HOST": "10.0.0.1",
        "COLLECTOR_SERVICE_PORT": "80",
        "AKTO_MINI_RUNTIME_PORT_9092_TCP_ADDR": "10.0.0.1",
        "AKTO_RUNTIME_SERVICE_PORT_HTTP": "80",
    }
    assert config.load(links).warnings == []


def test_every_akto_manifest_variable_is_known() -> None:
    names = {
        "AKTO_TRAFFIC_BATCH_SIZE",
        "AKTO_TRAFFIC_BATCH_TIME_SECS",
        "AKTO_KAFKA_BROKER_MAL",
        "CAPTURE_ALL",
        "AKTO_MODULE_DISCOVERY_CONFIG",
        "TRAFFIC_INACTIVITY_THRESHOLD",
        "TRAFFIC_MAX_ACTIVE_CONN",
        "TRAFFIC_DISABLE_EGRESS",
        "AKTO_MEM_THRESH_RESTART",
        "TRAFFIC_BUFFER_THRESHOLD",
        "AKTO_IGNORE_IP_TRAFFIC",
        "AKTO_IGNORE_CLOUD_METADATA_CALLS",
        "AKTO_LOG_LEVEL",
        "KAFKA_PASSWORD",
        "UPROBE_POLL_INTERVAL",
    }
    assert names <= config.known_names()


@pytest.mark.parametrize(
    ("all_", "ssl", "plain", "tls"),
    [
        (None, None, True, True),
        ("", "false", True, True),
        ("true", "anything", True, True),
        ("TRUE", "", True, True),
        ("false", None, True, False),
        ("no", "", True, False),
        ("0", "False", True, False),
        ("false", "true", False, True),
        ("False", "TRUE", False, True),
        ("false", "yes", False, False),
    ],
)
def test_what_is_captured(all_: str | None, ssl: str | None, plain: bool, tls: bool) -> None:
    given = {name: text for name, text in (("CAPTURE_ALL", all_), ("CAPTURE_SSL", ssl)) if text is not None}
    found = config.load(given)
    assert (found.captures_plain, found.captures_tls) == (plain, tls)
    loader = settings.LoaderSettings.of(found, rings=1)
    assert (loader.plain, bool(loader.libraries)) == (plain, tls)


@pytest.mark.parametrize(("text", "directory"), [("off", ""), (" off ", ""), (" /a/b ", "/a/b"), ("", "/var/cache")])
def test_where_programs_are_kept(text: str, directory: str) -> None:
    found = config.load({"COLLECTOR_PROGRAM_CACHE": text})
    assert settings.LoaderSettings.of(found, rings=1).program_cache == found.COLLECTOR_PROGRAM_CACHE == directory


@pytest.mark.parametrize("text", ["cache", "./cache", "OFF", "none"])
def test_where_programs_are_kept_is_said_in_full(text: str) -> None:
    with pytest.raises(ConfigError, match="COLLECTOR_PROGRAM_CACHE=.*expected an absolute path, or off"):
        config.load({"COLLECTOR_PROGRAM_CACHE": text})


def test_libraries_are_those_that_there_are_sources_for() -> None:
    libraries = {source.name for source in SOURCES if type(source).locate is not Source.locate}
    assert set(config_values.LIBRARIES) == libraries
    found = config.load({"COLLECTOR_TLS_LIBRARIES": " OpenSSL , nss,openssl"})
    assert settings.LoaderSettings.of(found, rings=1).libraries == ("openssl", "nss")
    for text in ("openssl,other", "all,openssl", ","):
        with pytest.raises(ConfigError, match="COLLECTOR_TLS_LIBRARIES"):
            config.load({"COLLECTOR_TLS_LIBRARIES": text})


def test_declarations_are_unique() -> None:
    names = [n for s in config.SETTINGS for n in (s.name, *s.aliases)]
    assert len(names) == len(set(names))


def test_secrets_are_not_printed() -> None:
    for name in ("KAFKA_PASSWORD", "COLLECTOR_KAFKA_PASSWORD", "COLLECTOR_KAFKA_TLS_KEY_PASSWORD"):
        shown = config_pages.table(config.load({name: "geheim"}), everything=True)
        assert "geheim" not in shown and "(set)" in shown


def test_generated_pages_are_fresh() -> None:
    """`make docs` writes them."""
    assert (DOCS / "configuration.md").read_text() == config_pages.markdown()
    assert (DOCS / "metrics.md").read_text() == metrics_pages.markdown()
