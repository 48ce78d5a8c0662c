"""A bounded table of endpoints: found by their number, and in the order of their use.

It grows with what it holds, up to what the policy allows. Then the one that was used least recently gives way, rather one
without anything untold; but never one that was used in the minute that is being counted, or a flood of paths would begin
each minute's allowance again and again. Whoever finds no place shares one: `others`.

Finding and adding take constant time; growing to n places takes time O(n) in all.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cdef enum:
    FIRST_PLACES = 64
    ASKED = 8            # of the oldest, so many are asked whether they have nothing untold


cdef inline uint32_t* bucket_of(group_t* group, uint64_t key) noexcept nogil:
    return &group.buckets[<uint32_t>(key >> 32) & group.bucket_mask]


cdef inline endpoint_t* at(group_t* group, uint32_t number) noexcept nogil:
    return &group.endpoints[number - 1]


cdef endpoint_t* find(group_t* group, uint64_t key) noexcept nogil:
    """The endpoint of this number, or NULL."""
    cdef uint32_t number
    if group.used == 0:
        return NULL
    number = bucket_of(group, key)[0]
    while number and at(group, number).key != key:
        number = at(group, number).next
    return at(group, number) if number else NULL


# ---- order of use

cdef inline void unlink(group_t* group, endpoint_t* e) noexcept nogil:
    if e.newer:
        at(group, e.newer).older = e.older
    else:
        group.newest = e.older
    if e.older:
        at(group, e.older).newer = e.newer
    else:
        group.oldest = e.newer


cdef inline void link_newest(group_t* group, endpoint_t* e, uint32_t number) noexcept nogil:
    e.older = group.newest
    e.newer = 0
    if group.newest:
        at(group, group.newest).newer = number
    else:
        group.oldest = number
    group.newest = number


cdef inline void enter(group_t* group, endpoint_t* e, uint32_t number) noexcept nogil:
    cdef uint32_t* bucket = bucket_of(group, e.key)
    e.next = bucket[0]
    bucket[0] = number


cdef void leave(group_t* group, endpoint_t* e, uint32_t number) noexcept nogil:
    cdef uint32_t* link = bucket_of(group, e.key)
    while link[0] != number:
        link = &at(group, link[0]).next
    link[0] = e.next


# ---- places

cdef int grow(group_t* group, uint32_t most) noexcept nogil:
    """More places, at most `most`. 0, or -1 when there are so many, or memory is out."""
    cdef uint32_t places = group.places * 2 if group.places else FIRST_PLACES
    cdef uint32_t buckets = 2 * FIRST_PLACES
    cdef uint32_t number
    cdef uint32_t* fresh
    cdef endpoint_t* endpoints
    if group.places >= most:
        return -1
    places = most if places > most else places
    while buckets < 2 * places:
        buckets *= 2
    fresh = <uint32_t*>calloc(buckets, sizeof(uint32_t))
    if fresh == NULL:
        return -1
    endpoints = <endpoint_t*>realloc(group.endpoints, places * sizeof(endpoint_t))
    if endpoints == NULL:
        free(fresh)
        return -1
    free(group.buckets)
    group.buckets = fresh
    group.endpoints = endpoints
    group.bucket_mask = buckets - 1
    group.places = places
    for number in range(1, group.used + 1):
        enter(group, at(group, number), number)
    return 0


cdef uint32_t who_gives_way(group_t* group, uint32_t minute) noexcept nogil:
    """The number of the endpoint whose place another one may have; 0: none, all were used in this minute."""
    cdef uint32_t number = group.oldest, _i
    if at(group, number).minute == minute:
        return 0
    for _i in range(<uint32_t>ASKED):
        if number == 0 or at(group, number).minute == minute:
            break
        if at(group, number).untold == 0:
            return number
        number = at(group, number).newer
    return group.oldest


cdef endpoint_t* find_or_add(group_t* group, uint64_t key, uint32_t minute, uint32_t most) noexcept nogil:
    """The endpoint of this number, used now; `others` when there is no place for it. At most `most` are known."""
    cdef endpoint_t* e = find(group, key)
    cdef uint32_t number
    if e != NULL:
        number = <uint32_t>(e - group.endpoints) + 1
        if group.newest != number:
            unlink(group, e)
            link_newest(group, e, number)
        return e
    if group.used < group.places or grow(group, most) == 0:
        group.used += 1
        number = group.used
        e = at(group, number)
    else:
        number = who_gives_way(group, minute) if group.used else 0
        if number == 0:
            return &group.others
        e = at(group, number)
        group.others.untold += e.untold
        unlink(group, e)
        leave(group, e, number)
    memset(e, 0, sizeof(endpoint_t))
    e.key = key
    e.minute = minute
    enter(group, e, number)
    link_newest(group, e, number)
    return e


cdef void clear(group_t* group) noexcept nogil:
    """Forget all of them, and what they have left out."""
    free(group.endpoints)
    free(group.buckets)
    memset(group, 0, sizeof(group_t))


cdef void shrink(group_t* group, uint32_t most) noexcept nogil:
    """Fewer are allowed: begin anew where there are more. What they have left out stays, as that of `others`."""
    cdef endpoint_t others = group.others
    cdef uint32_t number
    if group.places <= most:
        return
    for number in range(1, group.used + 1):
        others.untold += at(group, number).untold
    clear(group)
    group.others = others
