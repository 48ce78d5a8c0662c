"""`helm test`: run in a pod with the account of the collectors."""

import os
import sys

from collector.kubernetes.api import ApiError, Server

server = Server.inside()
if server is None:
    sys.exit("this is no pod of a cluster: KUBERNETES_SERVICE_HOST is not set")
try:
    namespaces, _ = server.list("/api/v1/namespaces", {})
    server.list("/api/v1/pods", {})
    pods, _ = server.list(f"/api/v1/namespaces/{os.environ['NAMESPACE']}/pods", {"labelSelector": os.environ["SELECTOR"]})
except ApiError as error:
    sys.exit(f"the account of the collectors cannot read pods and namespaces, so nothing can be selected: {error}")
late = []
for pod in pods:
    conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", [])}
    where = f"{pod['metadata']['name']} on {pod.get('spec', {}).get('nodeName', 'no node yet')}"
    ready = conditions.get("Ready") == "True"
    print(f"{'ready' if ready else 'NOT READY'}: {where}")
    if not ready:
        late.append(where)
if not pods:
    sys.exit("there is no collector")
if late:
    sys.exit(f"{len(late)} of {len(pods)} collectors are not ready: `kubectl logs` of each says why")
enabled = [
    one["metadata"]["name"]
    for one in namespaces
    if "enabled"
    in (one["metadata"].get("labels", {}).get(name) for name in ("ebpf-api-collector/capture", "wallarm-mirror"))
]
print(f"namespaces that are labelled to be captured: {', '.join(enabled) or 'none'}")
