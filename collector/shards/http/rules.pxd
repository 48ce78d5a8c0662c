"""The include and exclude rules of a policy as a shard has them; selection.pyx makes them and asks them."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.globs cimport globs_t
from collector.shards.http.clients cimport cidr_t

cdef enum:
    SELECTION_RULES = 64         # collector/policy/schema.py MOST_RULES

cdef enum:  # selection_rule_t.directions
    SELECT_INBOUND = 1
    SELECT_OUTBOUND = 2

cdef struct status_range_t:      # both included
    uint16_t first
    uint16_t last

# Of each list that is not empty one has to fit.
cdef struct selection_rule_t:
    globs_t hosts                # lower case, without port
    globs_t paths                # as `plain_path` writes them
    globs_t methods              # without stars
    globs_t content_types        # lower case, without parameters
    globs_t processes            # of names as the kernel has them
    status_range_t* statuses
    cidr_t* networks
    uint32_t status_count
    uint32_t network_count
    uint8_t directions           # bits; 0: either
    uint8_t included

cdef struct selection_t:
    uint32_t holders             # the pipeline, and exchanges that are not decided; freed with the last
    uint32_t count
    uint32_t version             # from 1; no two of a shard have the same
    uint8_t asks_hosts           # any of the rules does
    uint8_t asks_paths
    selection_rule_t rules[64]   # SELECTION_RULES
