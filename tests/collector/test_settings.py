"""Start messages: what is sent is what arrives, and anything else is refused by name."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import config, settings
from collector.errors import ProtocolError
from collector.settings import (
    BatchSettings,
    HealthStart,
    LoaderSettings,
    LoaderStart,
    Message,
    ReplayStart,
    ShardSettings,
    ShardStart,
    SinkStart,
    SupervisorSettings,
)
from collector.sink import destinations
from collector.sink.kafka.destination import KafkaSettings

STARTS: tuple[type[Message], ...] = (ShardStart, LoaderStart, ReplayStart, SinkStart, HealthStart, KafkaSettings)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that messages are made of."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return st.one_of(*(values(one) for one in arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(
            st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.lists(st.integers())), max_size=3
        )
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        parts = {field.name: values(hints[field.name]) for field in dataclasses.fields(kind)}
        return st.builds(typing.cast(type, kind), **parts)
    return {
        bool: st.booleans(),
        int: st.integers(),
        float: st.floats(allow_nan=False),
        str: st.text(max_size=9),
        type(None): st.none(),
    }[kind]


MESSAGES = st.one_of(*(values(kind) for kind in STARTS))


def sent(message: Message) -> dict[str, Any]:
    """As it comes out of the control channel."""
    out: dict[str, Any] = json.loads(json.dumps(message.to_message()))
    return out


@given(message=MESSAGES)
def test_what_is_sent_arrives(message: Message) -> None:
    assert type(message).from_message(sent(message)) == message


@given(message=MESSAGES, data=st.data())
def test_a_key_too_many_or_too_few_is_refused_by_its_name(message: Message, data: st.DataObject) -> None:
    wire = sent(message)
    name = data.draw(st.sampled_from(sorted(wire)))
    with pytest.raises(ProtocolError, match=f"unknown or missing: {name}"):
        type(message).from_message({key: value for key, value in wire.items() if key != name})
    with pytest.raises(ProtocolError, match="unknown or missing: misspelt"):
        type(message).from_message({**wire, "misspelt": 1})


@given(message=MESSAGES, data=st.data())
def test_a_value_of_another_type_is_refused_by_its_name(message: Message, data: st.DataObject) -> None:
    wire = sent(message)
    name = data.draw(st.sampled_from(sorted(wire)))
    with pytest.raises(ProtocolError, match=f"{type(message).__name__}.{name}"):
        type(message).from_message({**wire, name: complex})


def test_numbers_and_truth_values_are_not_mixed_up() -> None:
    wire = sent(BatchSettings(format="kafka-v2", records=1, seconds=1.0))
    assert BatchSettings.from_message({**wire, "seconds": 2}).seconds == 2.0
    for name, value in (("records", True), ("records", 1.0), ("records", None), ("format", 1)):
        with pytest.raises(ProtocolError, match=name):
            BatchSettings.from_message({**wire, name: value})


def test_limits_are_shared_out_among_the_shards() -> None:
    loaded = config.load({"TRAFFIC_MAX_ACTIVE_CONN": "1000", "TRAFFIC_SAMPLE_BUFFER_PER_MINUTE": "8"})
    one, four = ShardSettings.of(loaded), ShardSettings.of(loaded, shards=4)
    assert (one.max_connections, four.max_connections) == (1250, 313)  # a quarter more, rounded up
    assert (one.input_bytes_per_minute, four.input_bytes_per_minute) == (8 << 20, 2 << 20)
    assert one.output_bytes_per_minute == four.output_bytes_per_minute == 0
    assert settings.per_minute(0, 4) == 1  # none at all, where 0 would be no limit


def test_the_configuration_arrives() -> None:
    loaded = config.load(
        {
            "COLLECTOR_BODY_BYTES": "10",
            "COLLECTOR_HOOKS": "raw",
            "COLLECTOR_RING_BYTES": "100000",
            "TRAFFIC_IGNORE_DEFAULT_PORTS": "false",
            "MODULE_MEM_CHECK_INTERVAL": "250",
            "TRAFFIC_BUFFER_THRESHOLD": "100",
            "COLLECTOR_SHARDS": "2",
        }
    )
    shard = ShardSettings.of(loaded, shards=2, only_ports=(80,))
    assert (shard.body_bytes, shard.ignore_ports, shard.only_ports) == (10, (), (80,))
    loader = LoaderSettings.of(loaded, rings=4, pids=(7,))
    assert (loader.variants, loader.ring_bytes, loader.rings, loader.pids) == (("raw",), 1 << 17, 4, (7,))
    assert not loader.record
    assert LoaderSettings.of(config.load({}), rings=1, record_limit=5).record
    supervisor = SupervisorSettings.of(loaded)
    assert (supervisor.shards, supervisor.memory_check_seconds, supervisor.soft_bytes) == (2, 0.25, 100 << 20)
    assert destinations.chosen(loaded).settings(loaded).stop_seconds == settings.STOP_SINK_SECONDS


def test_a_ring_is_a_power_of_two_and_at_least_a_page() -> None:
    assert [settings.ring_size(n) for n in (1, 4096, 4097, 8 << 20)] == [4096, 4096, 8192, 8 << 20]
