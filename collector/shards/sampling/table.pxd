"""The state of sampling: the endpoints that are known, and what was left out of each.

    sampler     everything of one shard; NULL in ctx_t until a policy samples
    group       the endpoints of the connections of one ring, which count for themselves
    endpoint    one of them; when it gives way, what it has left out goes to its group

See table.pyx.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    GROUPS = 64          # as many as a node has rings (router/partition.py); a power of two

cdef struct endpoint_t:
    uint64_t key         # endpoints.pyx
    uint64_t untold      # exchanges left out that no record has told of
    uint32_t minute      # of event time, of the newest exchange
    uint32_t count       # of exchanges that began in that minute
    uint32_t next        # in its bucket; an index plus 1, 0: none
    uint32_t newer       # by use; as next
    uint32_t older

cdef struct group_t:
    endpoint_t* endpoints
    uint32_t* buckets    # first of each; two for each place
    uint32_t used        # places
    uint32_t places      # a power of two times FIRST_PLACES, or most
    uint32_t bucket_mask
    uint32_t newest
    uint32_t oldest
    endpoint_t others    # those that found no place, together; its `untold` has that of those that gave way

cdef struct sampler_t:
    uint64_t seed
    uint8_t ended        # the policy samples no more: only what is untold matters
    uint8_t heads_only
    uint32_t first
    uint32_t one_in
    uint32_t errors_one_in
    uint32_t marked_one_in
    uint32_t most        # endpoints of a group
    uint64_t untold      # of all groups
    # of the record that is being written
    group_t* of_group
    endpoint_t* of       # NULL: its endpoint has no place
    uint64_t telling
    uint64_t telling_others
    group_t groups[64]

cdef endpoint_t* find(group_t* group, uint64_t key) noexcept nogil
cdef endpoint_t* find_or_add(group_t* group, uint64_t key, uint32_t minute, uint32_t most) noexcept nogil
cdef void shrink(group_t* group, uint32_t most) noexcept nogil
cdef void clear(group_t* group) noexcept nogil
