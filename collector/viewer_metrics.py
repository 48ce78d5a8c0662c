"""The metrics of those who look, `collector tail` and `collector top`: rows of metrics.Metric."""

from __future__ import annotations

ROWS = (
    (
        "collector_viewers",
        "gauge",
        "supervisor",
        "viewers",
        "`collector tail` and `collector top` that are connected. While there are none they cost nothing.",
    ),
    (
        "collector_viewers_refused",
        "counter",
        "supervisor",
        "viewers_refused",
        "Viewers that were sent away: 8 were there already, or the request could not be read.",
    ),
    (
        "collector_viewer_connections",
        "gauge",
        "shard",
        "viewer_connections",
        "Viewers that a shard writes to: all of them, soon after they are connected.",
    ),
    (
        "collector_viewer_records",
        "counter",
        "shard",
        "viewer_lines",
        "Records that fitted what a `collector tail` asked for, by shard, counted once for each viewer.",
    ),
    (
        "collector_viewer_lost_records",
        "counter",
        "shard",
        "viewer_lost_lines",
        "Records that a viewer did not get to see, or that are missing in its figures, because it read too slowly. They "
        "were delivered all the same.",
    ),
)
