"""Make the files of tests/deploy/schemas anew: of the OpenAPI document of a version of Kubernetes, what the kinds that we
install are made of. The documents are in the Go module k8s.io/kubernetes (30 MB each); so that tests need neither it nor a
server, these parts are kept here. Kubernetes is under the Apache License 2.0, as this project is.

    python -m tests.deploy.extract [VERSION...]       v1.22.17 v1.34.4 by itself; needs go
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.deploy.kubernetes import SCHEMAS

VERSIONS = ("v1.22.17", "v1.34.4")  # the oldest that is supported, and the newest that was tried
KINDS = (
    "apps.v1.DaemonSet",
    "core.v1.ConfigMap",
    "core.v1.Pod",
    "core.v1.Secret",
    "core.v1.ServiceAccount",
    "rbac.v1.ClusterRole",
    "rbac.v1.ClusterRoleBinding",
)
_KEPT = ("type", "format", "properties", "required", "items", "additionalProperties", "$ref")


def document(version: str) -> dict[str, Any]:
    """The OpenAPI document of a version of Kubernetes."""
    command = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@{version}"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found: dict[str, Any] = json.loads((Path(told["Dir"]) / "api/openapi-spec/swagger.json").read_text())
    return found


def _names(schema: Any) -> set[str]:
    """Of the definitions that a schema refers to."""
    if isinstance(schema, list):
        return {name for one in schema for name in _names(one)}
    if not isinstance(schema, dict):
        return set()
    found = {name for value in schema.values() for name in _names(value)}
    if isinstance(schema.get("$ref"), str):
        found.add(schema["$ref"].rpartition("/")[2])
    return found


def _bare(schema: Any) -> Any:
    """Without descriptions and what only servers and clients ask for."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key in _KEPT}
    if "properties" in kept:
        kept["properties"] = {name: _bare(one) for name, one in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = _bare(kept[key])
    return kept


def extract(version: str) -> dict[str, Any]:
    """{"version", "kinds": {"apiVersion kind": definition}, "definitions"} of what KINDS need."""
    every = document(version)["definitions"]
    wanted = [f"io.k8s.api.{kind}" for kind in KINDS]
    taken: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name not in taken:
            taken[name] = _bare(every[name])
            wanted += _names(taken[name])
    kinds = {}
    for kind in KINDS:
        for said in every[f"io.k8s.api.{kind}"]["x-kubernetes-group-version-kind"]:
            kinds["/".join(filter(None, (said["group"], said["version"]))) + f" {said['kind']}"] = f"io.k8s.api.{kind}"
    return {"version": version, "license": "Apache-2.0", "kinds": kinds, "definitions": dict(sorted(taken.items()))}


def main() -> None:
    """See the module."""
    for version in sys.argv[1:] or VERSIONS:
        minor = ".".join(version.removeprefix("v").split(".")[:2])
        (SCHEMAS / f"kubernetes-{minor}.json").write_text(json.dumps(extract(version), indent=1) + "\n")


if __name__ == "__main__":
    main()
