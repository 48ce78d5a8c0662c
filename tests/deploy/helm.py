"""Helm, and what it makes of the chart."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, skip_or_fail
from tests.deploy import kubernetes

CHART = ROOT / "deploy" / "helm" / "ebpf-api-collector"
HERE = Path(__file__).parent
BROKERS = {"config": {"kafka": {"brokers": "kafka.data:9092"}}}  # the only value that has to be set


@functools.cache
def _built() -> tuple[str, str]:
    """(path of helm, "") or ("", why there is none). A test does not build it, which takes minutes: scripts/setup does."""
    if os.environ.get("HELM"):
        return os.environ["HELM"], ""
    environ = {**os.environ, "HELM_BUILD": "never"}
    done = subprocess.run([ROOT / "scripts" / "helm"], capture_output=True, text=True, env=environ)
    return done.stdout.strip(), done.stderr.strip()


def program() -> str:
    """Its path; skips the test where there is none."""
    path, why = _built()
    if not path:
        skip_or_fail(f"needs helm: {why}")
    return path


def run(*arguments: str | Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Helm with these arguments; ``values`` go to its standard input."""
    given = [] if values is None else ["--values", "-"]
    command = [program(), *map(str, arguments), *given]
    environ = {**os.environ, "KUBECONFIG": "/dev/null"}
    text = None if values is None else yaml.safe_dump(values)
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, env=environ)


def template(values: dict[str, Any] | Path, *arguments: str, release: str = "shop", namespace: str = "capture") -> str:
    """What would be installed."""
    files, given = ((), values) if isinstance(values, dict) else (("--values", values), None)
    done = run("template", release, CHART, "--namespace", namespace, *files, *arguments, values=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(values: dict[str, Any]) -> str:
    """Why these values are refused."""
    done = run("template", "shop", CHART, values=values)
    assert done.returncode != 0, "it was taken"
    return done.stderr


def objects(values: dict[str, Any] | Path, *arguments: str, **names: str) -> dict[str, dict[str, Any]]:
    """The same by kind; there is at most one of each but of pods."""
    found: dict[str, dict[str, Any]] = {}
    for one in kubernetes.read(template(values, *arguments, **names)):
        assert one["kind"] not in found, f"two of {one['kind']}"
        found[one["kind"]] = one
    return found


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Values over values, as Helm merges them."""
    made = dict(one)
    for key, value in other.items():
        inner = made.get(key)
        made[key] = merged(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return made


def container(daemonset: dict[str, Any]) -> dict[str, Any]:
    """Of a DaemonSet."""
    found: dict[str, Any] = daemonset["spec"]["template"]["spec"]["containers"][0]
    return found


def variables(daemonset: dict[str, Any]) -> dict[str, str]:
    """Of its container, those that have a text, as the container sees them: Kubernetes writes "$" for "$$"."""
    return {one["name"]: one["value"].replace("$$", "$") for one in container(daemonset)["env"] if "value" in one}
