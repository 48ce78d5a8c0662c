"""`AKTO_IGNORE_IP_TRAFFIC` and `AKTO_IGNORE_CLOUD_METADATA_CALLS`: decisions on the Host of a request.

What Akto means, without its gaps: IPv6 literals are IP addresses too, and a port behind the metadata address does
not hide it. A request without a Host has no name to resolve: it counts as IP traffic, as with Akto.
"""

from __future__ import annotations

import ipaddress

PASS, IP_HOST, METADATA = 0, 1, 2

# Where clouds serve instance metadata: AWS, Azure, GCP, DigitalOcean, Oracle; AWS over IPv6; Alibaba; GCP's name.
METADATA_ADDRESSES = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200"})
METADATA_NAMES = frozenset({"metadata.google.internal", "metadata"})


def split_host(host: str) -> str:
    """A Host value without port and brackets (RFC 3986 section 3.2.2)."""
    host = host.strip()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    if host.count(":") == 1:
        return host.partition(":")[0]
    return host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def verdict(host: bytes, ignore_ip: bool, ignore_metadata: bool, remote: bytes) -> int:
    """PASS, IP_HOST or METADATA. ``remote`` is the called address (16 bytes) of an outgoing call, else empty."""
    name = split_host(" ".join(host.decode("latin-1").split()))  # a folded value has line breaks inside
    address = _address(name)
    if ignore_metadata:
        if str(address or name.lower().rstrip(".")) in METADATA_ADDRESSES | METADATA_NAMES:
            return METADATA
        if remote and any(remote):
            called = ipaddress.IPv6Address(remote)
            if str(called.ipv4_mapped or called) in METADATA_ADDRESSES:
                return METADATA
    if ignore_ip and (not name or address is not None):
        return IP_HOST
    return PASS
