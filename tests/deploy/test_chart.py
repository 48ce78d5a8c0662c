"""The chart: what it makes of values, and what it refuses."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from collector import config
from collector.kubernetes.selection import parse_filters
from collector.policy.source import Source
from tests.conftest import ROOT
from tests.deploy import helm, kubernetes
from tests.deploy.manifests import problems

HERE = Path(__file__).parent
VALUES = sorted((HERE / "values").glob("*.yaml"))
ADDONS = (
    "--api-versions=monitoring.coreos.com/v1/PodMonitor",
    "--api-versions=operator.victoriametrics.com/v1beta1/VMPodScrape",
)
NAMES = [path.stem for path in VALUES]


def changed(**values: Any) -> dict[str, Any]:
    """What has to be said, and this."""
    return helm.merged(helm.BROKERS, values)


def load(daemonset: dict[str, Any]) -> config.Config:
    """The settings that the collector would read from these variables."""
    loaded = config.load(helm.variables(daemonset))
    assert not [text for text in loaded.warnings if "unknown" in text]
    return loaded


def test_lint() -> None:
    done = helm.run("lint", helm.CHART, "--strict", values=helm.BROKERS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout


def test_the_schema_is_that_of_the_declarations() -> None:
    script = ROOT / "deploy" / "helm" / "schema.py"
    done = subprocess.run([sys.executable, script, "--check"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, "`make docs` writes it anew"


def test_variables_that_other_values_set_are_variables() -> None:
    elsewhere = runpy.run_path(str(ROOT / "deploy" / "helm" / "schema.py"))["ELSEWHERE"]
    assert elsewhere <= config.known_names()
    named = json.loads((helm.CHART / "values.schema.json").read_text())["definitions"]["env"]["properties"]
    secret = {setting.name for setting in config.SETTINGS if setting.secret}
    assert {setting.name for setting in config.SETTINGS} - secret - elsewhere <= set(named)
    assert not (secret | elsewhere) & set(named)


@pytest.mark.parametrize("path", VALUES, ids=NAMES)
def test_what_is_made_of_values_is_known(path: Path) -> None:
    """GOLDEN=write writes what is made now: read the difference before it is committed."""
    made, golden = helm.template(path, *ADDONS), HERE / "golden" / path.name
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(made)
    assert made == golden.read_text()


@pytest.mark.parametrize("version", kubernetes.VERSIONS)
@pytest.mark.parametrize("path", VALUES, ids=NAMES)
def test_kubernetes_takes_it(path: Path, version: str) -> None:
    text = helm.template(path, *ADDONS, f"--kube-version={version}.0")
    made = kubernetes.read(text)
    assert {"DaemonSet", "Pod"} <= {one["kind"] for one in made}
    assert [one for each in made for one in kubernetes.complaints(each, version)] == []
    assert [one for each in made for one in problems(each)] == []


@pytest.mark.parametrize("path", VALUES, ids=NAMES)
def test_the_collector_takes_its_variables(path: Path) -> None:
    daemonset = helm.objects(path, *ADDONS)["DaemonSet"]
    load(daemonset)
    names = [one["name"] for one in helm.container(daemonset)["env"]]
    assert len(names) == len(set(names)) and set(names) <= config.known_names()


def test_nothing_is_captured_before_it_is_chosen() -> None:
    daemonset = helm.objects(helm.BROKERS)["DaemonSet"]
    said, read = helm.variables(daemonset), load(daemonset)
    assert (said["COLLECTOR_KUBERNETES"], said["COLLECTOR_ALL_NAMESPACES"], said["COLLECTOR_HOST_PROCESSES"]) == (
        "on",
        "false",
        "false",
    )
    assert "COLLECTOR_FILTERS" not in said
    assert read.COLLECTOR_POLICY == "secrets" and not read.COLLECTOR_RESPONSE_BODIES
    assert read.brokers == "kafka.data:9092" and read.COLLECTOR_KAFKA_TOPIC == "akto.api.logs"
    assert read.COLLECTOR_HEALTH_ADDRESS == "127.0.0.1:11226"


def test_variables_arrive_as_they_were_meant() -> None:
    daemonset = helm.objects(HERE / "values" / "selection.yaml")["DaemonSet"]
    said, read = helm.variables(daemonset), load(daemonset)
    filters = parse_filters(json.loads(said["COLLECTOR_FILTERS"]))
    assert [one.namespace for one in filters] == [frozenset({"default"}), frozenset({"my-namespace"}), None, None]
    assert dict(filters[1].pod_labels) == {"environment": frozenset({"production"}), "team": frozenset({"backend", "ops"})}
    assert dict(filters[3].pod_labels) == {"observed": frozenset({"true"}), "tier": frozenset({"2"})}
    assert read.AKTO_TRAFFIC_BATCH_SIZE == 1_000_000 and read.AKTO_TRAFFIC_BATCH_TIME_SECS == 0.5
    assert read.COLLECTOR_RING_BYTES == 1 << 24 and read.COLLECTOR_SPOOL_BYTES == 20 << 30
    assert read.TRAFFIC_DISABLE_EGRESS and read.captures_plain and read.captures_tls and read.AKTO_LOG_LEVEL == "DEBUG"
    assert json.loads(read.AKTO_MODULE_DISCOVERY_CONFIG)[0]["value"]["regex"] == "^$(NAMESPACE)|price: 5$$"
    assert said["COLLECTOR_GRPC_DESCRIPTORS"] == "/etc/descriptors/shop.pb,/etc/descriptors/pay.pb"
    assert (
        said["COLLECTOR_TRUSTED_CIDRS"] == "10.0.0.0/8,2001:db8::/32"
        and said["COLLECTOR_REAL_IP_HEADER"] == "X-Forwarded-For"
    )


def test_a_policy_of_ones_own_is_one_that_the_collector_takes(tmp_path: Path) -> None:
    made = helm.objects(HERE / "values" / "existing.yaml")
    file = tmp_path / "policy.yaml"
    file.write_text(made["ConfigMap"]["data"]["policy.yaml"])
    said = helm.variables(made["DaemonSet"])["COLLECTOR_POLICY"]
    mounts = {one["name"]: one["mountPath"] for one in helm.container(made["DaemonSet"])["volumeMounts"]}
    assert said == f"{mounts['policy']}/policy.yaml"
    found = Source.of(config.load({"COLLECTOR_POLICY": str(file)})).first
    assert found.policy.name == "shop"


@pytest.mark.parametrize("name", ["cert-manager", "existing", "inline"])
def test_files_of_certificates_are_where_the_collector_looks(name: str) -> None:
    made = helm.objects(HERE / "values" / f"{name}.yaml")
    read, one = load(made["DaemonSet"]), helm.container(made["DaemonSet"])
    volumes = {volume["name"]: volume for volume in made["DaemonSet"]["spec"]["template"]["spec"]["volumes"]}
    there: dict[str, str] = {}
    for mount in one["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "secret" in volume:
            items = volume["secret"].get("items") or [
                {"path": key} for key in ("tls.crt", "tls.key", "ca.crt", "username", "password")
            ]
            there |= {f"{mount['mountPath']}/{item['path']}": volume["secret"]["secretName"] for item in items}
        elif mount["name"] == "kafka-ca":
            there |= {f"{mount['mountPath']}/{key}": volume["configMap"]["name"] for key in made["ConfigMap"]["data"]}
    assert read.COLLECTOR_KAFKA_TLS and not read.COLLECTOR_KAFKA_TLS_SKIP_VERIFY
    secret = {"cert-manager": "shop-ebpf-api-collector-kafka-tls", "existing": "collector-client"}.get(
        name, "shop-ebpf-api-collector-kafka-tls"
    )
    assert there[read.COLLECTOR_KAFKA_TLS_CERT_FILE] == there[read.COLLECTOR_KAFKA_TLS_KEY_FILE] == secret
    authority = {"cert-manager": secret, "existing": "cluster-ca-cert", "inline": "shop-ebpf-api-collector-kafka-ca"}[name]
    assert there[read.COLLECTOR_KAFKA_TLS_CA_FILE] == authority
    if name == "existing":
        assert there[read.COLLECTOR_KAFKA_USERNAME_FILE] == there[read.COLLECTOR_KAFKA_PASSWORD_FILE] == "collector-login"
        assert read.COLLECTOR_KAFKA_SASL == "SCRAM-SHA-512"


def test_a_certificate_is_asked_of_the_issuer() -> None:
    made = helm.objects(HERE / "values" / "cert-manager.yaml")
    certificate = made["Certificate"]["spec"]
    assert certificate["issuerRef"] == {"name": "kafka-clients", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert certificate["usages"] == ["client auth"] and certificate["commonName"] == "shop-ebpf-api-collector"


def test_releases_leave_each_others_pods_alone() -> None:
    one, other = (helm.objects(helm.BROKERS, release=release)["DaemonSet"] for release in ("a", "b"))
    assert one["metadata"]["name"] != other["metadata"]["name"]
    labels = other["spec"]["template"]["metadata"]["labels"]
    assert not one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_what_is_cluster_wide_is_named_by_release_and_namespace() -> None:
    names = {
        helm.objects(helm.BROKERS, release=release, namespace=namespace)["ClusterRole"]["metadata"]["name"]
        for release in ("a", "b")
        for namespace in ("x", "y")
    }
    assert len(names) == 4


def test_the_account_may_read_pods_and_namespaces_and_nothing_else() -> None:
    made = helm.objects(helm.BROKERS)
    assert made["ClusterRole"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list", "watch"]}
    ]
    account = made["ServiceAccount"]["metadata"]
    assert made["ClusterRoleBinding"]["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    ]
    assert made["ClusterRoleBinding"]["roleRef"]["name"] == made["ClusterRole"]["metadata"]["name"]
    assert made["DaemonSet"]["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]


def test_a_changed_policy_replaces_the_pods() -> None:
    def checksum(**policy: Any) -> str:
        made = helm.objects(changed(config={"policy": policy}))["DaemonSet"]
        return str(made["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    first = {"version": 1, "name": "a"}
    assert checksum(document=first) == checksum(document=first) != checksum(document={**first, "name": "b"})


def test_monitors_only_where_the_cluster_knows_the_kind() -> None:
    path = HERE / "values" / "cert-manager.yaml"
    assert "PodMonitor" not in helm.objects(path)
    made = helm.objects(path, *ADDONS)
    (endpoint,) = made["PodMonitor"]["spec"]["podMetricsEndpoints"]
    (port,) = helm.container(made["DaemonSet"])["ports"]
    assert endpoint["port"] == port["name"] and endpoint["interval"] == "30s"
    assert load(made["DaemonSet"]).COLLECTOR_HEALTH_ADDRESS.split(":") == ["0.0.0.0", str(port["containerPort"])]
    labels = made["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert made["PodMonitor"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert "VMPodScrape" in helm.objects(HERE / "values" / "existing.yaml", *ADDONS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"agnet": {}}, "agnet"),
        ({"agent": {"resource": {}}}, "resource"),
        ({"config": {"agent": {"mirror": {"allNamespaces": "yes"}}}}, "allNamespaces"),
        ({"config": {"agent": {"mirror": {"filters": [{"pod_label": {"a": "b"}}]}}}}, "pod_label"),
        ({"config": {"agent": {"mirror": {"filters": [{}]}}}}, "filters"),
        ({"config": {"agent": {"mirror": {"filters": {"namespace": "a"}}}}}, "filters"),
        ({"config": {"agent": {"mirror": {"filters": [{"pod_labels": {"version": 1.0}}]}}}}, "version"),
        ({"config": {"agent": {"mirror": {"filters": [{"pod_labels": {"observed": True}}]}}}}, "observed"),
        ({"config": {"agent": {"loadBalancerTrustedCIDRs": ["10.0.0.0"]}}}, "loadBalancerTrustedCIDRs"),
        ({"config": {"policy": {"preset": "secret"}}}, "preset"),
        ({"config": {"policy": {"document": {"version": 1, "redact": {}}}}}, "document"),
        ({"config": {"kafka": {"brokers": "kafka"}}}, "brokers"),
        ({"env": {"AKTO_TRAFIC_BATCH_SIZE": 1}}, "AKTO_TRAFIC_BATCH_SIZE"),
        ({"env": {"AKTO_TRAFFIC_BATCH_SIZE": "many"}}, "AKTO_TRAFFIC_BATCH_SIZE"),
        ({"env": {"AKTO_TRAFFIC_BATCH_SIZE": 0}}, "AKTO_TRAFFIC_BATCH_SIZE"),
        ({"env": {"AKTO_LOG_LEVEL": "LOUD"}}, "AKTO_LOG_LEVEL"),
        ({"env": {"COLLECTOR_KAFKA_PASSWORD": "hunter2"}}, "COLLECTOR_KAFKA_PASSWORD"),
        ({"env": {"COLLECTOR_ALL_NAMESPACES": True}}, "COLLECTOR_ALL_NAMESPACES"),
        ({"agent": {"metrics": {"port": 0}}}, "port"),
        ({"agent": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}}, "maxSurge"),
        ({"agent": {"tolerations": {"operator": "Exists"}}}, "tolerations"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"nameOverride": "a: b"}, "nameOverride"),
        ({"fullnameOverride": "Foo Bar"}, "fullnameOverride"),
        ({"agent": {"podLabels": {"app.kubernetes.io/instance": "x"}}}, "instance"),
        ({"agent": {"podAnnotations": {"prometheus.io/port": "1"}}}, "prometheus.io/port"),
        ({"agent": {"extraLabels": {"app.kubernetes.io/name": "x"}}}, "kubernetes.io/name"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    assert words in helm.refusal(changed(**values))


def paths(values: dict[str, Any], above: str = "") -> Iterator[str]:
    """Of everything that has a value by itself."""
    for plain, value in values.items():
        name = plain.replace(".", "\\.")
        yield above + name
        if isinstance(value, dict):
            yield from paths(value, f"{above}{name}.")


DEFAULTS = yaml.safe_load((helm.CHART / "values.yaml").read_text())


@pytest.mark.parametrize("path", sorted(paths(DEFAULTS)))
def test_what_is_taken_away_is_missed_by_name_or_not_at_all(path: str) -> None:
    """`--set config.agent=null`: helm takes it away, and templates find nothing there."""
    done = helm.run("template", "shop", helm.CHART, "--set", f"config.kafka.brokers=b:9092,{path}=null")
    if done.returncode:
        last = path.rpartition(".")[2]
        assert f"missing property '{last}'" in done.stderr or "where do the records go" in done.stderr
    else:
        assert "null" not in done.stdout.replace("/dev/null", "")


def test_names_that_look_like_numbers_are_texts() -> None:
    tls = {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "i"}, "commonName": "a: b"}}
    values = changed(config={"kafka": {"tls": tls}, "programCache": {"hostPath": "/var/a, type: File"}})
    made = kubernetes.read(helm.template(values, *ADDONS, release="123", namespace="456"))
    for one in made:
        assert one["metadata"].get("namespace", "456") == "456"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"
    (daemonset,) = (one for one in made if one["kind"] == "DaemonSet")
    cache = next(one for one in daemonset["spec"]["template"]["spec"]["volumes"] if one["name"] == "programs")
    assert cache["hostPath"] == {"path": "/var/a, type: File", "type": "DirectoryOrCreate"}
    (certificate,) = (one for one in made if one["kind"] == "Certificate")
    assert certificate["spec"]["commonName"] == "a: b"


def test_a_name_that_is_cut_ends_in_a_letter() -> None:
    made = kubernetes.read(helm.template(helm.BROKERS, release="a" * 49 + ".b"))
    assert {one["metadata"]["name"] for one in made if one["kind"] == "DaemonSet"} == {"a" * 49}


TLS = {"enabled": True}


@pytest.mark.parametrize(
    ("kafka", "words"),
    [
        ({"brokers": ""}, "where do the records go"),
        ({"tls": {"existingSecret": "a"}}, "`enabled` is false"),
        ({"tls": {**TLS, "existingSecret": "a", "certManager": {"enabled": True, "issuerRef": {"name": "i"}}}}, "only one"),
        ({"tls": {**TLS, "certManager": {"enabled": True}}}, "issuerRef.name"),
        ({"tls": {**TLS, "inline": {"certificate": "-----BEGIN CERTIFICATE-----"}}}, "go together"),
        ({"tls": {**TLS, "ca": {"from": "secret"}}}, "there is none"),
        ({"tls": {**TLS, "ca": {"from": "other"}}}, "tls.ca.secret"),
        ({"tls": {**TLS, "ca": {"from": "inline"}}}, "tls.ca.pem"),
        ({"sasl": {"mechanism": "PLAIN"}}, "sasl.existingSecret"),
    ],
)
def test_values_that_do_not_go_together_are_refused(kafka: dict[str, Any], words: str) -> None:
    assert words in helm.refusal(changed(config={"kafka": kafka}))


def test_a_variable_that_is_set_twice_is_refused() -> None:
    assert "NODE_NAME is set twice" in helm.refusal(changed(agent={"extraEnvs": [{"name": "NODE_NAME", "value": "a"}]}))
    twice = changed(env={"TRACE_COMMS": ["nginx"]}, agent={"extraEnvs": [{"name": "TRACE_COMMS", "value": "a"}]})
    assert "TRACE_COMMS is set twice" in helm.refusal(twice)


Notes = Callable[..., str]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """What the one who installs it is told. For a cluster only, so a copy of the chart has it in an object."""
    shutil.copytree(helm.CHART, tmp_path / "chart")
    (tmp_path / "chart" / "templates" / "notes.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
        'data:\n  text: {{ include (print $.Template.BasePath "/NOTES.txt") . | quote }}\n'
    )

    def told(**values: Any) -> str:
        done = helm.run("template", "shop", tmp_path / "chart", "--show-only=templates/notes.yaml", values=changed(**values))
        assert done.returncode == 0, done.stderr
        (one,) = kubernetes.read(done.stdout)
        return str(one["data"]["text"])

    return told


def test_notes_say_what_is_captured_now(notes: Notes) -> None:
    least = notes()
    assert "nothing, unless a pod has been enabled" in least and "ebpf-api-collector/capture=enabled" in least
    assert "clear text" in least and "Redaction: secrets" in least and "<no value>" not in least
    everything = notes(
        config={"agent": {"mirror": {"allNamespaces": True, "hostProcesses": True}}, "policy": {"preset": "off"}}
    )
    assert (
        "all pods of all namespaces" in everything and "outside of any pod" in everything and "Redaction: NONE" in everything
    )
    chosen = notes(config={"agent": {"mirror": {"filters": [{"namespace": "shop"}]}}})
    assert 'pods that match {"namespace":"shop"}' in chosen and "nothing, unless" not in chosen


def test_every_value_is_in_the_schema_and_every_default_passes() -> None:
    """Helm checks what it is given together with the defaults, so a default that the schema does not know cannot be left."""
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    schema = json.loads((helm.CHART / "values.schema.json").read_text())

    def names(schema: dict[str, Any], prefix: str = "") -> set[str]:
        found = set()
        for name, one in schema.get("properties", {}).items():
            found |= {f"{prefix}{name}", *names(one, f"{prefix}{name}.")}
        return found

    def given(values: dict[str, Any], prefix: str = "") -> set[str]:
        found = set()
        for name, one in values.items():
            found |= {f"{prefix}{name}", *(given(one, f"{prefix}{name}.") if isinstance(one, dict) else ())}
        return found

    optional = {"global", "agent.resources.claims", "agent.updateStrategy.rollingUpdate.maxSurge"}
    inside = ("agent.resources.requests.", "agent.resources.limits.", "agent.nodeSelector.")
    assert {name for name in given(values) if not name.startswith(inside)} == names(schema) - optional


@pytest.mark.parametrize(("version", "field"), [("1.22.0", False), ("1.29.9", False), ("1.30.0", True), ("1.34.4", True)])
def test_apparmor_is_switched_off_in_the_words_of_the_version(version: str, field: bool) -> None:
    template = helm.objects(changed(agent={"privileged": False}), f"--kube-version={version}")["DaemonSet"]["spec"][
        "template"
    ]
    annotation = template["metadata"]["annotations"].get("container.apparmor.security.beta.kubernetes.io/agent")
    said = template["spec"]["containers"][0]["securityContext"].get("appArmorProfile")
    assert (said, annotation) == (({"type": "Unconfined"}, None) if field else (None, "unconfined"))


def test_the_same_capabilities_in_chart_and_manifest() -> None:
    (manifest,) = kubernetes.read((ROOT / "deploy" / "daemonset-least-privilege.yaml").read_text())
    wanted = helm.container(manifest)["securityContext"]
    made = helm.container(helm.objects(changed(agent={"privileged": False}))["DaemonSet"])["securityContext"]
    assert made["capabilities"] == wanted["capabilities"] and made["seLinuxOptions"] == wanted["seLinuxOptions"]
    assert made["allowPrivilegeEscalation"] is wanted["allowPrivilegeEscalation"] is False
    more = changed(agent={"privileged": False, "extraCapabilities": ["SYS_ADMIN"]})
    made = helm.container(helm.objects(more)["DaemonSet"])["securityContext"]
    assert made["capabilities"]["add"] == [*wanted["capabilities"]["add"], "SYS_ADMIN"]
    assert made["allowPrivilegeEscalation"] is True  # Kubernetes refuses the other


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
