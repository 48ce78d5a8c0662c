"""Takes addresses and host names out of text: each becomes `<address-1>`, `<host-2>`, the same one always the same.

A name of a host has no form of its own, so what could be one is taken for one: words with dots, unless they are known to be
something else (modules, files, versions, parts of paths), and words with a port behind. Too much is masked rather than too
little. Names that are known are given: brokers, this host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address

# of files, and of names in Python and of units of systemd: the last part of what is no host
_ENDS = """
    py pyx pyi pxd pyc so sock h c cc conf json jsonl yaml yml log pem crt key cap tar gz txt md bin exe jar ko a o d
    service slice scope mount target socket pid lock spool cfg ini sh cfs max current events stat
"""
# what names of modules, of files of cgroups and of kernel switches begin with
_BEGINNINGS = """
    collector memory cpu pids kafka zmq psutil bcc prometheus_client ssl asyncio logging importlib os sys json
"""
_NO_HOSTS, _NO_DOMAINS = frozenset(_ENDS.split()), frozenset(_BEGINNINGS.split())
_OURS = frozenset(("akto.api.logs",))

_V6 = re.compile(
    r"(?<![\w:.])\[?((?:[0-9a-fA-F]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]{1,4})?)(?:%\w+)?(?![\w:])"
)
_V4 = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?![\w]|\.\d)")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOTTED = re.compile(rf"(?<!\w){_LABEL}(?:\.{_LABEL})+(?!\w)")
_WITH_PORT = re.compile(r"(?<![\w./:-])([A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]):(\d{2,5})(?![\w:.]\S)")
_LOOPBACK = frozenset(("localhost",))


class Mask:
    """``names`` are known host names. Its numbers hold for one report."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._given: dict[str, str] = {}
        known = sorted({name for name in names if len(name) > 2 and name not in _LOOPBACK}, key=len, reverse=True)
        self._known = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, known))})(?![\w-])", re.I) if known else None

    def __call__(self, text: str) -> str:
        """The text without addresses and names of hosts."""
        text = _V6.sub(self._v6, text)
        text = _V4.sub(self._v4, text)
        if self._known is not None:
            text = self._known.sub(lambda found: self._instead("host", found[0].lower()), text)
        text = _DOTTED.sub(self._dotted, text)
        return _WITH_PORT.sub(self._with_port, text)

    def _instead(self, kind: str, what: str) -> str:
        if what not in self._given:
            number = 1 + sum(given.startswith(f"<{kind}-") for given in self._given.values())
            self._given[what] = f"<{kind}-{number}>"
        return self._given[what]

    def _v6(self, found: re.Match[str]) -> str:
        try:
            address = IPv6Address(found[1])
        except AddressValueError:
            return found[0]
        if address.is_loopback or address.is_unspecified:
            return found[0]
        return found[0].replace(found[1], self._instead("address", str(address)))

    def _v4(self, found: re.Match[str]) -> str:
        try:
            address = IPv4Address(found[1])
        except AddressValueError:
            return found[0]
        return found[0] if address.is_loopback or address.is_unspecified else self._instead("address", str(address))

    def _dotted(self, found: re.Match[str]) -> str:
        word, before = found[0], found.string[max(0, found.start() - 2) : found.start()]
        if before.endswith("/") and before != "//":
            return word  # within a path
        first, last = word.split(".", 1)[0], word.rsplit(".", 1)[1]
        if last.lower() in _NO_HOSTS or first in _NO_DOMAINS or word in _OURS:
            return word
        if not last.isalpha() and not last.startswith("xn--"):
            return word  # a version, a file of a cgroup
        if any(label.lower() in ("so", "py") for label in word.split(".")):  # libssl.so.3
            return word
        return self._instead("host", word.lower())

    def _with_port(self, found: re.Match[str]) -> str:
        word = found[1]
        if word.lower() in _LOOPBACK or "." in word and word.rsplit(".", 1)[1].lower() in _NO_HOSTS:
            return found[0]
        return f"{self._instead('host', word.lower())}:{found[2]}"
