"""What is missing from, or doubtful about, an exchange. records/marks.pyx has the words, docs/records.md their meaning."""

cdef enum:  # mark
    MARK_REQUEST_CUT = 1 << 0            # body longer than the cap, or bytes the kernel did not copy
    MARK_RESPONSE_CUT = 1 << 1
    MARK_REQUEST_LOST = 1 << 2           # a hole: bytes were dropped on the way to us
    MARK_RESPONSE_LOST = 1 << 3
    MARK_REQUEST_INCOMPLETE = 1 << 4     # its end was not seen (idle, evicted, closed before)
    MARK_RESPONSE_INCOMPLETE = 1 << 5
    MARK_JOINED = 1 << 6                 # the connection was joined in the middle
    MARK_NO_RESPONSE = 1 << 7
    MARK_END_UNSEEN = 1 << 8             # the connection's end was not seen
    MARK_HEADERS_UNCERTAIN = 1 << 9      # more header fields than we list, or bytes that are not text
    MARK_PEER_UNKNOWN = 1 << 10          # an address is 0.0.0.0:0
    MARK_AMBIGUOUS = 1 << 11             # for the reasons in exchange_t.reasons
    MARK_PAIRING = 1 << 12               # after a hole of unknown framing: request and response may not belong together
    MARK_REQUEST_OMITTED = 1 << 13       # a binary media type, left out
    MARK_RESPONSE_OMITTED = 1 << 14
    MARK_REQUEST_UNDECODED = 1 << 15     # content coding unknown or broken: body as on the wire
    MARK_RESPONSE_UNDECODED = 1 << 16
    MARK_HEADERS_CUT = 1 << 17           # header block longer than COLLECTOR_HEADER_BYTES
    MARK_EVICTED = 1 << 18               # flushed to stay within a limit
    MARK_REQUEST_TRAILING = 1 << 19      # bytes behind the end of a content coding
    MARK_RESPONSE_TRAILING = 1 << 20
    MARK_REQUEST_REFUSED = 1 << 21       # why it is undecoded: it would cost too much
    MARK_RESPONSE_REFUSED = 1 << 22
    MARK_REQUEST_FRAMING = 1 << 23       # found by searching, or behind one of unknown length
    MARK_RESPONSE_FRAMING = 1 << 24
    MARK_HEADERS_UNKNOWN = 1 << 26       # fields of which an earlier part of the connection would tell more
    MARK_METHOD_UNKNOWN = 1 << 27
    MARK_PATH_UNKNOWN = 1 << 28
    MARK_STATUS_UNKNOWN = 1 << 29
    MARK_ORPHAN = 1 << 30                # an answer whose request was not seen
    MARK_PROXY_INVALID = 1 << 25         # a PROXY preamble whose checksum is wrong: no claim is taken from it
