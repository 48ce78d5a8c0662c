"""The environment variables of Kubernetes and of owners, a part of collector.config.Config."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from collector.config_setting import Setting
from collector.config_values import (
    parse_api,
    parse_bool,
    parse_containers,
    parse_filters_text,
    parse_int,
    parse_noise,
    parse_switch,
    parse_text,
)

if TYPE_CHECKING:
    from collector.config import Config

KUBERNETES = "Kubernetes"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class KubernetesConfig:
    """See the module."""

    COLLECTOR_KUBERNETES = Setting(
        parse_switch,
        "auto",
        KUBERNETES,
        "Whether the API server is asked for the pods of this node and for namespaces (docs/kubernetes.md). `auto`: in a "
        "pod that has a service account.",
    )
    COLLECTOR_KUBERNETES_API = Setting(
        parse_api,
        "",
        KUBERNETES,
        "Where the API server is: `account`, where the kubelet says, with the pod's service account; or, outside of a pod, "
        "a proxy on this host that has an account of its own (`kubectl proxy`), such as http://127.0.0.1:8001.",
        shown_default="account",
    )
    COLLECTOR_ATTRIBUTION = Setting(
        parse_switch,
        "auto",
        KUBERNETES,
        "Whether records name pod, container or systemd unit of the process (docs/records.md). `auto`: in Kubernetes.",
    )
    COLLECTOR_ALL_NAMESPACES = Setting(
        parse_bool,
        True,
        KUBERNETES,
        "Whether a pod is captured of which neither its namespace, nor its annotations, nor COLLECTOR_FILTERS say anything.",
    )
    COLLECTOR_HOST_PROCESSES = Setting(
        parse_bool, True, KUBERNETES, "Whether processes outside of all pods are captured, where Kubernetes is."
    )
    COLLECTOR_FILTERS = Setting(
        parse_filters_text,
        "",
        KUBERNETES,
        "Pods to capture: a JSON list of objects with namespace, pod_labels, pod_annotations, node_name, container_name. "
        "Any entry may match, with all that it has; commas in a value separate alternatives.",
        shown_default="none",
    )
    COLLECTOR_SIDECARS = Setting(
        parse_containers,
        "istio-proxy,linkerd-proxy",
        KUBERNETES,
        "Names of containers that are not captured, whatever selects their pods: proxies of service meshes, which pass on "
        "what the application beside them sends and receives. Several separated by commas; `none`: there are none.",
    )
    COLLECTOR_IGNORE_NOISE = Setting(
        parse_noise,
        "",
        KUBERNETES,
        "Requests of machines that are left out, by what they say of themselves: `probe` (the kubelet), `scrape` "
        "(Prometheus), `mesh` (Envoy's health checks), `balancer` (those of load balancers), `all`. Records name those that "
        "are kept.",
        shown_default="none",
    )
    COLLECTOR_POD_WAIT_MS = Setting(
        parse_int,
        1000,
        KUBERNETES,
        "How long records wait for a pod that the API server has not told of yet; then they go without its name.",
        "milliseconds",
        0,
        10000,
    )
    NODE_NAME = Setting(
        parse_text,
        "",
        KUBERNETES,
        "The name of this node, `spec.nodeName` by the downward API: whose pods are asked for, and `node` in the records.",
        shown_default="the host's name",
    )
    POD_NAME = Setting(
        parse_text,
        "",
        KUBERNETES,
        "The name of the collector's own pod, for its log. Set by the downward API.",
        shown_default="none",
    )


def in_kubernetes() -> bool:
    """Are we in a pod?"""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def follows_kubernetes(config: Config) -> bool:
    """Is the API server asked?"""
    if config.COLLECTOR_KUBERNETES == "auto":
        return in_kubernetes() and os.path.exists(f"{ACCOUNT}/token")
    return config.COLLECTOR_KUBERNETES == "on"


def attributes(config: Config) -> bool:
    """Do records say whose a process is?"""
    if config.COLLECTOR_ATTRIBUTION == "auto":
        return follows_kubernetes(config) or in_kubernetes() and config.COLLECTOR_KUBERNETES != "off"
    return config.COLLECTOR_ATTRIBUTION == "on"


def node_name(config: Config) -> str:
    """In force."""
    return config.NODE_NAME or os.uname().nodename.lower()


def captured(config: Config) -> str:
    """Whose HTTP, in words."""
    pods = "all pods" if config.COLLECTOR_ALL_NAMESPACES else "selected pods"
    if not selects(config) or config.COLLECTOR_ALL_NAMESPACES and config.COLLECTOR_HOST_PROCESSES:
        return "all processes"
    return f"{pods} and the node's own processes" if config.COLLECTOR_HOST_PROCESSES else pods


def selects(config: Config) -> bool:
    """Is perhaps not everything captured?"""
    return (
        follows_kubernetes(config)
        or not config.COLLECTOR_ALL_NAMESPACES
        or not config.COLLECTOR_HOST_PROCESSES
        or bool(config.COLLECTOR_FILTERS)
    )
