"""Paths of control groups, as runtimes and cgroup drivers make them."""

from __future__ import annotations

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.attribution.containers import Place, parse_cgroups

ID, OTHER = "a1b2c3d4" * 8, "0f1e2d3c" * 8
UID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
UNDER = UID.replace("-", "_")
HASH = "0123456789abcdef0123456789abcdef"  # of a static pod's configuration
SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDER}.slice"

SHAPES = {
    "containerd, systemd": (f"{SLICE}/cri-containerd-{ID}.scope", UID, (ID,)),
    "containerd, systemd, guaranteed": (f"/kubepods.slice/kubepods-pod{UNDER}.slice/cri-containerd-{ID}.scope", UID, (ID,)),
    "CRI-O, systemd": (f"{SLICE}/crio-{ID}.scope", UID, (ID,)),
    "CRI-O, crun": (f"{SLICE}/crio-{ID}.scope/container", UID, (ID,)),
    "CRI-O's monitor": (f"{SLICE}/crio-conmon-{ID}.scope", UID, ()),
    "docker, systemd": (f"{SLICE}/docker-{ID}.scope", UID, (ID,)),
    "cgroupfs": (f"/kubepods/besteffort/pod{UID}/{ID}", UID, (ID,)),
    "cgroupfs, guaranteed": (f"/kubepods/pod{UID}/{ID}", UID, (ID,)),
    "a systemd path under cgroupfs": (
        f"/system.slice/containerd.service/kubepods-burstable-pod{UNDER}.slice:cri-containerd:{ID}",
        UID,
        (ID,),
    ),
    "a kubelet in a container": (
        f"/docker/{OTHER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UNDER}.slice/cri-containerd-{ID}.scope",
        UID,
        (ID, OTHER),
    ),
    "a container in a pod's container": (f"/kubepods/burstable/pod{UID}/{ID}/docker/{OTHER}", UID, (ID, OTHER)),
    "a private namespace, systemd": (f"/../../kubepods-besteffort-pod{UNDER}.slice/cri-containerd-{ID}.scope", UID, (ID,)),
    "a private namespace, cgroupfs": (f"/../{ID}", "", (ID,)),
    "containerd without a kubelet": (f"/k8s.io/{ID}", "", (ID,)),
    "docker, cgroupfs": (f"/docker/{ID}", "", (ID,)),
    "docker, systemd, without a kubelet": (f"/system.slice/docker-{ID}.scope", "", (ID,)),
    "podman": (f"/machine.slice/libpod-{ID}.scope/container", "", (ID,)),
    "a static pod": (f"/kubepods/burstable/pod{HASH}/{ID}", HASH, (ID,)),
    "a pod's sandbox, gVisor": (f"/kubepods/burstable/pod{UID}", UID, ()),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape(shape: str) -> None:
    path, pod, containers = SHAPES[shape]
    assert parse_cgroups(f"0::{path}\n") == Place(pod, containers)
    many = f"12:cpuset:/\n5:memory:{path}\n1:name=systemd:{path}\n0::/\n"
    assert parse_cgroups(many) == Place(pod, containers), "version 1, and both"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/firefox.service", "firefox.service"),
        ("/user.slice/user-1000.slice/session-2.scope", ""),
        ("/init.scope", ""),
        ("/", ""),
    ],
)
def test_a_unit_of_systemd(path: str, unit: str) -> None:
    assert parse_cgroups(f"0::{path}\n") == Place(unit=unit)


def test_names_that_only_look_like_it() -> None:
    for name in (ID[:63], ID + "0", ID.upper(), "x" * 64, f"pod{UID}"[:-1], f"tripod{UID}"):
        assert parse_cgroups(f"0::/a/{name}/b\n") == Place(), name


def test_this_process() -> None:
    with open(f"/proc/{os.getpid()}/cgroup", encoding="utf-8") as file:
        text = file.read()
    found = parse_cgroups(text)
    assert all(name in text for name in (*found.containers, found.unit))


@given(st.text(alphabet=string.hexdigits + "/:-_.\npodscope", max_size=300))
def test_anything_is_read(text: str) -> None:
    found = parse_cgroups(text)
    assert all(len(name) == 64 and name in text for name in found.containers)
