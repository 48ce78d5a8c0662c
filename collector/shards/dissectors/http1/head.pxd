"""One message head: start line and header fields as pointers into the bytes it was parsed from."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from collector.shards.state cimport ctx_t, message_t


cdef enum:
    MAX_FIELDS = 512      # nginx allows 8k of header in all, node 16 KiB, Apache 100 fields; beyond: headers_uncertain
    START_KNOWN = 0xFFFFFFFF  # start_refused has seen the whole start line
    LINE_TOO = 2          # parse_head: the start line itself may be cut

cdef enum:  # field_id
    F_OTHER = 0
    F_HOST
    F_CONTENT_LENGTH
    F_TRANSFER_ENCODING
    F_CONTENT_TYPE
    F_CONTENT_ENCODING
    F_UPGRADE
    F_EXPECT
    F_COOKIE
    F_SET_COOKIE

cdef struct field_t:
    const uint8_t* name
    const uint8_t* value
    uint32_t name_len
    uint32_t value_len
    uint32_t hash
    uint8_t id            # enum field_id
    uint8_t repeats       # an earlier field has this name: written there
    uint8_t repeated      # a later field has this name
    uint8_t plain_name    # no byte of it wants escaping
    uint8_t plain_value

cdef struct head_t:
    const uint8_t* method      # request
    const uint8_t* target
    const uint8_t* version
    const uint8_t* reason      # response: code and phrase, as on the wire
    uint32_t method_len
    uint32_t target_len
    uint32_t version_len
    uint32_t reason_len
    uint32_t status
    uint32_t count
    uint32_t ambiguity         # enum ambiguity_bit
    uint8_t overflow           # more than MAX_FIELDS
    uint8_t http10
    uint8_t chunked
    uint8_t te_seen            # a Transfer-Encoding field, be it only `identity`
    uint8_t has_te
    uint8_t has_cl
    uint8_t cl_valid
    uint8_t expect
    uint8_t upgrade
    uint8_t content_encoding
    uint8_t odd_status         # not three digits and a blank
    const uint8_t* end         # of the bytes that it was parsed from
    uint64_t content_length
    field_t* host
    field_t* content_type
    field_t late_host          # beyond the fields that are listed
    field_t fields[512]

cdef uint8_t[256] tchar       # of RFC 9110 section 5.6.2

cdef int64_t parse_head(head_t* h, const uint8_t* p, const uint8_t* end, bint response, int whole) noexcept nogil
cdef bint trailer_line(const uint8_t* p, const uint8_t* end, uint32_t* ambiguity) noexcept nogil
cdef int64_t find_head_end(const uint8_t* p, uint32_t length, uint32_t* scan) noexcept nogil
cdef bint start_refused(head_t* h, const uint8_t* p, uint32_t before, uint32_t length, bint response,
                        uint32_t* known) noexcept nogil
cdef int write_request_head(ctx_t* ctx, head_t* h, message_t* m) noexcept
cdef int write_response_head(ctx_t* ctx, head_t* h, message_t* m) noexcept
cdef void content_facts(ctx_t* ctx, head_t* h, message_t* m) noexcept
cdef bint same_name(const uint8_t* a, const char* lower, uint32_t n) noexcept nogil
cdef bint looks_like_request(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint looks_like_response(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint usual_method(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint may_be_request(const uint8_t* p, const uint8_t* end) noexcept nogil
