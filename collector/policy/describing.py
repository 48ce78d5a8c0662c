"""A policy in words: for the start line, `collector check` and `collector config --policy`. Never the key."""

from __future__ import annotations

import json
from collections.abc import Sequence

from collector.config import IGNORED_PORTS, Config
from collector.policy.model import Match, Mode, Policy, RedactionRule, Rule, Sampling
from collector.policy.source import InForce, Source

_MODES = {Mode.OFF: "nothing is redacted", Mode.SECRETS: "secrets are redacted", Mode.STRICT: "all values are redacted"}


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def named(policy: Policy) -> str:
    """Its name, and of a file the digest."""
    return policy.name + (f" ({policy.digest})" if policy.digest else "")


def words(in_force: InForce) -> str:
    """In one line: which policy, and what it does to records."""
    policy = in_force.policy
    parts = [_MODES[policy.redaction.mode]]
    if policy.redaction.rules:
        parts.append(_number(len(policy.redaction.rules), "redaction rule"))
    if in_force.key and (policy.redaction.mode is not Mode.OFF or policy.redaction.rules):
        parts.append("values hashed")
    if policy.rules:
        parts.append(_number(len(policy.rules), "rule") + " of what is recorded")
    if policy.sampling is not None:
        parts.append("sampled")
    return f"{named(policy)}: {', '.join(parts)}"


def table(config: Config, source: Source) -> str:
    """What `collector config --policy` prints."""
    policy = source.first.policy
    lines = [
        f"policy     {policy.name}" + (f", digest {policy.digest}, {source.path}" if policy.digest else ", built in"),
        f"redaction  {policy.redaction.mode.value}; {_key(source)}",
        *_columns([_redaction_rule(number, rule) for number, rule in enumerate(policy.redaction.rules, 1)]),
        "rules      the first that fits decides; without one an exchange is recorded",
        *_columns([[str(number), *row] for number, row in enumerate([*_older(config), *map(_rule, policy.rules)], 1)]),
        f"sampling   {_sampling(policy.sampling)}",
    ]
    return "\n".join(lines) + "\n"


def _key(source: Source) -> str:
    if not source.first.key:
        return "no key, so values are replaced by what they are called"
    return "values are replaced by hashes with the key of " + (source.key_path or "COLLECTOR_REDACTION_KEY")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _list(name: str, values: Sequence[object]) -> list[str]:
    return [f"{name} {', '.join(map(str, values))}"] if values else []


def _redaction_rule(number: int, rule: RedactionRule) -> list[str]:
    where = "; ".join(_list("hosts", rule.scope.hosts) + _list("paths", rule.scope.paths))
    return [str(number), "keep" if rule.keep else rule.kind, rule.part.value, rule.pattern, where]


def _older(config: Config) -> list[list[str]]:
    """What the older variables leave out, in the order in which the shards ask."""
    out = []
    if config.TRAFFIC_DISABLE_EGRESS:
        out.append(["exclude", "directions outbound", "TRAFFIC_DISABLE_EGRESS"])
    if config.TRAFFIC_IGNORE_DEFAULT_PORTS:
        out.append(["exclude", f"server ports {', '.join(map(str, IGNORED_PORTS))}", "TRAFFIC_IGNORE_DEFAULT_PORTS"])
    if config.AKTO_IGNORE_CLOUD_METADATA_CALLS:
        out.append(["exclude", "hosts of cloud metadata", "AKTO_IGNORE_CLOUD_METADATA_CALLS"])
    if config.AKTO_IGNORE_IP_TRAFFIC:
        out.append(["exclude", "hosts that are addresses, or missing", "AKTO_IGNORE_IP_TRAFFIC"])
    from collector.shards.filters.rules import parse_rules

    for rule in parse_rules(config.AKTO_MODULE_DISCOVERY_CONFIG):
        absent = " or is absent" if rule.reject_absent else ""
        what = f"header {rule.header} does not match {json.dumps(rule.regex)}{absent}"
        out.append(["exclude", what, "AKTO_MODULE_DISCOVERY_CONFIG"])
    return out


def _rule(rule: Rule) -> list[str]:
    return ["include" if rule.include else "exclude", _match(rule.match), rule.name]


def _match(match: Match) -> str:
    statuses = [str(first) if first == last else f"{first}-{last}" for first, last in match.statuses]
    parts = [
        *_list("directions", [direction.value for direction in match.directions]),
        *_list("methods", match.methods),
        *_list("hosts", match.hosts),
        *_list("paths", match.paths),
        *_list("processes", match.processes),
        *_list("addresses", match.addresses),
        *_list("statuses", statuses),
        *_list("contentTypes", match.content_types),
    ]
    return "; ".join(parts)


def _sampling(sampling: Sampling | None) -> str:
    if sampling is None:
        return "none"
    further = "without bodies" if sampling.heads_only else f"one in {sampling.one_in}" if sampling.one_in else "left out"
    rates = [
        f"{what} one in {rate}"
        for what, rate in (("errors", sampling.errors_one_in), ("marked records", sampling.marked_one_in))
        if rate
    ]
    return ", ".join(
        [
            f"of each of {sampling.endpoints} endpoints the first {sampling.first} a minute",
            f"further ones {further}",
            *rates,
        ]
    )
