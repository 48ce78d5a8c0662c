"""The dashboard and the alert rules: every expression is one, and asks for metrics and labels that the collector has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy import promql

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())
ALERTS = [rule for group in RULES["spec"]["groups"] for rule in group["rules"]]
TARGETS = [
    (f"{panel['title']}: {target['refId']}", target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


@pytest.mark.parametrize(
    "expression",
    [
        "rate(collector_probe[5m])",
        'collector_probes{shard="1"}',
        "sum by (reason) (collector_events_total)",
        "sum(",
        "collector_events_total[5m",
        "1 + 1",
        "histogram_quantile(0.5, collector_delivery_lag_seconds)",
    ],
)
def test_a_wrong_expression_is_found(expression: str) -> None:
    assert promql.complaints(expression)


def test_metrics_are_read_with_their_labels() -> None:
    known = promql.metrics()
    assert known["collector_probes"] == set() and known["collector_filtered_total"] == {"shard", "reason"}
    assert known["collector_delivery_lag_seconds_bucket"] == {"le"} and known["collector_policy_info"] == {
        "policy",
        "digest",
    }
    assert known["collector_unseen_processes"] == {"process", "reason"} and len(known) > 100


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert(rule: dict[str, Any]) -> None:
    assert promql.complaints(rule["expr"]) == []
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning") and set(rule["annotations"]) == {"summary", "description"}
    written = " ".join(rule["annotations"].values())
    functions = {part.split()[0] for code in re.findall(r"{{(.*?)}}", written) for part in code.split("|")[1:]}
    assert functions <= {"humanize", "humanizeDuration", "humanizePercentage", "printf"}
    assert written.count("{{") == written.count("}}") == len(re.findall(r"{{ \$(?:value|labels\.\w+)[^{}]* ?}}", written))
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    selected = [name for name in promql.metrics() if name in rule["expr"]]
    there = frozenset().union(*(promql.metrics()[name] for name in selected)) | promql.TARGET_LABELS
    assert used <= there
    for names in re.findall(r"\bby ?\(([^)]*)\)", rule["expr"]):  # what is not named here is gone
        assert used <= set(re.findall(r"\w+", names))


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    assert (RULES["apiVersion"], RULES["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")


@pytest.mark.parametrize(("panel", "expression"), TARGETS, ids=[name for name, _ in TARGETS])
def test_panel(panel: str, expression: str) -> None:
    assert '{instance=~"$instance"' in expression, "the choice of collectors does not act"
    filled = expression.replace("$__rate_interval", "5m").replace("$instance", ".*")
    assert "$" not in filled and promql.complaints(filled) == [], panel


def test_panels_have_their_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_dashboard_takes_any_data_source() -> None:
    """Nothing of the Grafana that it was drawn in is left in it."""
    (source,) = [one["name"] for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"]
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {"${" + source + "}", "ebpf-api-collector"}
    (query,) = [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    metric = re.fullmatch(r"label_values\((\w+), instance\)", query)
    assert metric and metric[1] in promql.metrics()
