"""Which containers are captured: every row of the documented precedence, and the grammar of filters."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import ConfigError
from collector.kubernetes.selection import (
    NAMESPACE_LABELS,
    POD_ANNOTATIONS,
    Candidate,
    Filter,
    Reason,
    Scope,
    parse_filters,
)

OURS, THEIRS = "ebpf-api-collector/capture", "wallarm-mirror"
ANNOTATION = "mirror.wallarm.com/enabled"
LABEL_OF = {None: {}, True: {THEIRS: "enabled"}, False: {THEIRS: "disabled"}}
ANNOTATION_OF = {None: {}, True: {ANNOTATION: "true"}, False: {ANNOTATION: "false"}}


def candidate(label: bool | None, annotation: bool | None) -> Candidate:
    return Candidate(
        namespace="shop", namespace_labels=LABEL_OF[label], pod_annotations=ANNOTATION_OF[annotation], container="app"
    )


MATCHING = parse_filters([{"namespace": "shop"}])
ROWS = {  # everything, label, annotation, a filter that matches -> captured
    "all, and the namespace is disabled": (True, False, None, False, False),
    "the namespace is enabled, the pod is not": (False, True, False, False, False),
    "the namespace is disabled, the pod is enabled": (False, False, True, False, False),
    "the namespace is disabled, and in the filters": (False, False, None, True, False),
    "the pod is disabled, and in the filters": (False, None, False, True, False),
    "nothing said": (False, None, None, False, False),
    "all": (True, None, None, False, True),
    "the namespace is enabled": (False, True, None, False, True),
    "the pod is enabled": (False, None, True, False, True),
    "in the filters": (False, None, None, True, True),
    "all, and the pod is disabled": (True, None, False, False, False),
    "all, and not in the filters": (True, None, None, False, True),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_documented_row(row: str) -> None:
    everything, label, annotation, filtered, captured = ROWS[row]
    scope = Scope(everything, MATCHING if filtered else ())
    assert scope.verdict(candidate(label, annotation)).selected == captured


def test_the_rules_behind_the_rows() -> None:
    """Disabled above: lower levels are ignored. Enabled above: the lower one decides. The annotation goes before filters."""
    for everything, label, annotation, filtered in product(
        (True, False), (None, True, False), (None, True, False), (True, False)
    ):
        verdict = Scope(everything, MATCHING if filtered else ()).verdict(candidate(label, annotation))
        if label is False:
            assert (verdict.selected, verdict.reason) == (False, Reason.NAMESPACE_DISABLED)
        elif annotation is not None:
            assert verdict.selected == annotation
        else:
            assert verdict.selected == (label is True or filtered or everything)
            assert (verdict.reason is Reason.DEFAULT) == (label is None and not filtered)


def test_our_own_names_go_before_the_others() -> None:
    for own, said in (("enabled", True), ("disabled", False)):
        for other in ("enabled", "disabled"):
            verdict = Scope(False).verdict(Candidate(namespace_labels={OURS: own, THEIRS: other}))
            assert verdict.selected == said
        for other in ("true", "false"):
            assert Scope(False).verdict(Candidate(pod_annotations={OURS: own, ANNOTATION: other})).selected == said
    assert next(iter(NAMESPACE_LABELS)) == next(iter(POD_ANNOTATIONS)) == OURS


@pytest.mark.parametrize("value", ["", "Enabled", "yes", "1", "enabled "])
def test_a_value_that_means_nothing_is_told_and_is_none(value: str) -> None:
    verdict = Scope(False).verdict(Candidate(namespace_labels={THEIRS: value}, pod_annotations={ANNOTATION: value}))
    assert not verdict.selected and verdict.reason is Reason.DEFAULT
    assert verdict.odd == (f"{THEIRS}={value}", f"{ANNOTATION}={value}")


def test_entries_are_alternatives_and_keys_are_not() -> None:
    filters = parse_filters(
        [
            {"namespace": "shop, bank", "container_name": "app"},
            {"pod_labels": {"team": "backend,ops", "tier": "1"}, "node_name": "a"},
        ]
    )
    scope = Scope(False, filters)

    def captured(**what: object) -> bool:
        return scope.verdict(Candidate(**what)).selected  # type: ignore[arg-type]

    assert captured(namespace="shop", container="app") and captured(namespace="bank", container="app")
    assert not captured(namespace="shop", container="proxy") and not captured(namespace="shopping", container="app")
    assert captured(pod_labels={"team": "ops", "tier": "1", "x": "y"}, node="a")
    assert not captured(pod_labels={"team": "ops"}, node="a") and not captured(
        pod_labels={"team": "ops", "tier": "1"}, node="b"
    )
    assert not captured(pod_labels={"team": "backend,ops", "tier": "1"}, node="a")


def test_yaml_writes_texts_as_something_else() -> None:
    (one,) = parse_filters([{"pod_annotations": {"on": True, "port": 80}}])
    assert one == Filter(pod_annotations=(("on", frozenset({"true"})), ("port", frozenset({"80"}))))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"namespace": "a"}, "filters: a list of filters is wanted, and not a mapping"),
        ([{"namespace": "a"}, {}], r"filters\[1\]: names and values are wanted"),
        (["a"], r"filters\[0\]: .* and not a text"),
        ([{"name_space": "a"}], r"filters\[0\]: there is no 'name_space'; there are namespace, pod_labels"),
        ([{"namespace": ""}], r"filters\[0\]\.namespace: a text is wanted, and not nothing"),
        ([{"namespace": ["a"]}], r"filters\[0\]\.namespace: a text is wanted, and not a list"),
        ([{"namespace": " , "}], r"filters\[0\]\.namespace: a text is wanted"),
        ([{"pod_labels": "a=b"}], r"filters\[0\]\.pod_labels: names and values are wanted, and not a text"),
        ([{"pod_labels": {"a": None}}], r"filters\[0\]\.pod_labels\.a: a text is wanted, and not nothing"),
    ],
)
def test_what_is_wrong_is_said(entries: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_filters(entries)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(["namespace", "pod_labels", "node_name", "x"])
JSON = st.recursive(SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(KEYS, one, max_size=3), max_leaves=8)


@given(JSON)
def test_anything_is_read_or_refused(entries: object) -> None:
    try:
        filters = parse_filters(entries)
    except ConfigError:
        return
    Scope(False, filters).verdict(candidate(None, None))


def test_a_sidecar_is_never_captured() -> None:
    scope = Scope(True, (), frozenset({"istio-proxy"}))
    for said in ({}, {"mirror.wallarm.com/enabled": "true"}):
        found = scope.verdict(Candidate("shop", pod_annotations=said, container="istio-proxy"))
        assert (found.selected, found.reason) == (False, Reason.SIDECAR)
        assert scope.verdict(Candidate("shop", pod_annotations=said, container="app")).selected
        beside = frozenset({"istio-proxy", "app"})
        found = scope.verdict(Candidate("shop", pod_annotations=said, container="istio-proxy", beside=beside))
        assert found.reason is Reason.SIDECAR
    disabled = Candidate("shop", pod_annotations={"mirror.wallarm.com/enabled": "false"}, container="istio-proxy")
    assert scope.verdict(disabled).reason is Reason.POD_DISABLED


def test_a_proxy_with_nothing_beside_it_is_no_sidecar() -> None:
    """Istio's gateways have one container, which is called as its sidecars are."""
    scope = Scope(True, (), frozenset({"istio-proxy", "linkerd-proxy"}))
    for beside in ({"istio-proxy"}, {"istio-proxy", "linkerd-proxy"}):
        assert scope.verdict(Candidate("istio-system", container="istio-proxy", beside=frozenset(beside))).selected
