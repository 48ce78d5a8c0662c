"""The metrics of Kubernetes and of owners, a part of metrics.METRICS."""

from __future__ import annotations

from collector.metric import COUNTER, GAUGE, Metric

METRICS: tuple[Metric, ...] = (
    Metric("collector_kubernetes_pods", GAUGE, "supervisor", "kubernetes_pods", "Pods of this node that are known."),
    Metric(
        "collector_kubernetes_selected_containers",
        GAUGE,
        "supervisor",
        "kubernetes_selected",
        "Containers of those pods that are captured.",
    ),
    Metric(
        "collector_kubernetes_events",
        COUNTER,
        "supervisor",
        "kubernetes_events",
        "Changes that the API server has told of, since the process that follows it began.",
    ),
    Metric(
        "collector_kubernetes_lists",
        COUNTER,
        "supervisor",
        "kubernetes_lists",
        "Lists of pods and namespaces that were read since then: two, and one more whenever what was missed is too old.",
    ),
    Metric(
        "collector_kubernetes_errors",
        COUNTER,
        "supervisor",
        "kubernetes_errors",
        "Requests to the API server that have failed since then.",
    ),
    Metric(
        "collector_kubernetes_behind",
        GAUGE,
        "supervisor",
        "kubernetes_behind",
        "1 while the API server cannot be followed: what is known of pods and namespaces may be old.",
    ),
    Metric(
        "collector_owner_unknown_records",
        COUNTER,
        "core",
        "owner_unknown_records",
        "Records without the name of their pod, because the API server had not told of it within COLLECTOR_POD_WAIT_MS.",
    ),
    Metric(
        "collector_unselected_connections",
        COUNTER,
        "core",
        "unselected_connections",
        "Connections that had begun before it was known that nothing of their process is to be captured.",
    ),
    Metric(
        "collector_processes_without_place",
        COUNTER,
        "loader",
        "processes_without_place",
        "Processes that had ended, and their control group with them, before anybody could see whose they were.",
    ),
    Metric(
        "collector_owner_questions_lost",
        COUNTER,
        "loader",
        "kernel_owners_lost",
        "Questions of the kernel whose a process is that found no room, for the loader was away or stopped: such processes "
        "have no name until they are asked for again, and are not captured where that depends on it.",
    ),
)
