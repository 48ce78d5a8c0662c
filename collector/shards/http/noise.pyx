"""Requests that machines make to see whether somebody is alive, or how it is doing, known by the User-Agent that they send:
many, all alike, and of no interest to who looks for APIs. It is what the client says of itself, and anybody may say it.
Whoever only looks asks with GET or HEAD, or gRPC's health service: with anything else it is no noise, whoever says it is.

    probe      the kubelet: pkg/probe/http/request.go, pkg/kubelet/lifecycle/handlers.go
    scrape     Prometheus (scrape/scrape.go: the timeout tells it from service discovery, which has the same User-Agent),
               VictoriaMetrics' agents
    mesh       Envoy's health checks (source/extensions/health_checkers/http)
    balancer   Google's and AWS's load balancers, Consul
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, strlen

from collector.shards.http.fields cimport field_t, fields_t, request_t, same_name

cdef enum:
    AGENTS = 8
    PROMETHEUS = 1      # its place
    NAME_BYTES = 10
    TIMEOUT_BYTES = 35
    HEALTH_BYTES = 28

cdef const char* _AGENT = b"user-agent"
cdef const char* _TIMEOUT = b"x-prometheus-scrape-timeout-seconds"
cdef const char* _HEALTH = b"/grpc.health.v1.Health/Check"
cdef const char* _BEGINNINGS[8]
cdef uint8_t _NOISES[8]
_BEGINNINGS[0] = b"kube-probe/"
_NOISES[0] = NOISE_PROBE
_BEGINNINGS[1] = b"Prometheus/"
_NOISES[1] = NOISE_SCRAPE
_BEGINNINGS[2] = b"vm_promscrape"
_NOISES[2] = NOISE_SCRAPE
_BEGINNINGS[3] = b"Envoy/HC"
_NOISES[3] = NOISE_MESH
_BEGINNINGS[4] = b"GoogleHC/"
_NOISES[4] = NOISE_BALANCER
_BEGINNINGS[5] = b"ELB-HealthChecker/"
_NOISES[5] = NOISE_BALANCER
_BEGINNINGS[6] = b"Consul Health Check"
_NOISES[6] = NOISE_BALANCER
_BEGINNINGS[7] = b"kube-lifecycle/"
_NOISES[7] = NOISE_PROBE

cdef const char* _NAMES[5]
_NAMES[NOISE_NONE] = b""
_NAMES[NOISE_PROBE] = b"probe"
_NAMES[NOISE_SCRAPE] = b"scrape"
_NAMES[NOISE_MESH] = b"mesh"
_NAMES[NOISE_BALANCER] = b"balancer"


cdef inline bint asks_only(const request_t* request) noexcept nogil:
    """Does it change nothing?"""
    if request.method_len == 3:
        return memcmp(request.method, b"GET", 3) == 0
    if request.method_len == 4:
        return (memcmp(request.method, b"HEAD", 4) == 0
                or memcmp(request.method, b"POST", 4) == 0 and request.target_len == HEALTH_BYTES
                and memcmp(request.target, _HEALTH, HEALTH_BYTES) == 0)
    return False


cdef bint has_field(const fields_t* fields, const char* name, size_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(fields.count):
        if fields.items[i].name_len == length and same_name(fields.items[i].name, name, length):
            return True
    return False


cdef uint8_t noise_of(const request_t* request, const fields_t* fields) noexcept nogil:
    """By the first User-Agent of a request."""
    cdef uint32_t i
    cdef int a
    cdef const field_t* f
    cdef size_t n
    for i in range(fields.count):
        f = &fields.items[i]
        if f.name_len != NAME_BYTES or f.name[0] | 32 != c'u' or not same_name(f.name, _AGENT, NAME_BYTES):
            continue
        for a in range(AGENTS):
            n = strlen(_BEGINNINGS[a])
            if f.value_len < n or memcmp(f.value, _BEGINNINGS[a], n) != 0:
                continue
            if f.value_len > n and _BEGINNINGS[a][n - 1] != c'/':      # the whole of it
                continue
            if not asks_only(request) or a == PROMETHEUS and not has_field(fields, _TIMEOUT, TIMEOUT_BYTES):
                return NOISE_NONE
            return _NOISES[a]
        return NOISE_NONE
    return NOISE_NONE


cdef const char* noise_name(uint8_t noise) noexcept nogil:
    """As it stands in records."""
    return _NAMES[noise if noise < NOISES else 0]
