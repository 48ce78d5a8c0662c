"""Is an object one that a version of Kubernetes takes? By its own OpenAPI document (extract.py), and strictly: unknown
fields are refused, as `kubectl apply --validate=strict` refuses them.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMAS = Path(__file__).parent / "schemas"
VERSIONS = ("1.22", "1.34")
# Of add-ons, which bring their own definitions: what these are like is for a cluster that has them to say.
ADDONS = (
    "cert-manager.io/v1 Certificate",
    "monitoring.coreos.com/v1 PodMonitor",
    "operator.victoriametrics.com/v1beta1 VMPodScrape",
)


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
    """As Kubernetes reads YAML: a name twice in a mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the one of SafeLoader."""
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.MarkedYAMLError(problem=f"{name!r} is there twice", problem_mark=node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


def read(text: str) -> list[dict[str, Any]]:
    """The objects of a text of YAML."""
    return [one for one in yaml.load_all(text, _Loader) if one is not None]


def _strict(schema: Any) -> Any:
    """As a JSON schema that refuses what it does not name."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    made = {key: value for key, value in schema.items() if key != "format"}
    if "properties" in made:
        made["properties"] = {name: _strict(one) for name, one in made["properties"].items()}
        made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _strict(made[key])
    return made


@functools.cache
def _validators(version: str) -> dict[str, Any]:
    known = json.loads((SCHEMAS / f"kubernetes-{version}.json").read_text())
    definitions = {name: _strict(one) for name, one in known["definitions"].items()}
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"]}
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["string", "integer"]}
    return {
        kind: jsonschema.Draft7Validator({"$ref": f"#/definitions/{name}", "definitions": definitions})
        for kind, name in known["kinds"].items()
    }


def complaints(one: dict[str, Any], version: str) -> list[str]:
    """What is wrong with an object for this version of Kubernetes; of an add-on's, nothing."""
    kind = f"{one.get('apiVersion')} {one.get('kind')}"
    if kind in ADDONS:
        return []
    validator = _validators(version).get(kind)
    if validator is None:
        return [f"{kind}: Kubernetes {version} has no such kind, or extract.py does not know that we use it"]
    return [f"{kind} {error.json_path}: {error.message[:300]}" for error in validator.iter_errors(one)]
