"""Which exchanges are recorded. Compiled once; asked per request head by http/filtering.pyx."""

from __future__ import annotations

from collections.abc import Sequence

import re2

from collector.shards.filters import hosts
from collector.shards.filters.rules import Rule

_HOST_CACHE = 4096
_HOST_BYTES = 255 + 6


class Filters:
    """The header rules with their compiled regexes, and the host decisions with a bounded cache."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = list(rules)
        # a bytes pattern is still UTF-8, but is asked about bytes: a value need not be valid text
        self._search = [re2.compile(rule.regex.encode()).search for rule in self.rules]
        self._hosts: dict[tuple[bytes, bytes], int] = {}

    def rule_matches(self, number: int, value: bytes) -> bool:
        """Does rule ``number`` accept a header with this value (repeated fields joined by `, `)?"""
        if b"\n" in value:  # a folded value: the line break is a blank (RFC 9112 section 5.2)
            value = b" ".join(part.strip() for part in value.split(b"\n"))
        return self._search[number](value) is not None

    def host_verdict(self, host: bytes, ignore_ip: bool, ignore_metadata: bool, remote: bytes) -> int:
        """hosts.verdict, remembered: a node sees few different hosts."""
        known = self._hosts.get((host, remote))
        if known is None:
            if len(host) > _HOST_BYTES:  # no name is longer (RFC 1035): not worth remembering
                return hosts.verdict(host, ignore_ip, ignore_metadata, remote)
            if len(self._hosts) >= _HOST_CACHE:
                self._hosts.clear()
            known = self._hosts[host, remote] = hosts.verdict(host, ignore_ip, ignore_metadata, remote)
        return known
