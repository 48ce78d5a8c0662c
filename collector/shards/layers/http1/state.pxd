"""The state of HTTP/1 on one connection, and what is known of one message head."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.http.fields cimport field_t, fields_t, request_t, response_t
from collector.shards.http.message cimport exchange_t
from collector.shards.memory cimport buf_t
from collector.shards.receive cimport receive_t
from collector.shards.state cimport conn_t, flow_t


# Why framing is ambiguous: what a smuggling attempt looks like from outside (RFC 9112 section 11.2). Bits of
# exchange_t.reasons; layer.pyx has their names.
cdef enum:  # ambiguity
    AMB_CL_AND_TE = 1 << 0
    AMB_CL_CONFLICT = 1 << 1
    AMB_CL_INVALID = 1 << 2
    AMB_TE_NOT_CHUNKED = 1 << 3
    AMB_TE_HTTP10 = 1 << 4
    AMB_BARE_LF = 1 << 5
    AMB_OBS_FOLD = 1 << 6
    AMB_SPACE_BEFORE_COLON = 1 << 7
    AMB_BAD_HEADER_LINE = 1 << 8
    AMB_START_LINE = 1 << 9
    AMB_BAD_CHUNK = 1 << 10
    AMB_NUL = 1 << 11
    AMB_MULTIPLE_HOST = 1 << 12
    AMB_TE_OBFUSCATED = 1 << 13
    AMB_CL_REPEATED = 1 << 14
    AMB_BARE_CR = 1 << 15
    AMB_CONTROL = 1 << 16        # a control character in a value or reason phrase
    AMB_NO_BODY_ALLOWED = 1 << 17    # Content-Length or Transfer-Encoding in an interim answer or a 204

    # What makes it doubtful where a message ends, and so whose the next answer is
    AMB_FRAMING = (AMB_CL_AND_TE | AMB_CL_CONFLICT | AMB_CL_INVALID | AMB_TE_NOT_CHUNKED | AMB_TE_HTTP10 | AMB_BARE_LF
                   | AMB_OBS_FOLD | AMB_SPACE_BEFORE_COLON | AMB_BAD_HEADER_LINE | AMB_BAD_CHUNK | AMB_NUL
                   | AMB_TE_OBFUSCATED | AMB_BARE_CR | AMB_NO_BODY_ALLOWED)


cdef enum:
    LINE_TOO = 2          # parse_head: the start line itself may be cut
    START_KNOWN = 0xFFFFFFFF  # start_refused has seen the whole start line


# One head; pointers into the bytes that it was parsed from.
cdef struct head_t:
    request_t request
    response_t response
    const uint8_t* version     # of a status line
    uint32_t version_len
    uint32_t ambiguity         # enum ambiguity
    uint8_t http10
    uint8_t chunked
    uint8_t te_seen            # a Transfer-Encoding field, be it only `identity`
    uint8_t has_te
    uint8_t te_coding          # enum coding: the one below chunked, where the field says `gzip, chunked` and no more
    uint8_t has_cl
    uint8_t cl_valid
    uint8_t expect
    uint8_t upgrade
    uint8_t odd_status         # not three digits and a blank
    uint64_t content_length
    fields_t fields


cdef enum:  # exchange_t.notes
    NOTE_HEAD = 1         # the method was HEAD: the answer has no body
    NOTE_CONNECT = 2
    NOTE_EXPECT = 4       # Expect: 100-continue
    NOTE_UPGRADE = 8      # Upgrade header present
    NOTE_DOUBT = 16       # whose answer it gets is in doubt
    NOTE_CONTINUED = 32   # it got 100 (Continue)
    NOTE_BEHIND = 64      # a CONNECT or upgrade before it waits for its answer: this may be bytes of a tunnel
    NOTE_BODY = 128       # its body looks like a request, and nobody has asked for a body yet


cdef enum half_state:
    H_START = 0          # between messages, or inside a head that is not whole yet
    H_BODY = 1           # `remaining` bytes of a Content-Length body to come
    H_CHUNK_SIZE = 2
    H_CHUNK_DATA = 3     # `remaining` bytes of this chunk to come
    H_CHUNK_END = 4      # the CRLF behind a chunk
    H_TRAILER = 5
    H_UNTIL_CLOSE = 6
    H_RESYNC = 7         # framing lost: skip until an event starts like a message
    H_HEAD_SKIP = 8      # past the header limit: looking for the empty line
    STATES


cdef enum:  # half_t.ended
    END_BETWEEN = 1
    END_INSIDE = 2       # a message


cdef struct half_t:
    receive_t part       # a head or line that is not whole yet
    uint64_t head_pos    # stream position of the first byte of the head that is being read
    uint64_t remaining
    uint32_t start_seen  # bytes of a start line that start_refused has seen
    uint32_t part_parsed # bytes of `part` that an over-long head was parsed from
    uint8_t state        # enum half_state
    uint8_t ended
    uint8_t parked       # bytes wait in `part` for the other direction
    uint8_t body_begins  # its next byte is a body's first, if the answer is not one to HEAD
    uint8_t inside_line  # H_HEAD_SKIP, H_TRAILER: of the line that is skipped, something was seen; H_CHUNK_END: its CR
    exchange_t* current  # the exchange this half is filling, or NULL


# What is not known of a connection's messages, from here on, until it was provably quiet (docs/decisions/0011).
cdef enum:  # doubt
    DOUBT_REQUESTS = 1        # there may be requests that nobody saw: the next answer may be theirs
    DOUBT_ANSWERS = 2         # there may be answers that nobody saw
    DOUBT_REQUEST_FRAMING = 4     # what looks like a request may be part of a body, and a body hold requests
    DOUBT_ANSWER_FRAMING = 8
    DOUBT_PAIRING = 3
    DOUBT_ALL = 15


cdef struct http1_t:
    conn_t* conn
    flow_t* flow
    half_t half[2]       # by enum event_dir
    exchange_t* first    # the queue, oldest first
    exchange_t* last
    uint32_t queued
    uint32_t requests    # so many were seen
    uint32_t longest_us  # that an answer has taken while there was doubt
    uint8_t doubt        # enum doubt
    uint8_t answers      # since the doubt was raised last, at most 255
    uint8_t pauses       # of these, before how many requests it was quiet for much longer than any answer took
    uint8_t ahead        # a request is on its way whose event comes behind that of its answer
    uint8_t joined       # the next request is the first after bytes that nobody saw
    uint8_t not_http     # counted as such
    uint8_t left         # HTTP is over: what follows is another protocol
    uint8_t unparked     # the other direction may go on with what it parked
    exchange_t* upgraded # the request that another layer takes over, on its way there
    const char* upgraded_to
    uint8_t rest_dir
    uint64_t rest_ns
    buf_t rest           # bytes that waited and are not HTTP's any more: for who comes behind
