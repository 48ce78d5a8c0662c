"""How the values of settings are written: a function for each form, which raises ValueError, and its description."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

# The sources of libraries (collector/loader/probes)
LIBRARIES = ("openssl", "gnutls", "nss", "go")
ALL_LIBRARIES, NO_LIBRARIES = "all", "none"

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


LEAST_FILE_BYTES = 65536


def parse_file_size(text: str) -> int:
    """Bytes of a file that is rotated: 0, or LEAST_FILE_BYTES or more, lest records be deleted as fast as they are written;
    raises ValueError otherwise.
    """
    size = parse_int(text)
    if size and size < LEAST_FILE_BYTES:
        raise ValueError
    return size


def parse_seconds(text: str) -> float:
    """A plain decimal number of seconds; `5m` and `3s` raise ValueError."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise ValueError
    return float(text)


def parse_cores(text: str) -> float:
    """A plain decimal number of cores; `500m` raises ValueError."""
    return parse_seconds(text)


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
    if ":" in host and not (host.startswith("[") and host.endswith("]")):  # ::1:9092 is an address, too
        raise ValueError
    return text.strip()


def parse_brokers(text: str) -> str:
    """HOST:PORT[,HOST:PORT...]; raises ValueError otherwise."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError
    for part in parts:
        if re.search(r"[\s<>]", part) or part.endswith(":0"):  # <HOST>:9092 of a manifest that nobody has filled in
            raise ValueError
        host, _, _port = parse_address(part).rpartition(":")
        if not host.strip("[]").encode("idna"):  # UnicodeError, a ValueError, for what cannot be a name
            raise ValueError
    return ",".join(parts)


def parse_codec(text: str) -> str:
    """A Kafka compression codec."""
    if text.strip().lower() not in ("none", "gzip", "snappy", "lz4", "zstd"):
        raise ValueError
    return text.strip().lower()


def parse_topic(text: str) -> str:
    """A name that Kafka takes for a topic; raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text.strip()) or text.strip() in (".", ".."):
        raise ValueError
    return text.strip()


MECHANISMS, NO_SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "none"


def parse_mechanism(text: str) -> str:
    """One of MECHANISMS in any case, or `none`; raises ValueError."""
    word = text.strip().upper()
    if word == NO_SASL.upper():
        return NO_SASL
    if word not in MECHANISMS:
        raise ValueError
    return word


def parse_key(text: str) -> str:
    """What the key of a Kafka record is."""
    if text.strip().lower() not in ("none", "connection"):
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


CACHE_OFF = "off"
NOISES = ("probe", "scrape", "mesh", "balancer")  # collector/shards/http/noise.pyx
SECCOMP_AUTO, SECCOMP_ON, SECCOMP_OFF = "auto", "on", "off"


def parse_seccomp(text: str) -> str:
    """auto, on or off (docs/decisions/0024)."""
    if text.strip().lower() not in (SECCOMP_AUTO, SECCOMP_ON, SECCOMP_OFF):
        raise ValueError
    return text.strip().lower()


def parse_switch(text: str) -> str:
    """auto, on or off."""
    if text.strip().lower() not in ("auto", "on", "off"):
        raise ValueError
    return text.strip().lower()


def parse_api(text: str) -> str:
    """http://HOST:PORT of this host, or "" for `account`; raises ValueError."""
    if text.strip() == "account":
        return ""
    found = re.fullmatch(r"http://(127\.[\d.]+|localhost|\[::1\]):(\d{1,5})/?", text.strip())
    if not found or not 0 < int(found[2]) < 65536:
        raise ValueError
    if found[1].startswith("127."):
        ipaddress.IPv4Address(found[1])  # ValueError
    return text.strip().rstrip("/")


def parse_containers(text: str) -> str:
    """At most 64 names of containers (RFC 1123), separated by commas; `none` gives the empty text; raises ValueError."""
    if text.strip() == "none":
        return ""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not 0 < len(names) <= 64 or not all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) for name in names):
        raise ValueError
    return ",".join(names)


def parse_filters_text(text: str) -> str:
    """COLLECTOR_FILTERS; raises ValueError, and ConfigError that says where."""
    from collector.kubernetes.selection import parse_filters

    try:
        entries = json.loads(text)
    except RecursionError:  # lists in lists in lists
        raise ValueError from None
    parse_filters(entries, "COLLECTOR_FILTERS")
    return text


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


def parse_rules_text(text: str) -> str:
    """AKTO_MODULE_DISCOVERY_CONFIG; raises ConfigError."""
    from collector.shards.filters.rules import parse_rules

    parse_rules(text)
    return text


def parse_libraries(text: str) -> str:
    """Names of LIBRARIES, separated by commas, `all` or `none`; canonical, without duplicates; raises ValueError."""
    names = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if names in ([ALL_LIBRARIES], [NO_LIBRARIES]):
        return names[0]
    if not names or not set(names) <= set(LIBRARIES):
        raise ValueError
    return ",".join(names)


def parse_noise(text: str) -> str:
    """Some of NOISES, separated by commas, `all` or `none`; canonical, "" for none; raises ValueError."""
    names = {part.strip().lower() for part in text.split(",") if part.strip()}
    if names in ({"all"}, {"none"}):
        return ",".join(NOISES) if names == {"all"} else ""
    if not names or not names <= set(NOISES):
        raise ValueError
    return ",".join(name for name in NOISES if name in names)


def parse_names(text: str) -> str:
    """At most 64 names of programs, separated by commas; raises ValueError."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not 0 < len(names) <= 64 or any("/" in name for name in names):
        raise ValueError
    return ",".join(names)


def parse_pids(text: str) -> str:
    """At most 1,024 process ids, separated by commas; raises ValueError."""
    pids = [part.strip() for part in text.split(",") if part.strip()]
    if not 0 < len(pids) <= 1024 or not all(re.fullmatch(r"[0-9]{1,7}", pid) and int(pid) for pid in pids):
        raise ValueError
    return ",".join(pids)


def parse_paths(text: str) -> str:
    """At most 64 paths, separated by commas; raises ValueError."""
    paths = [part.strip() for part in text.split(",") if part.strip()]
    if not 0 < len(paths) <= 64:
        raise ValueError
    return ",".join(paths)


def parse_directory(text: str) -> str:
    """An absolute path; raises ValueError."""
    if not text.strip().startswith("/"):
        raise ValueError
    return text.strip()


def parse_cache(text: str) -> str:
    """An absolute path, or "" for `off`; raises ValueError."""
    return "" if text.strip() == CACHE_OFF else parse_directory(text)


FORMS: dict[Callable[[str], Any], tuple[str, str]] = {
    parse_bool: ("boolean", "true or false (also 1/0, yes/no, on/off)"),
    parse_int: ("integer", "a plain whole number"),
    parse_file_size: ("integer", f"0, or a plain whole number, at least {LEAST_FILE_BYTES}"),
    parse_seconds: ("number", "a plain number of seconds, such as 3 or 0.5 (no suffix)"),
    parse_cores: ("number", "a plain decimal number of cores, such as 0.5"),
    parse_text: ("text", "text"),
    parse_log_level: ("word", "one of DEBUG, INFO, WARN, ERROR, OFF"),
    parse_address: ("address", "HOST:PORT, an IPv6 address in brackets"),
    parse_brokers: ("addresses", "HOST:PORT, an IPv6 address in brackets, several separated by commas"),
    parse_hooks: ("word", "one of auto, tpx, raw"),
    parse_identity: ("word", "one of auto, socket, descriptor"),
    parse_seccomp: ("word", "one of auto, on, off"),
    parse_codec: ("word", "one of none, gzip, snappy, lz4, zstd"),
    parse_key: ("word", "none or connection"),
    parse_topic: ("name", "at most 249 letters, digits, dots, underscores and hyphens"),
    parse_mechanism: ("word", f"one of {', '.join(MECHANISMS)}, {NO_SASL}"),
    parse_log_format: ("word", "text or json"),
    parse_header_name: ("name", "a header name of at most 63 bytes, or none"),
    parse_networks: (
        "networks",
        "IPv4 or IPv6 networks without further address bits, several separated by commas, such as 10.0.0.0/8,2001:db8::/32",
    ),
    parse_api: ("address", "account, or http:// and an address of this host with its port, as http://127.0.0.1:8001"),
    parse_containers: ("names", "names of containers, separated by commas, at most 64, or none"),
    parse_switch: ("word", "one of auto, on, off"),
    parse_filters_text: ("JSON", "a JSON array of filters (docs/kubernetes.md)"),
    parse_rules_text: ("JSON", "a JSON array of header rules (docs/records.md)"),
    parse_noise: ("names", f"some of {', '.join(NOISES)}, separated by commas; all; or none"),
    parse_names: ("names", "names of programs without their directories, separated by commas, at most 64"),
    parse_pids: ("numbers", "process ids, separated by commas, at most 1024"),
    parse_paths: ("paths", "paths of files, separated by commas, at most 64"),
    parse_directory: ("path", "an absolute path"),
    parse_cache: ("path", f"an absolute path, or {CACHE_OFF}"),
    parse_libraries: ("names", f"some of {', '.join(LIBRARIES)}, separated by commas; all; or none"),
}
