"""What each process is told, as frozen dataclasses: made once from the configuration, and sent as its start message.

    ShardSettings, LoaderSettings, ReplaySettings, SinkSettings, SupervisorSettings     what it is to do
    ShardStart, LoaderStart, ReplayStart, SinkStart, HealthStart                        the start message of one life

Tests, the fuzzer and the benchmarks use the same classes. A message travels as JSON; `from_message` refuses every key
that is unknown, missing or of another type.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from collector import cgroups
from collector.config import IGNORED_PORTS, Config
from collector.config_kubernetes import ACCOUNT, attributes, follows_kubernetes, node_name
from collector.config_values import ALL_LIBRARIES
from collector.errors import ConfigError, ProtocolError
from collector.router.batches import JSON_LINES
from collector.router.slots import BATCH_BYTES

MIB = 1 << 20
RECORD_BYTES = 1_000_000  # a record stays below Kafka's default message limit of 1,048,588 with room for the batch
STOP_SINK_SECONDS = 8.0
ALL_CONNECTIONS = 65536  # what a share of the connections is counted in (shards/state.pxd and bpf/maps.h SHARES)
QUEUE_BYTES = 128 * MIB  # of batches in front of the destination, unless memory is short: some 64 MiB of records
CONNECTIONS = 65536  # of the kernel's table, unless memory is short


class Message:
    """Base of what is sent to a process: frozen dataclasses of bool, int, float, str, tuples, None, dictionaries with
    contents of their own (dict[str, Any]), and of each other.
    """

    __slots__ = ()

    def to_message(self) -> dict[str, Any]:
        """For the control channel."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The reverse, also after JSON made lists of tuples. Raises ProtocolError."""
        return typing.cast(Self, _read(cls, message, cls.__name__))


@cache
def _fields(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _read(wanted: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``wanted``; ``where`` names it in the error."""
    origin = typing.get_origin(wanted)
    if origin is types.UnionType:
        wanted, nothing = typing.get_args(wanted)
        assert nothing is type(None)
        return None if value is None else _read(wanted, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = typing.get_args(wanted)
        if kinds[-1] is Ellipsis:
            return tuple(_read(kinds[0], one, where) for one in value)
        if len(value) == len(kinds):
            return tuple(_read(kind, one, where) for kind, one in zip(kinds, value, strict=True))
    elif origin is dict and isinstance(value, dict) or wanted is type(value) and wanted in (bool, int, float, str):
        return value
    elif wanted is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    elif dataclasses.is_dataclass(wanted) and isinstance(value, dict):
        fields = _fields(typing.cast(type, wanted))
        if value.keys() != fields.keys():
            differ = ", ".join(sorted(map(str, value.keys() ^ fields.keys())))
            raise ProtocolError(f"{where}: unknown or missing: {differ}")
        parts = {name: _read(kind, value[name], f"{where}.{name}") for name, kind in fields.items()}
        return typing.cast(Any, wanted)(**parts)
    raise ProtocolError(f"{where}: {value!r:.80} is no {getattr(wanted, '__name__', wanted)}")


def ring_size(wanted: int) -> int:
    """The next power of two, at least a page: what a ring of so many bytes is made with."""
    return 1 << max(12, (wanted - 1).bit_length())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def per_minute(mib: int, shards: int) -> int:
    """A shard's part of a limit in MiB a minute: bytes; 0 for no limit (-1 in the settings)."""
    return 0 if mib < 0 else max(1, mib * MIB // shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings(Message):
    """How a shard makes batches: in which ``format`` (router/batches.py), and with which codec.

    A batch is complete with ``size`` bytes of records, before compression. It is ready with so many ``records``, or
    ``seconds`` after the first one, and leaves when it is complete, or ready while no other one of the shard waits to be
    acknowledged. ``most``: no batch becomes larger than so many bytes, or than ``largest`` as it is sent, unless a
    single record is. ``keys``: the key of a record is its connection.
    """

    format: str = JSON_LINES
    compression: str = "none"
    size: int = BATCH_BYTES
    most: int = 0
    largest: int = 0
    keys: bool = False
    records: int = 1
    seconds: float = 0.0


# ---- what a process is to do -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSettings(Message):
    """What a pipeline goes by. Sizes in bytes, limits are this shard's part, 0 a minute is no limit.

    ``record_prefix`` begins each recordId; ``only_ports``: connections without one of these are left out, unless it is
    empty; ``rules`` is the text of AKTO_MODULE_DISCOVERY_CONFIG; ``real_ip_header`` is a field name, or empty for none, and
    ``trusted_networks`` is CIDR[,CIDR...], or empty.
    """

    header_bytes: int
    body_bytes: int
    record_bytes: int
    max_connections: int
    buffer_bytes: int
    connection_bytes: int
    owner_wait_seconds: float
    input_bytes_per_minute: int
    output_bytes_per_minute: int
    inactive_seconds: float
    unanswered_seconds: float
    response_bodies: bool
    websocket_control: bool
    disable_egress: bool
    ignore_ip_hosts: bool
    ignore_metadata: bool
    want_details: bool
    orphan_responses: bool
    ignore_noise: tuple[str, ...]
    ignore_ports: tuple[int, ...]
    only_ports: tuple[int, ...]
    rules: str
    real_ip_header: str
    trusted_networks: str
    record_prefix: str
    daemonset_id: str
    batches: BatchSettings = BatchSettings()  # noqa: RUF009 - frozen

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        shards: int = 1,
        want_details: bool = False,
        orphan_responses: bool = False,
        only_ports: tuple[int, ...] = (),
        record_prefix: str = "",
        daemonset_id: str = "",
        batches: BatchSettings = BatchSettings(),  # noqa: B008 - frozen
    ) -> Self:
        """One of so many shards. ``buffer_bytes`` is its share of the whole threshold; the supervisor takes off what the
        processes need besides.
        """
        return cls(
            header_bytes=config.COLLECTOR_HEADER_BYTES,
            body_bytes=config.COLLECTOR_BODY_BYTES,
            record_bytes=RECORD_BYTES,
            max_connections=max(1, -(-config.TRAFFIC_MAX_ACTIVE_CONN * 5 // (4 * shards))),
            buffer_bytes=config.TRAFFIC_BUFFER_THRESHOLD * MIB // shards,
            connection_bytes=config.SOCKET_DATA_EVENT_BYTES_THRESHOLD,
            owner_wait_seconds=config.COLLECTOR_POD_WAIT_MS / 1000,
            input_bytes_per_minute=per_minute(config.TRAFFIC_SAMPLE_BUFFER_PER_MINUTE, shards),
            output_bytes_per_minute=per_minute(config.OUTPUT_BANDWIDTH_LIMIT, shards),
            inactive_seconds=config.TRAFFIC_INACTIVITY_THRESHOLD,
            unanswered_seconds=config.COLLECTOR_UNANSWERED_SECS,
            response_bodies=config.COLLECTOR_RESPONSE_BODIES,
            websocket_control=config.COLLECTOR_WEBSOCKET_CONTROL,
            disable_egress=config.TRAFFIC_DISABLE_EGRESS,
            ignore_ip_hosts=config.AKTO_IGNORE_IP_TRAFFIC,
            ignore_metadata=config.AKTO_IGNORE_CLOUD_METADATA_CALLS,
            want_details=want_details,
            orphan_responses=orphan_responses,
            ignore_noise=_words(config.COLLECTOR_IGNORE_NOISE),
            ignore_ports=IGNORED_PORTS if config.TRAFFIC_IGNORE_DEFAULT_PORTS else (),
            only_ports=only_ports,
            rules=config.AKTO_MODULE_DISCOVERY_CONFIG,
            real_ip_header=config.COLLECTOR_REAL_IP_HEADER,
            trusted_networks=config.COLLECTOR_TRUSTED_CIDRS,
            record_prefix=record_prefix,
            daemonset_id=daemonset_id,
            batches=batches,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerSettings(Message):
    """Whose processes are, and whose are captured: ``node`` is named in records, or is empty; ``kubernetes``: the API server
    is followed, and a pod that it has not told of is waited for ``wait_seconds``; ``everything``: pods are captured of which
    nobody says anything, ``host_processes``: those of no pod.
    """

    node: str = ""
    kubernetes: bool = False
    wait_seconds: float = 1.0
    everything: bool = True
    host_processes: bool = True

    @property
    def selects(self) -> bool:
        """Is anything perhaps not captured?"""
        return self.kubernetes or not self.everything or not self.host_processes

    @classmethod
    def of(cls, config: Config) -> Self:
        """From the configuration."""
        follows = follows_kubernetes(config)
        return cls(
            node=node_name(config) if follows or config.NODE_NAME else "",
            kubernetes=follows,
            wait_seconds=config.COLLECTOR_POD_WAIT_MS / 1000,
            everything=config.COLLECTOR_ALL_NAMESPACES,
            host_processes=config.COLLECTOR_HOST_PROCESSES,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings(Message):
    """The API server, and what is asked of it: as kubernetes/api.py Server; ``node``: whose pods; ``everything``,
    ``filters`` (the text of COLLECTOR_FILTERS) and ``sidecars``: kubernetes/selection.py Scope.
    """

    host: str
    port: int
    token_path: str
    ca_path: str
    node: str
    tls: bool = True
    everything: bool = True
    filters: str = ""
    sidecars: tuple[str, ...] = ()

    @property
    def directories(self) -> tuple[str, ...]:
        """Of the account's files."""
        return tuple(sorted({os.path.dirname(path) for path in (self.token_path, self.ca_path) if path}))

    @classmethod
    def of(cls, config: Config) -> Self | None:
        """From the configuration, and from what the kubelet tells a pod; None when nobody is to be asked. Raises ConfigError
        where it is not said whom.
        """
        if not follows_kubernetes(config):
            return None
        if config.COLLECTOR_KUBERNETES_API:
            host, _, port = config.COLLECTOR_KUBERNETES_API.removeprefix("http://").rpartition(":")
            account = ""
        else:
            host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
            account = ACCOUNT
        if not host or not port.isdigit():
            raise ConfigError("COLLECTOR_KUBERNETES=on: no KUBERNETES_SERVICE_HOST and _PORT: not in a pod")
        return cls(
            host=host.strip("[]"),
            port=int(port),
            token_path=account and f"{account}/token",
            ca_path=account and f"{account}/ca.crt",
            tls=bool(account),
            node=node_name(config),
            everything=config.COLLECTOR_ALL_NAMESPACES,
            filters=config.COLLECTOR_FILTERS,
            sidecars=_words(config.COLLECTOR_SIDECARS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSettings(Message):
    """What the loader captures. ``connections``: entries of the kernel's tables of them; ``variants`` and ``identity`` as in
    loader/compiler.py, no variants: those of this machine; ``pids``: these processes only, and those of these ``names``,
    unless both are empty; ``plain``: connections that are not TLS; ``libraries``: the names of the sources of libraries that
    are looked for, ALL_LIBRARIES for all of them; ``library_programs``, ``containers``: in whom, as loader/choice.py Choice;
    ``look_seconds``: at least so long between two looks at all processes; ``proc``: where those are seen; ``program_cache``:
    where compiled programs are kept between starts (loader/program_cache.py), "" for nowhere; ``owners``: whether and how
    it is found out whose processes are; ``record``: a descriptor for
    the raw events comes along; ``test_rings``: the rings are memory that a test fills, and come along. Set by code alone,
    for the loader is privileged: ``sources``, the modules of further probe sources (loader/probes), and ``uprobes``, how
    those are attached (loader/loading.py; "": the best way that the kernel has).
    """

    rings: int
    ring_bytes: int
    connections: int = CONNECTIONS
    variants: tuple[str, ...] = ()
    identity: str = "auto"
    body_bytes: int
    header_bytes: int
    pids: tuple[int, ...] = ()
    unix: bool = False
    record: bool = False
    record_limit: int = 0
    test_rings: bool = False
    sources: tuple[str, ...] = ()
    uprobes: str = ""
    plain: bool = True
    libraries: tuple[str, ...] = (ALL_LIBRARIES,)
    look_seconds: float = 0.0
    library_programs: tuple[str, ...] = ()
    containers: bool = False
    names: tuple[str, ...] = ()
    proc: str = "/proc"
    program_cache: str = ""
    owners: OwnerSettings | None = None

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        rings: int,
        connections: int = CONNECTIONS,
        pids: tuple[int, ...] = (),
        record_limit: int = 0,
    ) -> Self:
        """``record_limit``: bytes of raw events to be recorded at most, 0 for none."""
        return cls(
            rings=rings,
            connections=connections,
            ring_bytes=ring_size(config.COLLECTOR_RING_BYTES),
            variants=() if config.COLLECTOR_HOOKS == "auto" else (config.COLLECTOR_HOOKS,),
            identity=config.COLLECTOR_IDENTITY,
            body_bytes=config.COLLECTOR_BODY_BYTES,
            header_bytes=config.COLLECTOR_HEADER_BYTES,
            pids=pids or tuple(map(int, _words(config.TRACE_PIDS))),
            unix=config.COLLECTOR_UNIX_SOCKETS,
            record=record_limit > 0,
            record_limit=record_limit,
            plain=config.captures_plain,
            libraries=_words(config.COLLECTOR_TLS_LIBRARIES) if config.captures_tls else (),
            look_seconds=float(config.UPROBE_POLL_INTERVAL),
            library_programs=_words(config.PROBE_PROCESS_NAMES),
            containers=not config.PROBE_ALL_PID,
            names=_words(config.TRACE_COMMS),
            proc=config.HOST_PROC,
            program_cache=config.COLLECTOR_PROGRAM_CACHE,
            owners=OwnerSettings.of(config) if attributes(config) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings(Message):
    """What stands in the loader's place in a replay: absolute paths, in their order."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings(Message):
    """Where records go: a destination (sink/destinations.py) with ``options`` of its own.

    ``format``: of the shards' batches; ``lossless``: never drop, let the shards wait; ``ordered``: hold everything until the
    end and deliver it in order; ``spool``: the directory in which records wait while the destination is away, "" for
    none, with at most ``spool_bytes``; ``queue_bytes``: of memory that batches may hold in front of the destination;
    ``stop_seconds``: how long delivery may take once the sink is to stop; ``recording_limit``: bytes at most of the file
    that is made of records (sink/recording), 0 for none.
    """

    kind: str
    options: dict[str, Any]
    format: str = JSON_LINES
    lossless: bool = False
    ordered: bool = False
    spool: str = ""
    spool_bytes: int = 0
    queue_bytes: int = QUEUE_BYTES
    stop_seconds: float = STOP_SINK_SECONDS
    recording_limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSettings:
    """What the thermostat holds, in cores, 0.0 for no limit: ``limit`` of the collector; ``host_soft`` and ``host_hard`` of
    everything on the host, or ``host_soft_add`` and ``host_hard_add`` above what it uses in the first ``baseline_seconds``.
    ``seconds`` between two readings, of which ``host_hard_turns`` in a row confirm the hard limit; ``paused``: read nothing.
    """

    limit: float = 0.0
    host_soft: float = 0.0
    host_hard: float = 0.0
    host_soft_add: float = 0.0
    host_hard_add: float = 0.0
    baseline_seconds: float = 15.0
    seconds: float = 1.0
    host_hard_turns: int = 3
    paused: bool = False

    @classmethod
    def of(cls, config: Config) -> Self:
        """From the configuration, and the cgroup's limit where that says nothing."""
        return cls(
            limit=config.COLLECTOR_CPU_LIMIT or cgroups.cpu_quota() or 0.0,
            host_soft=config.AKTO_SYSTEM_CPU_SOFT_CORES,
            host_hard=config.AKTO_SYSTEM_CPU_HARD_CORES,
            host_soft_add=config.AKTO_SYSTEM_CPU_SOFT_ADD_CORES,
            host_hard_add=config.AKTO_SYSTEM_CPU_HARD_ADD_CORES,
            baseline_seconds=config.AKTO_SYSTEM_CPU_BASELINE_SAMPLE_SEC,
            seconds=config.AKTO_SYSTEM_CPU_CHECK_INTERVAL_SEC,
            host_hard_turns=config.AKTO_SYSTEM_CPU_HARD_CONFIRM_TICKS,
            paused=config.AKTO_PAUSE_INGESTION,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """What the supervisor goes by; it is not sent. Thresholds are bytes of the proportional set size; ``queue_bytes`` as
    in SinkSettings; ``compiler_first``: the other stages start when the programs are compiled. ``live``: this is capture,
    not a replay or a benchmark; ``announcement`` is the line of the start, with {attached} for what the loader says.
    """

    shards: int
    log_level: str
    health_address: str
    soft_bytes: int
    hard_bytes: int
    memory_check_seconds: float
    cpu: CpuSettings = CpuSettings()
    queue_bytes: int = QUEUE_BYTES
    compiler_first: bool = False
    live: bool = True
    ends_by_itself: bool = False
    duration_seconds: float | None = None
    announcement: str = ""

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        live: bool = True,
        soft_bytes: int = 0,
        hard_bytes: int = 0,
        queue_bytes: int = QUEUE_BYTES,
        compiler_first: bool = False,
        ends_by_itself: bool = False,
        duration_seconds: float | None = None,
        announcement: str = "",
    ) -> Self:
        """From the configuration, what the command is, and what was planned (0: thresholds as configured)."""
        return cls(
            shards=config.shards,
            log_level=config.AKTO_LOG_LEVEL,
            health_address=config.COLLECTOR_HEALTH_ADDRESS,
            soft_bytes=soft_bytes or config.TRAFFIC_BUFFER_THRESHOLD * MIB,
            hard_bytes=hard_bytes or config.AKTO_MEM_THRESH_RESTART * MIB,
            memory_check_seconds=config.MODULE_MEM_CHECK_INTERVAL / 1000,
            cpu=CpuSettings.of(config) if live else CpuSettings(),
            queue_bytes=queue_bytes,
            compiler_first=compiler_first,
            live=live,
            ends_by_itself=ends_by_itself,
            duration_seconds=duration_seconds,
            announcement=announcement,
        )


# ---- start messages ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Message):
    """What every child is told: its ``block`` of the ``blocks`` in the counters' memory, which is the first descriptor;
    the user that it becomes when it drops its privileges, None for none.
    """

    log_level: str
    block: int
    blocks: int
    uid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStart(Start):
    """A stage of the data. ``token`` (hexadecimal) is that of this start of the collector, in every message between
    stages.
    """

    token: str
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rings(Message):
    """The rings whose descriptors come along: the size of each in bytes. ``memfd``: ordinary memory, and no words behind
    them by which the kernel is told what nobody wants.
    """

    ring_bytes: int
    memfd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStart(StageStart):
    """Descriptors: counters, batches, policy (policy/wire.py), descriptor sets (if ``descriptors`` says so), rings (if there
    are any yet).
    ``suspects`` are connections to skip.
    """

    number: int
    life: int
    settings: ShardSettings
    live: bool
    suspects: tuple[int, ...]
    descriptors: bool
    rings: Rings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelState(Message):
    """How the programs that are in the kernel were compiled (loader/compiler.py)."""

    variant: str
    identity: str
    uprobes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption(Message):
    """What an earlier loader had in the kernel: so many ``descriptors``, which follow in messages of their own."""

    state: KernelState
    descriptors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderStart(StageStart):
    """Descriptors: counters, those of the command (--record; test rings). ``adopt``: what an earlier life had attached.
    ``reader_uid``: the user that reads libraries for it, None for none. ``ours`` are the processes of this collector,
    ``known`` all that it ever had.
    """

    settings: LoaderSettings
    adopt: Adoption | None
    reader_uid: int | None
    ours: tuple[int, ...]
    known: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStart(StageStart):
    """Descriptors: counters."""

    settings: ReplaySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStart(StageStart):
    """Descriptors: counters, the output if ``output`` says so, the file that is made of records if ``recording`` says so,
    then the memory of batches of each (shard, life) of ``slots``.
    """

    settings: SinkSettings
    output: bool
    recording: bool
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthStart(Start):
    """Descriptors: its own counters, everybody's (``all_blocks``). ``state`` is what the supervisor says of itself."""

    all_blocks: int
    state: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesStart(Start):
    """Descriptors: its own counters. ``token``: of the account, at first; it may be root's alone to read."""

    settings: KubernetesSettings
    token: str
