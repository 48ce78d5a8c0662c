"""The metrics of the policy in force, a part of metrics.METRICS."""

from __future__ import annotations

from collector.metric import COUNTER, GAUGE, Metric

# by name and digest, which are known when a policy is in force only
INFO = "collector_policy_info"
INFO_HELP = "1, with the name of the policy in force (docs/policy.md) and, of a file, the beginning of its SHA-256."

_RELOADS = "Times that the policy was read again. `failure`: it cannot be used, and the one before stays; see the log."

METRICS: tuple[Metric, ...] = (
    Metric("collector_policy_reloads", COUNTER, "supervisor", "policy_reloads", _RELOADS, (("result", "success"),)),
    Metric("collector_policy_reloads", COUNTER, "supervisor", "policy_reload_failures", _RELOADS, (("result", "failure"),)),
    Metric(
        "collector_policy_last_reload_success_timestamp_seconds",
        GAUGE,
        "supervisor",
        "policy_reload_success_seconds",
        "Unix time at which the policy was last read and could be used; at first, that of the start.",
    ),
)
