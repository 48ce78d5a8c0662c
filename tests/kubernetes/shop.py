"""What is observed: in a namespace, a pod `server` and a pod `client`, with certificates of one authority."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from tests.kubernetes.cluster import PROGRAMS, Pod, apply, kubectl, make_namespace
from tests.live.certificates import Authority

IMAGE = os.environ.get("K8S_WORKLOAD_IMAGE", "localhost/lab-base:1")  # with python3
PLAIN, TLS = 8080, 8443
KEYS, AUTHORITY = "/certificates/keys.pem", "/certificates/authority.pem"


def _pod(name: str, *containers: tuple[str, list[str], int], **labels: str) -> dict[str, Any]:
    """Containers by name, command and port (0: none)."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **labels}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": container,
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "volumeMounts": [
                        {"name": "programs", "mountPath": "/programs"},
                        {"name": "certificates", "mountPath": "/certificates"},
                    ],
                    **({"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}} if port else {}),
                }
                for container, command, port in containers
            ],
            "volumes": [
                {"name": "programs", "configMap": {"name": "programs"}},
                {"name": "certificates", "secret": {"secretName": f"{name}-certificate"}},
            ],
        },
    }


def _secret(name: str, **files: Path) -> dict[str, Any]:
    data = {file.replace("_", "."): base64.b64encode(path.read_bytes()).decode() for file, path in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


class Shop:
    """A namespace with a server, in clear (`PLAIN`) and inside TLS with clients' certificates (`TLS`), and a client."""

    def __init__(self, directory: Path, namespace: str, **labels: str) -> None:
        self.namespace = namespace
        self.server, self.client = Pod(namespace, "server"), Pod(namespace, "client")
        make_namespace(namespace, **labels)
        authority = Authority(directory, "authority")
        for name in ("server", "client"):
            authority.issue(name, names=f"DNS:{name}.{namespace}")
        apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "programs"},
                "data": {path.name: path.read_text() for path in PROGRAMS.glob("*.py")},
            },
            *(
                _secret(f"{name}-certificate", keys_pem=directory / f"{name}-all.pem", authority_pem=authority.pem)
                for name in ("server", "client")
            ),
            _pod(
                "server",
                ("plain", ["python3", "/programs/server.py", str(PLAIN)], PLAIN),
                ("tls", ["python3", "/programs/server.py", str(TLS), KEYS, AUTHORITY], TLS),
                tier="back",
            ),
            _pod("client", ("client", ["sleep", "infinity"], 0), tier="front"),
            namespace=namespace,
        )
        kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=90s")

    def say(self, *lines: str) -> list[str]:
        """The status of each request, METHOD PATH [BODY], from client to server in clear, on one connection."""
        command = ("python3", "/programs/client.py", self.server.address, str(PLAIN))
        return self.client.run(*command, stdin="".join(line + "\n" for line in lines)).split()
