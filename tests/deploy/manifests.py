"""What the OpenAPI document cannot say of an object: names that have to agree, and what the collector's containers need."""

from __future__ import annotations

from collections import Counter
from typing import Any


def problems(one: dict[str, Any]) -> list[str]:
    """Of an object with pods; of others, none."""
    if one["kind"] == "Pod":
        return _pod(one["spec"])
    if one["kind"] != "DaemonSet":
        return []
    template, found = one["spec"]["template"], []
    if not one["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items():
        found.append("the selector does not select its own pods")
    return found + _pod(template["spec"])


def _pod(spec: dict[str, Any]) -> list[str]:
    found = []
    volumes = [volume["name"] for volume in spec.get("volumes", ())]
    mounts = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", ())}
    found += [f"volume {name} is there twice" for name, times in Counter(volumes).items() if times > 1]
    found += [f"no volume {name}" for name in mounts - set(volumes)]
    found += [f"nobody mounts {name}" for name in set(volumes) - mounts]
    for container in spec["containers"]:
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
        names = [variable["name"] for variable in container.get("env", ())]
        found += [f"two mounts at {path}" for path, times in Counter(paths).items() if times > 1]
        found += [f"{name} is set twice" for name, times in Counter(names).items() if times > 1]
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            found.append(f"{container['name']} can write to its image")
    if spec.get("hostNetwork") and spec.get("dnsPolicy") != "ClusterFirstWithHostNet":
        found.append("names of services do not resolve with hostNetwork")
    return found
