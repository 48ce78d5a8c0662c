"""Every environment variable, declared once: parsing, `collector config`, docs/configuration.md come from SETTINGS.

A value that does not parse is a ConfigError that names variable, value and expected form; nothing is replaced
silently. An empty value means unset. Where Akto's collector has the same variable, name and unit are Akto's.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from collector.errors import ConfigError

ACTS, NO_EFFECT, NOT_YET = "acts", "accepted without effect", "not yet"
MIB = 1 << 20


# ---- values ------------------------------------------------------------------------------------------------------

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def parse_bool(text: str) -> bool:
    """true/false/1/0/yes/no/on/off in any case; raises ValueError otherwise."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


def parse_int(text: str) -> int:
    """A plain decimal integer; raises ValueError otherwise."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text.strip()):
        raise ValueError
    return int(text)


def parse_seconds(text: str) -> float:
    """A plain decimal number of seconds; `5m` and `3s` raise ValueError."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise ValueError
    return float(text)


def parse_text(text: str) -> str:
    """Any text."""
    return text


LOG_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "OFF")


def parse_log_level(text: str) -> str:
    """DEBUG, INFO, WARN, ERROR, OFF in any case; `DBEUG`, as Akto's documentation has it, is DEBUG."""
    word = text.strip().upper()
    word = {"DBEUG": "DEBUG", "WARNING": "WARN"}.get(word, word)
    if word not in LOG_LEVELS:
        raise ValueError
    return word


def parse_address(text: str) -> str:
    """HOST:PORT, host an IP address ([v6] in brackets) or a name; raises ValueError otherwise."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError
    return text.strip()


def parse_brokers(text: str) -> str:
    """HOST:PORT[,HOST:PORT...]; raises ValueError otherwise."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError
    for part in parts:
        parse_address(part)
    return ",".join(parts)


def parse_codec(text: str) -> str:
    """A Kafka compression codec."""
    if text.strip().lower() not in ("none", "gzip", "snappy", "lz4", "zstd"):
        raise ValueError
    return text.strip().lower()


def parse_hooks(text: str) -> str:
    """auto, tpx or raw (bpf/README.md)."""
    if text.strip().lower() not in ("auto", "tpx", "raw"):
        raise ValueError
    return text.strip().lower()


def parse_identity(text: str) -> str:
    """auto, socket or descriptor (docs/decisions/0010)."""
    if text.strip().lower() not in ("auto", "socket", "descriptor"):
        raise ValueError
    return text.strip().lower()


def parse_log_format(text: str) -> str:
    """Either text or json."""
    if text.strip().lower() not in ("text", "json"):
        raise ValueError
    return text.strip().lower()


def parse_header_name(text: str) -> str:
    """A field name (RFC 9110 section 5.1) of at most 63 bytes; `none` gives the empty text; raises ValueError."""
    name = text.strip()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,63}", name):
        raise ValueError
    return "" if name.lower() == "none" else name


def parse_networks(text: str) -> str:
    """At most 256 CIDR[,CIDR...], IPv4 or IPv6 without a zone, an address for itself; canonical; raises ValueError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not 0 < len(parts) <= 256 or not all(re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?", part) for part in parts):
        raise ValueError
    return ",".join(str(ipaddress.ip_network(part)) for part in parts)


_FORMS: dict[Callable[[str], Any], tuple[str, str]] = {
    parse_bool: ("boolean", "true or false (also 1/0, yes/no, on/off)"),
    parse_int: ("integer", "a plain whole number"),
    parse_seconds: ("number", "a plain number of seconds, such as 3 or 0.5 (no suffix)"),
    parse_text: ("text", "text"),
    parse_log_level: ("word", "one of DEBUG, INFO, WARN, ERROR, OFF"),
    parse_address: ("address", "HOST:PORT"),
    parse_brokers: ("addresses", "HOST:PORT, several separated by commas"),
    parse_hooks: ("word", "one of auto, tpx, raw"),
    parse_identity: ("word", "one of auto, socket, descriptor"),
    parse_codec: ("word", "one of none, gzip, snappy, lz4, zstd"),
    parse_log_format: ("word", "text or json"),
    parse_header_name: ("name", "a header name of at most 63 bytes, or none"),
    parse_networks: ("networks", "IPv4 or IPv6 networks without further address bits, several separated by commas, such as "
                     "10.0.0.0/8,2001:db8::/32"),
}


@dataclass(frozen=True)
class Setting:
    """One variable. ``default`` is the parsed value; ``low``/``high`` bound numbers; ``aliases`` are further names,
    later ones winning; ``effect`` is ACTS, NO_EFFECT or NOT_YET.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    section: str
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    aliases: tuple[str, ...] = ()
    effect: str = ACTS
    shown_default: str = ""
    secret: bool = False

    @property
    def type(self) -> str:
        """The kind of value, as documentation calls it."""
        return _FORMS[self.parse][0]

    @property
    def form(self) -> str:
        """The expected form, as errors call it."""
        form = _FORMS[self.parse][1]
        if self.low is not None and self.high is not None:
            form += f", from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            form += f", at least {self.low:g}"
        return form

    def read(self, name: str, text: str) -> Any:
        """The value of ``text``; raises ConfigError."""
        try:
            value = self.parse(text)
            if self.low is not None and value < self.low or self.high is not None and value > self.high:
                raise ValueError
        except ValueError:
            shown = "(hidden)" if self.secret else repr(text)
            raise ConfigError(f"{name}={shown}: expected {self.form}") from None
        return value


def _filter_text(text: str) -> str:
    from collector.shards.filters.rules import parse_rules

    parse_rules(text)
    return text


_FORMS[_filter_text] = ("JSON", "a JSON array of header rules (docs/records.md)")

OURS, AKTO, DELIVERY, LIMITS, FILTERS, CAPTURE, PROCESS = (
    "Collector", "Akto: other names", "Delivery", "Limits", "Filters", "Capture", "Process",
)

SETTINGS: tuple[Setting, ...] = (
    # -- Process
    Setting("COLLECTOR_SHARDS", parse_int, 0, PROCESS,
            "Number of shard processes. 0: the CPU limit of the container's cgroup, rounded up.", low=0, high=64),
    Setting("COLLECTOR_HEALTH_ADDRESS", parse_address, "127.0.0.1:11226", PROCESS,
            "Where /healthz, /readyz and /metrics are served. Port 0 picks a free one. If another program has it, "
            "capture starts all the same, and the port is tried again every few seconds."),
    Setting("COLLECTOR_RUNTIME_DIR", parse_text, "/run/collector", PROCESS,
            "Directory for the lock and for the sockets between the processes. Made with mode 0700; one that is there "
            "already stays as it is, and only `ebpf-api-collector` in it is ours. Refused where others could replace that: "
            "a directory that they can write, without sticky bit, unless it is a mounted volume."),
    Setting("COLLECTOR_LOG_FORMAT", parse_log_format, "text", PROCESS, "Form of log lines on standard error."),
    Setting("AKTO_LOG_LEVEL", parse_log_level, "WARN", PROCESS, "Lowest level that is logged; OFF logs nothing."),
    # -- Capture
    Setting("COLLECTOR_RING_BYTES", parse_int, 8 * MIB, CAPTURE,
            "Size of each ring buffer; rounded up to a power of two.", "bytes", 65536, 1 << 30),
    Setting("COLLECTOR_HOOKS", parse_hooks, "auto", CAPTURE,
            "Hook variant: `tpx`, one tracepoint per covered call; `raw`, one for all calls, for kernels before 5.15; "
            "`auto`, the first of them that loads."),
    Setting("COLLECTOR_IDENTITY", parse_identity, "auto", CAPTURE,
            "What a connection is known by: `socket`, the kernel's own socket, which needs a kernel that describes itself "
            "(BTF) and lets itself be read; `descriptor`, process and descriptor; `auto`, the first of them that loads."),
    Setting("COLLECTOR_BODY_BYTES", parse_int, 65536, CAPTURE,
            "Body bytes kept per message; the rest is counted and marked.", "bytes", 0, 262144),
    Setting("COLLECTOR_RESPONSE_BODIES", parse_bool, True, CAPTURE, "Whether response bodies are kept at all."),
    Setting("COLLECTOR_HEADER_BYTES", parse_int, 65536, CAPTURE,
            "Head bytes (start line and fields) kept per message.", "bytes", 1024, 262144),
    Setting("COLLECTOR_UNIX_SOCKETS", parse_bool, False, CAPTURE, "Also capture HTTP over Unix stream sockets."),
    Setting("COLLECTOR_REAL_IP_HEADER", parse_header_name, "X-Real-IP", CAPTURE,
            "Request header that names the client when the connection comes from a proxy in COLLECTOR_TRUSTED_CIDRS: "
            "X-Forwarded-For and Forwarded are read as lists of hops, any other name as one address (docs/records.md, "
            "`clientIp`). `none`: no header."),
    Setting("COLLECTOR_TRUSTED_CIDRS", parse_networks, "", CAPTURE,
            "Networks whose proxies are believed when they name the client in a header; several separated by commas.",
            shown_default="none"),
    Setting("CAPTURE_ALL", parse_text, "true", CAPTURE,
            "Akto's switch between plain and TLS capture. Plain system calls are always captured.", effect=NOT_YET),
    Setting("CAPTURE_SSL", parse_text, "", CAPTURE, "Akto's switch for TLS probes.", effect=NOT_YET),
    Setting("CAPTURE_EGRESS", parse_text, "", CAPTURE,
            "Akto swaps reads and writes with it. Both directions are always understood.", effect=NO_EFFECT),
    Setting("UPROBE_POLL_INTERVAL", parse_int, 0, CAPTURE, "Akto's search interval for TLS libraries.", "seconds",
            0, effect=NOT_YET),
    Setting("PROBE_ALL_PID", parse_bool, False, CAPTURE, "Akto: probe TLS in processes outside containers too.",
            effect=NOT_YET),
    Setting("PROBE_PROCESS_NAMES", parse_text, "", CAPTURE, "Akto: probe TLS in these programs only.", effect=NOT_YET),
    Setting("TRACE_PIDS", parse_text, "", CAPTURE, "Akto: capture these process ids only.", effect=NOT_YET),
    Setting("TRACE_COMMS", parse_text, "", CAPTURE, "Akto: capture these programs only.", effect=NOT_YET),
    Setting("AKTO_CONN_PREFILL", parse_bool, False, CAPTURE,
            "Connections open before the start are always recognised at their next message.", effect=NO_EFFECT),
    Setting("AKTO_KERNEL_DROP_NON_HTTP_TRAFFIC", parse_bool, True, CAPTURE,
            "Connections that are not HTTP are always left out in the kernel.", effect=NO_EFFECT),
    # -- Limits
    Setting("TRAFFIC_MAX_ACTIVE_CONN", parse_int, 4096, LIMITS,
            "Connections held by all shards together; each owns its share and a quarter more. Beyond it the least "
            "recently active one is recorded as it stands (`evicted`) and forgotten.", "connections", 1, 10_000_000),
    Setting("TRAFFIC_INACTIVITY_THRESHOLD", parse_seconds, 3.0, LIMITS,
            "A connection silent for this long is inactive: no loss when it is given up because memory or "
            "TRAFFIC_MAX_ACTIVE_CONN is short (the one silent for longest always goes first). Nothing else follows from it.",
            "seconds", 0.05, 86400),
    Setting("COLLECTOR_UNANSWERED_SECS", parse_seconds, 60.0, LIMITS,
            "An exchange of which neither side has sent a byte for this long is recorded as it stands: unanswered "
            "(statusCode 0), or incomplete.", "seconds", 0.1, 86400),
    Setting("TRAFFIC_BUFFER_THRESHOLD", parse_int, 400, LIMITS,
            "Proportional set size of all processes at which the shards give up the least recently active state.",
            "MiB", 1, aliases=("AKTO_MEM_SOFT_LIMIT",)),
    Setting("AKTO_MEM_THRESH_RESTART", parse_int, 500, LIMITS,
            "Proportional set size of all processes at which the collector drains, delivers and exits with code 3.",
            "MiB", 1, aliases=("AKTO_MEM_HARD_LIMIT",)),
    Setting("MODULE_MEM_CHECK_INTERVAL", parse_int, 500, LIMITS, "Time between memory readings.", "milliseconds",
            50, 60000),
    Setting("SOCKET_DATA_EVENT_BYTES_THRESHOLD", parse_int, 10 * MIB, LIMITS,
            "What one connection may hold (bodies, heads, requests without answers); beyond, what waits on it is recorded "
            "as it stands, marked `evicted`.", "bytes", 1),
    Setting("TRAFFIC_SAMPLE_BUFFER_PER_MINUTE", parse_int, -1, LIMITS,
            "Captured payload per minute, split evenly among the shards; -1: no limit. Exchanges that begin beyond it are "
            "followed, not recorded, and counted.", "MiB", -1),
    Setting("OUTPUT_BANDWIDTH_LIMIT", parse_int, -1, LIMITS,
            "Records per minute, split evenly among the shards; -1: no limit. Records beyond it are left out and counted.",
            "MiB", -1),
    # -- Filters
    Setting("AKTO_MODULE_DISCOVERY_CONFIG", _filter_text, "", FILTERS,
            "Header rules: which exchanges are recorded (docs/records.md). `akto-default`: what Akto's collector does when "
            "nothing is set, leaving Istio gateway traffic out.", shown_default="no filter"),
    Setting("AKTO_IGNORE_IP_TRAFFIC", parse_bool, False, FILTERS,
            "Leave out requests whose Host is an IP address (IPv4, IPv6, with or without port) or missing."),
    Setting("AKTO_IGNORE_CLOUD_METADATA_CALLS", parse_bool, False, FILTERS,
            "Leave out calls to the clouds' instance metadata addresses and names, with or without port."),
    Setting("TRAFFIC_DISABLE_EGRESS", parse_bool, False, FILTERS,
            "Leave out exchanges in which the traced process is the client (direction 2)."),
    Setting("TRAFFIC_IGNORE_DEFAULT_PORTS", parse_bool, True, FILTERS,
            "Leave out connections to Kafka (9092, 19092, 29092), ZooKeeper (2181), MongoDB (27017) and Redis "
            "(6379) server ports."),
    # -- Delivery
    Setting("COLLECTOR_OUTPUT", parse_text, "", DELIVERY,
            "`kafka`, `-` (JSON lines on standard output), `null`, or a file's path.",
            shown_default="kafka when a broker is set, else -"),
    Setting("COLLECTOR_KAFKA_TOPIC", parse_text, "akto.api.logs", DELIVERY, "Topic of the records."),
    Setting("COLLECTOR_COMPRESSION", parse_codec, "lz4", DELIVERY, "Codec of Kafka batches."),
    Setting("COLLECTOR_SPOOL_DIR", parse_text, "", DELIVERY,
            "Directory for records while the destination is away.", effect=NOT_YET),
    Setting("COLLECTOR_SPOOL_BYTES", parse_int, 1 << 30, DELIVERY, "Limit of that directory.", "bytes", 0,
            effect=NOT_YET),
    Setting("AKTO_KAFKA_BROKER_MAL", parse_brokers, "", DELIVERY, "Kafka brokers; wins over AKTO_KAFKA_BROKER_URL.",
            shown_default="none"),
    Setting("AKTO_KAFKA_BROKER_URL", parse_brokers, "", DELIVERY, "Kafka brokers.", shown_default="none"),
    Setting("AKTO_TRAFFIC_BATCH_SIZE", parse_int, 100, DELIVERY, "Records at which a batch leaves.", "records", 1,
            1_000_000),
    Setting("AKTO_TRAFFIC_BATCH_TIME_SECS", parse_seconds, 10.0, DELIVERY, "Age at which a batch leaves.", "seconds",
            0, 3600),
)

# Akto's further names: known, so that nobody is warned about them, but without a place here (yet).
_FURTHER: dict[str, tuple[str, ...]] = {
    NOT_YET: (
        "USE_TLS", "TLS_CA_CERT_PATH", "INSECURE_SKIP_VERIFY", "IS_AUTH_IMPLEMENTED", "KAFKA_USERNAME",
        "KAFKA_PASSWORD", "NODE_NAME", "POD_NAME", "AKTO_AGENT_NAME", "AKTO_IMAGE_VERSION", "HOST_MAPPING",
        "HOST_PROC", "AKTO_K8_METADATA_CAPTURE", "AKTO_K8_METADATA_CAPTURE_NAMESPACE", "AKTO_INJECT_TAGS",
        "AKTO_RESOLVE_OUTBOUND_POD_LABELS", "AKTO_THREAT_ENABLED", "AKTO_IGNORE_ENVOY_PROXY_CALLS",
        "KAFKA_HEARTBEAT_INTERVAL_SECONDS", "AKTO_KAFKA_DISABLED",
    ),
    NO_EFFECT: (
        "BPF_CHUNK_SIZE_LIMIT", "TRAFFIC_MAX_CONNECTION_MAP_SIZE", "PRINT_BPF_LOGS", "FILTER_LOCAL_TRAFFIC",
        "LOCAL_TRAFFIC_IP_LE", "TRAFFIC_STRICT_REMOTE_PORT_FILTER", "TRAFFIC_STRICT_REMOTE_PORT",
        "TRAFFIC_DISABLE_PERF_SUBMIT", "TRAFFIC_RINGBUF_DATA_MB", "TRAFFIC_RINGBUF_OPEN_MB",
        "TRAFFIC_RINGBUF_CLOSE_MB", "TRAFFIC_LOG_BPF_SOCKET_DATA_SUBMITS", "TRAFFIC_LOG_EBPF_MAP_MEMORY",
        "TRAFFIC_EBPF_MAP_MEMORY_INTERVAL", "BPF_OBJ_PATH", "AKTO_SYS_MEM_HARD_LIMIT",
        "TRACKER_DATA_PROCESS_INTERVAL", "AKTO_SKIP_SEQUENCE_CHECK", "AKTO_FAST_INGESTION",
        "MSG_SEQ_FLUSH_TICK_INTERVAL", "MSG_SEQ_FLUSH_ENABLED", "MSG_SEQ_LOGS", "AKTO_PER_CONN_CH_BUFFER_SIZE",
        "EVENT_CHAN_BUFF_SIZE", "AKTO_FAST_PARSER_GUNZIP", "AKTO_FAST_PARSER_CHUNK_ENCODING", "FAST_ENCODER",
        "SKIP_PAIR_PROCESSING", "KAFKA_DISABLED", "AKTO_MEM_SAMPLING_ENABLED", "LRU_CACHE_CAPACITY",
        "BLOOM_FILTER_CAPACITY", "BLOOM_FILTER_FP_RATE", "TIME_BUCKET_DURATION_MINUTES", "AKTO_ENABLE_GRAPH",
        "DEBUG_MODE", "DEBUG_URLS", "INGEST_LOGS", "PROCESS_LOGS", "AKTO_FILE_LOGGING_ENABLED",
        "AKTO_DEBUG_MEM_PROFILING", "AKTO_ENABLE_PPROF", "AKTO_MONGO_CONN", "AKTO_DISABLE_ON_DB",
        "AKTO_BYTES_IN_THRESHOLD", "KAFKA_POLL_INTERVAL", "TRAFFIC_COMPLETE_THRESHOLD",
        "TRAFFIC_MAX_BUFFER_PER_TRACKER", "SAMPLE_LIMIT_PER_MIN", "KAFKA_ERROR_THRESHOLD",
        "KAFKA_RECONNECT_INTERVAL_MINUTES", "AKTO_SYSTEM_CPU_SOFT_ADD_CORES", "AKTO_SYSTEM_CPU_HARD_ADD_CORES",
        "AKTO_SYSTEM_CPU_BASELINE_SAMPLE_SEC", "AKTO_SYSTEM_CPU_BASELINE_STEP_SEC", "AKTO_SYSTEM_CPU_SOFT_CORES",
        "AKTO_SYSTEM_CPU_HARD_CORES", "AKTO_SYSTEM_CPU_CHECK_INTERVAL_SEC", "AKTO_SYSTEM_CPU_HARD_CONFIRM_TICKS",
        "AKTO_SYSTEM_CPU_SOFT_OSCILLATION_EXIT_TRANSITIONS", "AKTO_PAUSE_INGESTION", "CLOUD_PROCESSOR_MODE",
        "CLOUD_PROCESSOR_AUTHENTICATION_TOKEN", "CLOUD_PROCESSOR_URL", "CLOUD_PROCESSOR_BUFFER_INTERVAL_SECONDS",
        "CLOUD_PROCESSOR_BUFFER_SIZE", "DISABLE_KHEADERS", "EBPF_MODE", "AKTO_EBPF_RUNTIME",
    ),
}
SETTINGS += tuple(
    Setting(name, parse_text, "", AKTO,
            "See `collector/config.py`; accepted so that Akto's manifests work as they are." if effect == NO_EFFECT else
            "Known; comes with the part that it belongs to.",
            effect=effect, secret="PASSWORD" in name or "TOKEN" in name)
    for effect, names in _FURTHER.items() for name in names
)

# Read by the collector but not by this declaration's parser: variables that tests and the shell use.
_OTHER = frozenset({"COLLECTOR_CORPORA", "COLLECTOR_DEBUG", "COLLECTOR_REQUIRE_LIVE"})
_PREFIXES = ("COLLECTOR_", "AKTO_", "TRAFFIC_")
# Docker links as Kubernetes still injects them for each service of the namespace.
_SERVICE_LINK = re.compile(
    r".*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")

IGNORED_PORTS = (9092, 19092, 29092, 2181, 27017, 6379)


@dataclass(frozen=True)
class Value:
    """A setting's effective value and where it came from: `default` or the variable's name."""

    setting: Setting
    value: Any
    source: str


@dataclass
class Config:
    """All settings of one run. ``config["NAME"]`` is the effective value."""

    values: dict[str, Value]
    warnings: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def is_set(self, name: str) -> bool:
        """Was it given at all?"""
        return self.values[name].source != "default"

    @property
    def brokers(self) -> str:
        """The Kafka brokers in force ("" for none)."""
        return str(self["AKTO_KAFKA_BROKER_MAL"] or self["AKTO_KAFKA_BROKER_URL"])

    @property
    def output(self) -> str:
        """The output in force: kafka, -, null or a path."""
        return str(self["COLLECTOR_OUTPUT"] or ("kafka" if self.brokers else "-"))

    @property
    def shards(self) -> int:
        """The number of shards in force."""
        return int(self["COLLECTOR_SHARDS"]) or min(64, cpu_limit())


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
                value, source = setting.read(name, text), name
        values[setting.name] = Value(setting, value, source)
    known = known_names()
    for name in sorted(environ):
        if name.startswith(_PREFIXES) and name not in known and not _SERVICE_LINK.match(name):
            near = difflib.get_close_matches(name, known, 1, 0.6)
            warnings.append(f"unknown variable {name}" + (f"; did you mean {near[0]}?" if near else ""))
    config = Config(values, warnings)
    if config.output == "kafka" and not config.brokers:
        raise ConfigError("COLLECTOR_OUTPUT='kafka': needs AKTO_KAFKA_BROKER_MAL=HOST:PORT")
    if config["TRAFFIC_BUFFER_THRESHOLD"] > config["AKTO_MEM_THRESH_RESTART"]:
        warnings.append("TRAFFIC_BUFFER_THRESHOLD is above AKTO_MEM_THRESH_RESTART: state is never given up before "
                        "the restart")
    for value in values.values():
        if value.source != "default" and value.setting.effect == NOT_YET:
            warnings.append(f"{value.source} is set, but does not act yet")
    return config


def known_names() -> frozenset[str]:
    """All variables that are not typing errors."""
    return frozenset(n for s in SETTINGS for n in (s.name, *s.aliases)) | _OTHER


# ---- the machine -------------------------------------------------------------------------------------------------


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _cgroup_dirs(controller: str) -> Iterable[str]:
    """Our own cgroup directories for a controller, innermost first: version 2, then version 1."""
    for line in _read("/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        roots: tuple[str, ...]
        if number == "0" and not controllers:
            roots = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        elif controller in controllers.split(","):
            roots = (f"/sys/fs/cgroup/{controller}",)
        else:
            continue
        for root in roots:
            here = path
            while True:
                yield root + here.rstrip("/")
                if here in ("", "/"):
                    break
                here = os.path.dirname(here)


def cpu_limit() -> int:
    """CPUs that the container may use, rounded up, at least 1 (cgroup v2 cpu.max, v1 cpu.cfs_quota_us)."""
    cpus = float(len(os.sched_getaffinity(0)))
    for directory in _cgroup_dirs("cpu"):
        quota, _, period = _read(directory + "/cpu.max").partition(" ")
        if not quota:
            quota, period = _read(directory + "/cpu.cfs_quota_us"), _read(directory + "/cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            cpus = min(cpus, int(quota) / int(period))
    return max(1, math.ceil(cpus))


def memory_limit() -> int | None:
    """Bytes that the container may use, None for no limit (cgroup v2 memory.max, v1 memory.limit_in_bytes)."""
    limit: int | None = None
    for directory in _cgroup_dirs("memory"):
        for name in ("/memory.max", "/memory.limit_in_bytes"):
            text = _read(directory + name)
            if text.isdigit() and int(text) < 1 << 60:
                limit = int(text) if limit is None else min(limit, int(text))
    return limit


# ---- printing ----------------------------------------------------------------------------------------------------


def _shown(setting: Setting, value: Any, *, default: bool = False) -> str:
    if default and setting.shown_default:
        return setting.shown_default
    if setting.secret and value:
        return "(set)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "(empty)"


def table(config: Config) -> str:
    """What `collector config` prints: one line a variable, tab-free columns."""
    rows = [("VARIABLE", "TYPE", "UNIT", "DEFAULT", "VALUE", "SOURCE", "EFFECT")]
    for value in config.values.values():
        s = value.setting
        source = value.source
        rows.append((s.name, s.type, s.unit or "-", _shown(s, s.default, default=True),
                     _shown(s, value.value, default=source == "default"), source, s.effect))
    widths = [min(46, max(len(row[i]) for row in rows)) for i in range(7)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows) + "\n"


def markdown() -> str:
    """docs/configuration.md, from the declarations."""
    out = [
        "# Configuration", "",
        "<!-- Generated by `make docs` from collector/config.py. Do not edit. -->", "",
        "Everything is set by environment variables, read once at start. An empty value means unset. A value that does "
        "not parse refuses to start, naming variable, value and expected form. `collector config` prints the values in "
        "force and where they come from.", "",
        "Durations are plain numbers of seconds (`5m` is an error). Booleans are true/false, 1/0, yes/no, on/off in any "
        "case; Akto's collector reads everything but `true` as false. Names and units that Akto's collector has are the "
        "same here.", "",
        "*acts*: it does what it says. *accepted without effect*: Akto's variable has no meaning here. *not yet*: it "
        "will act with the part it belongs to, and a warning says so until then.", "",
    ]
    sections: dict[str, list[Setting]] = {}
    for setting in SETTINGS:
        sections.setdefault(setting.section, []).append(setting)
    for section, settings in sections.items():
        out += [f"## {section}", "", "| Variable | Type | Default | Effect | Meaning |", "|---|---|---|---|---|"]
        for s in settings:
            meaning = s.description
            if s.unit:
                meaning += f" Unit: {s.unit}."
            if s.low is not None and s.high is not None:
                meaning += f" Range: {s.low:g} to {s.high:g}."
            if s.aliases:
                meaning += f" Also {', '.join(f'`{a}`' for a in s.aliases)}, which wins."
            out.append(f"| `{s.name}` | {s.type} | {_shown(s, s.default, default=True)} | {s.effect} | {meaning} |")
        out.append("")
    return "\n".join(out).rstrip() + "\n"
