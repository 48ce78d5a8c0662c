"""Every environment variable, declared once as an attribute of Config: parsing, `collector config` and
docs/configuration.md (config_pages.py) come from these declarations.

A value that does not parse is a ConfigError that names variable, value and expected form; nothing is replaced
silently. An empty value means unset. Where Akto's collector has the same variable, name and unit are Akto's.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from collector import akto_names, cgroups
from collector.config_kafka import KafkaConfig
from collector.config_kubernetes import KubernetesConfig
from collector.config_policy import PolicyConfig
from collector.config_setting import NO_EFFECT, NOT_YET, Setting
from collector.config_values import (
    ALL_LIBRARIES,
    SECCOMP_AUTO,
    parse_address,
    parse_bool,
    parse_brokers,
    parse_cache,
    parse_codec,
    parse_cores,
    parse_directory,
    parse_file_size,
    parse_header_name,
    parse_hooks,
    parse_identity,
    parse_int,
    parse_key,
    parse_libraries,
    parse_log_format,
    parse_log_level,
    parse_names,
    parse_networks,
    parse_paths,
    parse_pids,
    parse_rules_text,
    parse_seccomp,
    parse_seconds,
    parse_text,
    parse_topic,
)
from collector.errors import ConfigError

T = TypeVar("T")

MIB = 1 << 20

OURS, AKTO, DELIVERY, LIMITS, FILTERS, CAPTURE, PROCESS = (
    "Collector",
    "Akto: other names",
    "Delivery",
    "Limits",
    "Filters",
    "Capture",
    "Process",
)


@dataclass(frozen=True)
class Value:
    """A setting's effective value and where it came from: `default`, the variable's name, or the option."""

    setting: Setting[Any]
    value: Any
    source: str


class Config(KafkaConfig, KubernetesConfig, PolicyConfig):
    """All settings of one run: an attribute for each variable, with the value in force."""

    # -- Process
    COLLECTOR_SHARDS = Setting(
        parse_int,
        0,
        PROCESS,
        "Number of shard processes. 0: the CPU limit of the container's cgroup, rounded up, or fewer where memory is short.",
        low=0,
        high=64,
    )
    COLLECTOR_HEALTH_ADDRESS = Setting(
        parse_address,
        "127.0.0.1:11226",
        PROCESS,
        "Where /healthz, /readyz and /metrics are served. Port 0 picks a free one. If another program has it, "
        "capture starts all the same, and the port is tried again every few seconds.",
    )
    COLLECTOR_RUNTIME_DIR = Setting(
        parse_text,
        "/run/collector",
        PROCESS,
        "Directory for the lock and for the sockets between the processes. Made with mode 0700; one that is there "
        "already stays as it is, and only `ebpf-api-collector` in it is ours. Refused where others could replace that: "
        "a directory that they can write, without sticky bit, unless it is a mounted volume.",
    )
    COLLECTOR_PROGRAM_CACHE = Setting(
        parse_cache,
        "/var/cache",
        PROCESS,
        "Directory in which the compiled kernel programs are kept for the next start; `off`: in none. Only "
        "`ebpf-api-collector` in it is ours, made with mode 0700; files that others could have written are not used. Where "
        "it cannot be written, every start compiles.",
    )
    COLLECTOR_SECCOMP = Setting(
        parse_seccomp,
        SECCOMP_AUTO,
        PROCESS,
        "Limits of the processes without privilege: which system calls they can make (seccomp), which files they can open "
        "(Landlock; docs/security.md). `auto`: what the host has, with a warning where it has no seccomp; `on`: no start "
        "without seccomp; `off`: neither, to find out whether they are what does not work.",
    )
    COLLECTOR_CORE_DUMPS = Setting(
        parse_bool,
        False,
        PROCESS,
        "A process that crashes may leave a core file, where the limit (`ulimit -c`) and core_pattern allow it: to find a "
        "fault of compiled code. It holds traffic and keys in clear text. Without this setting there is none.",
    )
    COLLECTOR_LOG_FORMAT = Setting(parse_log_format, "text", PROCESS, "Form of log lines on standard error.")
    AKTO_LOG_LEVEL = Setting(parse_log_level, "WARN", PROCESS, "Lowest level that is logged; OFF logs nothing.")
    # -- Capture
    COLLECTOR_RING_BYTES = Setting(
        parse_int,
        8 * MIB,
        CAPTURE,
        "Size of each ring buffer; rounded up to a power of two. Unless it is set, smaller where memory is short.",
        "bytes",
        65536,
        1 << 30,
    )
    COLLECTOR_HOOKS = Setting(
        parse_hooks,
        "auto",
        CAPTURE,
        "Hook variant: `tpx`, one tracepoint per covered call; `raw`, one for all calls, for kernels before 5.15; "
        "`auto`, the first of them that loads.",
    )
    COLLECTOR_IDENTITY = Setting(
        parse_identity,
        "auto",
        CAPTURE,
        "What a connection is known by: `socket`, the kernel's own socket, which needs a kernel that describes itself "
        "(BTF) and lets itself be read; `descriptor`, process and descriptor; `auto`, the first of them that loads.",
    )
    COLLECTOR_BODY_BYTES = Setting(
        parse_int, 65536, CAPTURE, "Body bytes kept per message; the rest is counted and marked.", "bytes", 0, 262144
    )
    COLLECTOR_RESPONSE_BODIES = Setting(parse_bool, True, CAPTURE, "Whether response bodies are kept at all.")
    COLLECTOR_WEBSOCKET_CONTROL = Setting(
        parse_bool, False, CAPTURE, "Whether Close, Ping and Pong frames are among the events of a WebSocket."
    )
    COLLECTOR_ORPHAN_RESPONSES = Setting(
        parse_bool,
        False,
        CAPTURE,
        "Whether answers whose request was not seen become records as well (docs/records.md). In JSON lines only: to Kafka "
        "none is sent.",
    )
    COLLECTOR_HEADER_BYTES = Setting(
        parse_int, 65536, CAPTURE, "Head bytes (start line and fields) kept per message.", "bytes", 1024, 262144
    )
    COLLECTOR_UNIX_SOCKETS = Setting(parse_bool, False, CAPTURE, "Also capture HTTP over Unix stream sockets.")
    COLLECTOR_GRPC_DESCRIPTORS = Setting(
        parse_paths,
        "",
        CAPTURE,
        "Files of descriptor sets (`protoc --descriptor_set_out --include_imports`, `buf build -o`), several separated by "
        "commas: messages of the methods in them are in the records as JSON, too (docs/records.md). Read at the start only.",
        shown_default="none",
    )
    COLLECTOR_REAL_IP_HEADER = Setting(
        parse_header_name,
        "X-Real-IP",
        CAPTURE,
        "Request header that names the client when the connection comes from a proxy in COLLECTOR_TRUSTED_CIDRS: "
        "X-Forwarded-For and Forwarded are read as lists of hops, any other name as one address (docs/records.md, "
        "`clientIp`). `none`: no header.",
    )
    COLLECTOR_TRUSTED_CIDRS = Setting(
        parse_networks,
        "",
        CAPTURE,
        "Networks whose proxies are believed when they name the client in a header; several separated by commas.",
        shown_default="none",
    )
    COLLECTOR_TLS_LIBRARIES = Setting(
        parse_libraries,
        ALL_LIBRARIES,
        CAPTURE,
        "The TLS libraries whose plaintext is captured, `all`, or `none`: to leave one out whose probes do harm.",
    )
    CAPTURE_ALL = Setting(
        parse_text,
        "true",
        CAPTURE,
        "`true`: plain connections and the plaintext of TLS libraries are captured. Any other text: what CAPTURE_SSL says.",
    )
    CAPTURE_SSL = Setting(
        parse_text,
        "",
        CAPTURE,
        "Unless CAPTURE_ALL is `true`: `true` captures the plaintext of TLS libraries only, `false` (or nothing) plain "
        "connections only, any other text neither.",
    )
    CAPTURE_EGRESS = Setting(
        parse_text,
        "",
        CAPTURE,
        "Akto swaps reads and writes with it. Both directions are always understood.",
        effect=NO_EFFECT,
    )
    UPROBE_POLL_INTERVAL = Setting(
        parse_int,
        0,
        CAPTURE,
        "At least so long between two looks at all processes for TLS libraries. New processes and new libraries are "
        "found at once in any case; the look finds what was missed, and what was rewritten or is gone. 0: a second, "
        "and longer when there are so many processes that looking takes more than a fiftieth of a CPU. Does nothing where "
        "PROBE_PROCESS_NAMES is set: who begins no program (fork) and who gets a name is found by looking only.",
        "seconds",
        0,
        86400,
    )
    PROBE_ALL_PID = Setting(
        parse_bool,
        True,
        CAPTURE,
        "Whether TLS libraries get probes that are mapped outside containers only. `false` leaves those out.",
    )
    PROBE_PROCESS_NAMES = Setting(
        parse_names,
        "",
        CAPTURE,
        "TLS libraries get probes for these programs only, by the name of the process or of its file, in any case, in "
        "containers or not. A program that begins is covered some tenths of a second later, a child that begins none "
        "(fork) and a process that gets the name some seconds later.",
        shown_default="none",
    )
    TRACE_PIDS = Setting(
        parse_pids, "", CAPTURE, "Only these processes are captured, as with `--pid`, which wins.", shown_default="none"
    )
    TRACE_COMMS = Setting(
        parse_names,
        "",
        CAPTURE,
        "Only processes of these names are captured (their first 15 bytes count), and those of TRACE_PIDS. One that begins "
        "or gets the name is captured up to a second later.",
        shown_default="none",
    )
    HOST_PROC = Setting(
        parse_directory,
        "/proc",
        CAPTURE,
        "Where the proc file system is that shows the processes whose TLS libraries are looked for.",
    )
    AKTO_CONN_PREFILL = Setting(
        parse_bool,
        False,
        CAPTURE,
        "Connections open before the start are always recognised at their next message.",
        effect=NO_EFFECT,
    )
    AKTO_KERNEL_DROP_NON_HTTP_TRAFFIC = Setting(
        parse_bool, True, CAPTURE, "Connections that are not HTTP are always left out in the kernel.", effect=NO_EFFECT
    )
    # -- Limits
    TRAFFIC_MAX_ACTIVE_CONN = Setting(
        parse_int,
        4096,
        LIMITS,
        "Connections held by all shards together; each owns its share and a quarter more. Beyond it the least "
        "recently active one is recorded as it stands (`evicted`) and forgotten.",
        "connections",
        1,
        10_000_000,
    )
    TRAFFIC_INACTIVITY_THRESHOLD = Setting(
        parse_seconds,
        3.0,
        LIMITS,
        "A connection silent for this long is inactive: no loss when it is given up because memory or "
        "TRAFFIC_MAX_ACTIVE_CONN is short (the one silent for longest always goes first). Nothing else follows from it.",
        "seconds",
        0.05,
        86400,
    )
    COLLECTOR_UNANSWERED_SECS = Setting(
        parse_seconds,
        60.0,
        LIMITS,
        "An exchange of which neither side has sent a byte for this long is recorded as it stands: unanswered "
        "(statusCode 0), or incomplete.",
        "seconds",
        0.1,
        86400,
    )
    TRAFFIC_BUFFER_THRESHOLD = Setting(
        parse_int,
        400,
        LIMITS,
        "Proportional set size of all processes at which batches that wait, then the least recently active connections, "
        "give way; at most 70 % of the cgroup's limit. Unless it is set, at most 80 % of AKTO_MEM_THRESH_RESTART.",
        "MiB",
        1,
        aliases=("AKTO_MEM_SOFT_LIMIT",),
    )
    AKTO_MEM_THRESH_RESTART = Setting(
        parse_int,
        500,
        LIMITS,
        "Proportional set size of all processes at which the collector drains, delivers or spools, and exits with code 3; "
        "at most 85 % of the cgroup's limit, with which the cgroup's own use is compared as well.",
        "MiB",
        1,
        aliases=("AKTO_MEM_HARD_LIMIT",),
    )
    MODULE_MEM_CHECK_INTERVAL = Setting(parse_int, 500, LIMITS, "Time between memory readings.", "milliseconds", 50, 60000)
    SOCKET_DATA_EVENT_BYTES_THRESHOLD = Setting(
        parse_int,
        10 * MIB,
        LIMITS,
        "What one connection may hold (bodies, heads, requests without answers); beyond, what waits on it is recorded "
        "as it stands, marked `evicted`.",
        "bytes",
        1,
    )
    TRAFFIC_SAMPLE_BUFFER_PER_MINUTE = Setting(
        parse_int,
        -1,
        LIMITS,
        "Captured payload per minute, split evenly among the shards; -1: no limit. Exchanges that begin beyond it are "
        "followed, not recorded, and counted.",
        "MiB",
        -1,
    )
    OUTPUT_BANDWIDTH_LIMIT = Setting(
        parse_int,
        -1,
        LIMITS,
        "Records per minute, split evenly among the shards; -1: no limit. Records beyond it are left out and counted.",
        "MiB",
        -1,
    )
    COLLECTOR_CPU_LIMIT = Setting(
        parse_cores,
        0.0,
        LIMITS,
        "CPU that the collector's processes may use together. When they use more than nine tenths of it, fewer connections "
        "are read, chosen evenly and as a whole, and counted (`collector_left_out_connections_total`); when they use "
        "less than seven tenths, more again.",
        "cores",
        0,
        1024,
        shown_default="the limit of the container's cgroup, if it has one",
    )
    AKTO_SYSTEM_CPU_SOFT_CORES = Setting(
        parse_cores,
        0.0,
        LIMITS,
        "CPU that everything on the host uses together, from which on the collector steps back: each second fewer "
        "connections are read, down to none, until the host uses less than nine tenths of it. 0: no limit.",
        "cores",
        0,
        65536,
    )
    AKTO_SYSTEM_CPU_HARD_CORES = Setting(
        parse_cores,
        0.0,
        LIMITS,
        "The same, from which on no connection is read at once. 0: no limit. (Akto's collector exits.)",
        "cores",
        0,
        65536,
    )
    AKTO_SYSTEM_CPU_SOFT_ADD_CORES = Setting(
        parse_cores,
        0.0,
        LIMITS,
        "AKTO_SYSTEM_CPU_SOFT_CORES, unless that is set, as so much more than what the host uses at the start. 0: no limit.",
        "cores",
        0,
        65536,
    )
    AKTO_SYSTEM_CPU_HARD_ADD_CORES = Setting(
        parse_cores,
        0.0,
        LIMITS,
        "The same for AKTO_SYSTEM_CPU_HARD_CORES.",
        "cores",
        0,
        65536,
    )
    AKTO_SYSTEM_CPU_BASELINE_SAMPLE_SEC = Setting(
        parse_seconds,
        15.0,
        LIMITS,
        "For how long the start is, for the two above: what the host uses is exceeded in a tenth of this time.",
        "seconds",
        5,
        300,
    )
    AKTO_SYSTEM_CPU_CHECK_INTERVAL_SEC = Setting(
        parse_seconds, 1.0, LIMITS, "Time between two readings of the CPU's use.", "seconds", 0.2, 60
    )
    AKTO_SYSTEM_CPU_HARD_CONFIRM_TICKS = Setting(
        parse_int, 3, LIMITS, "Readings in a row that must be above the hard limit.", "readings", 1, 1000
    )
    AKTO_PAUSE_INGESTION = Setting(parse_bool, False, LIMITS, "Read no connection at all; all else goes on.")
    # -- Filters
    AKTO_MODULE_DISCOVERY_CONFIG = Setting(
        parse_rules_text,
        "",
        FILTERS,
        "Header rules: which exchanges are recorded (docs/records.md). `akto-default`: what Akto's collector does when "
        "nothing is set, leaving Istio gateway traffic out.",
        shown_default="no filter",
    )
    AKTO_IGNORE_IP_TRAFFIC = Setting(
        parse_bool,
        False,
        FILTERS,
        "Leave out requests whose Host is an IP address (IPv4, IPv6, with or without port) or missing.",
    )
    AKTO_IGNORE_CLOUD_METADATA_CALLS = Setting(
        parse_bool,
        False,
        FILTERS,
        "Leave out calls to the clouds' instance metadata addresses and names, with or without port.",
    )
    TRAFFIC_DISABLE_EGRESS = Setting(
        parse_bool, False, FILTERS, "Leave out exchanges in which the traced process is the client (direction 2)."
    )
    TRAFFIC_IGNORE_DEFAULT_PORTS = Setting(
        parse_bool,
        True,
        FILTERS,
        "Leave out connections to Kafka (9092, 19092, 29092), ZooKeeper (2181), MongoDB (27017) and Redis "
        "(6379) server ports.",
    )
    # -- Delivery
    COLLECTOR_OUTPUT = Setting(
        parse_text,
        "",
        DELIVERY,
        "`kafka`, `-` (JSON lines on standard output), `null`, or a file's path.",
        shown_default="kafka when a broker is set, else -",
    )
    COLLECTOR_OUTPUT_MAX_BYTES = Setting(
        parse_file_size,
        0,
        DELIVERY,
        "Size at which an output file of `collector run` is rotated: it is renamed to FILE.1 (an earlier FILE.1 to FILE.2, "
        "and so on), and a new one is begun. The size is looked at ten times a second, so a file holds what was written "
        "until then, too. 0: never.",
        "bytes",
    )
    COLLECTOR_OUTPUT_FILES = Setting(
        parse_int, 5, DELIVERY, "Old files that are kept when an output file is rotated; the oldest goes.", "files", 1, 999
    )
    COLLECTOR_KAFKA_TOPIC = Setting(parse_topic, "akto.api.logs", DELIVERY, "Topic of the records.")
    COLLECTOR_COMPRESSION = Setting(parse_codec, "lz4", DELIVERY, "Codec of Kafka batches.")
    COLLECTOR_KAFKA_KEY = Setting(
        parse_key,
        "none",
        DELIVERY,
        "Key of the records: `none`, or `connection`, a number of the connection in hexadecimal. All records of a "
        "connection are in one partition in any case: that of its shard.",
    )
    COLLECTOR_KAFKA_IDEMPOTENCE = Setting(
        parse_bool, False, DELIVERY, "Let brokers leave out copies of what was sent again; needs their permission."
    )
    COLLECTOR_SPOOL_DIR = Setting(
        parse_text, "", DELIVERY, "Directory in which records wait while the destination is away.", shown_default="none"
    )
    COLLECTOR_SPOOL_BYTES = Setting(
        parse_int, 1 << 30, DELIVERY, "Most bytes in it; then the oldest records give way.", "bytes", 16 << 20
    )
    AKTO_KAFKA_BROKER_MAL = Setting(
        parse_brokers, "", DELIVERY, "Kafka brokers; wins over AKTO_KAFKA_BROKER_URL.", shown_default="none"
    )
    AKTO_KAFKA_BROKER_URL = Setting(parse_brokers, "", DELIVERY, "Kafka brokers.", shown_default="none")
    AKTO_TRAFFIC_BATCH_SIZE = Setting(
        parse_int, 100, DELIVERY, "Records at which a Kafka batch is ready.", "records", 1, 1_000_000
    )
    AKTO_TRAFFIC_BATCH_TIME_SECS = Setting(parse_seconds, 10.0, DELIVERY, "Age at which it is ready.", "seconds", 0, 3600)

    def __init__(self, values: dict[str, Value], warnings: list[str] | None = None) -> None:
        self.values = values
        self.warnings = [] if warnings is None else warnings

    def is_set(self, setting: Setting[Any]) -> bool:
        """Has anybody said what it is to be?"""
        return self.values[setting.name].source != "default"

    def override(self, setting: Setting[T], value: T, source: str) -> None:
        """An option of the command line wins over the variable."""
        self.values[setting.name] = Value(setting, value, source)

    @property
    def brokers(self) -> str:
        """The Kafka brokers in force ("" for none)."""
        return self.AKTO_KAFKA_BROKER_MAL or self.AKTO_KAFKA_BROKER_URL

    @property
    def captures_plain(self) -> bool:
        """Are connections captured that are not TLS, by CAPTURE_ALL and CAPTURE_SSL?"""
        return self.CAPTURE_ALL.strip().lower() == "true" or self.CAPTURE_SSL.strip().lower() in ("", "false")

    @property
    def captures_tls(self) -> bool:
        """Is the plaintext of TLS libraries captured?"""
        return "true" in (self.CAPTURE_ALL.strip().lower(), self.CAPTURE_SSL.strip().lower())

    @property
    def shards(self) -> int:
        """The number of shards in force."""
        return self.COLLECTOR_SHARDS or min(64, cgroups.cpu_limit())


def _declared() -> tuple[Setting[Any], ...]:
    """The attributes of Config in their order, then Akto's further names."""
    further = []
    for effect, names in akto_names.FURTHER.items():
        for name in names:
            setting = Setting(
                parse_text,
                "",
                AKTO,
                "See `collector/akto_names.py`; accepted so that Akto's manifests work as they are."
                if effect == NO_EFFECT
                else "Known; comes with the part that it belongs to.",
                effect=effect,
                secret="PASSWORD" in name or "TOKEN" in name,
            )
            setting.name = name
            further.append(setting)
    ours = [
        value
        for kind in (Config, PolicyConfig, KubernetesConfig, KafkaConfig)
        for value in vars(kind).values()
        if isinstance(value, Setting)
    ]
    return (*ours, *further)


SETTINGS = _declared()

# Read by the collector but not by this declaration's parser: variables that tests and the shell use.
_OTHER = frozenset({"COLLECTOR_CORPORA", "COLLECTOR_DEBUG", "COLLECTOR_REQUIRE_LIVE"})
_PREFIXES = ("COLLECTOR_", "AKTO_", "TRAFFIC_")
# Docker links as Kubernetes still injects them for each service of the namespace.
_SERVICE_LINK = re.compile(
    r".*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)

IGNORED_PORTS = (9092, 19092, 29092, 2181, 27017, 6379)


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Read all settings; raises ConfigError at the first value that does not parse."""
    environ = os.environ if environ is None else environ
    values: dict[str, Value] = {}
    warnings = []
    for setting in SETTINGS:
        value, source = setting.default, "default"
        for name in (setting.name, *setting.aliases):
            text = environ.get(name, "")
            if text.strip() or (text and setting.parse is parse_text):
                read = setting.read(name, text)
                if setting.ours and source != "default" and read != value:
                    raise ConfigError(f"{source} and {name} are the same setting, and say different things")
                if source != "default" and read != value:
                    warnings.append(f"{source} and {name} are the same setting, and say different things: {name} wins")
                value, source = read, name
        values[setting.name] = Value(setting, value, source)
    known = known_names()
    for name in sorted(environ):
        if name.startswith(_PREFIXES) and name not in known and not _SERVICE_LINK.match(name):
            near = difflib.get_close_matches(name, known, 1, 0.6)
            warnings.append(f"unknown variable {name}" + (f"; did you mean {near[0]}?" if near else ""))
    config = Config(values, warnings)
    for value in values.values():
        if value.source != "default" and value.setting.effect == NOT_YET:
            warnings.append(f"{value.source} is set, but does not act yet")
    if config.COLLECTOR_FILTERS and config.COLLECTOR_ALL_NAMESPACES:
        warnings.append(
            "COLLECTOR_FILTERS selects nothing more where COLLECTOR_ALL_NAMESPACES is true: all pods are captured"
        )
    return config


def known_names() -> frozenset[str]:
    """All variables that are not typing errors."""
    return frozenset(n for s in SETTINGS for n in (s.name, *s.aliases)) | _OTHER
