"""What is missing from, or doubtful about, an exchange, in the words of docs/records.md."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from collector.shards.http.message cimport exchange_t
from collector.shards.marks cimport *
from collector.shards.records.text cimport put_text, put_u64


cdef struct mark_name_t:
    uint32_t bit
    const char* name

cdef mark_name_t[32] MARK_NAMES
cdef int MARK_COUNT = 0


cdef void _mark_name(uint32_t bit, const char* name) noexcept:
    global MARK_COUNT
    MARK_NAMES[MARK_COUNT].bit = bit
    MARK_NAMES[MARK_COUNT].name = name
    MARK_COUNT += 1

_mark_name(MARK_REQUEST_CUT, b"request_body_cut")
_mark_name(MARK_RESPONSE_CUT, b"response_body_cut")
_mark_name(MARK_REQUEST_LOST, b"request_bytes_lost")
_mark_name(MARK_RESPONSE_LOST, b"response_bytes_lost")
_mark_name(MARK_REQUEST_INCOMPLETE, b"request_incomplete")
_mark_name(MARK_RESPONSE_INCOMPLETE, b"response_incomplete")
_mark_name(MARK_JOINED, b"joined_mid_stream")
_mark_name(MARK_NO_RESPONSE, b"no_response")
_mark_name(MARK_END_UNSEEN, b"end_unseen")
_mark_name(MARK_HEADERS_UNCERTAIN, b"headers_uncertain")
_mark_name(MARK_HEADERS_CUT, b"headers_cut")
_mark_name(MARK_HEADERS_UNKNOWN, b"headers_unknown")
_mark_name(MARK_ORPHAN, b"orphan_response")
_mark_name(MARK_METHOD_UNKNOWN, b"method_unknown")
_mark_name(MARK_PATH_UNKNOWN, b"path_unknown")
_mark_name(MARK_STATUS_UNKNOWN, b"status_unknown")
_mark_name(MARK_PEER_UNKNOWN, b"peer_unknown")
_mark_name(MARK_PAIRING, b"pairing_uncertain")
_mark_name(MARK_REQUEST_FRAMING, b"request_framing_uncertain")
_mark_name(MARK_RESPONSE_FRAMING, b"response_framing_uncertain")
_mark_name(MARK_REQUEST_OMITTED, b"request_body_omitted")
_mark_name(MARK_RESPONSE_OMITTED, b"response_body_omitted")
_mark_name(MARK_REQUEST_UNDECODED, b"request_body_undecoded")
_mark_name(MARK_RESPONSE_UNDECODED, b"response_body_undecoded")
_mark_name(MARK_REQUEST_TRAILING, b"request_body_trailing")
_mark_name(MARK_RESPONSE_TRAILING, b"response_body_trailing")
_mark_name(MARK_EVICTED, b"evicted")
_mark_name(MARK_PROXY_INVALID, b"proxy_invalid")
_mark_name(MARK_AMBIGUOUS, b"ambiguous_framing")


def mark_words():
    """The words that may stand in `marks`, without their counts and reasons."""
    return [MARK_NAMES[i].name.decode() for i in range(MARK_COUNT)]


cdef char* put_marks(char* out, exchange_t* ex, const char* const* reasons, shown_t* req, shown_t* resp) noexcept nogil:
    """The marks as a JSON array inside a JSON string; counts in bytes behind a colon. At most 1,500 bytes.
    `reasons`: the names of the bits of ex.reasons (layer_t.reasons)."""
    cdef int i, j
    cdef bint first = True
    cdef uint32_t bit
    cdef uint64_t n
    out = put_text(out, b'[')
    for i in range(MARK_COUNT):
        bit = MARK_NAMES[i].bit
        if not ex.marks & bit:
            continue
        if not first:
            out = put_text(out, b',')
        first = False
        out = put_text(out, b'\\"')
        out = put_text(out, MARK_NAMES[i].name)
        if bit == MARK_REQUEST_CUT or bit == MARK_RESPONSE_CUT:
            # how many body bytes of the true size the record does not show; of a decoded body nobody knows
            n = (ex.req.size - ex.req.told - req.wire if bit == MARK_REQUEST_CUT else
                 ex.resp.size - ex.resp.told - resp.wire)
            if <int64_t>n > 0:
                out[0] = c':'
                out = put_u64(out + 1, n)
        elif bit == MARK_REQUEST_LOST and ex.req.lost:
            out[0] = c':'
            out = put_u64(out + 1, ex.req.lost)
        elif bit == MARK_RESPONSE_LOST and ex.resp.lost:
            out[0] = c':'
            out = put_u64(out + 1, ex.resp.lost)
        elif bit == MARK_HEADERS_UNKNOWN:
            out[0] = c':'
            out = put_u64(out + 1, ex.unknown)
        elif bit == MARK_REQUEST_TRAILING or bit == MARK_RESPONSE_TRAILING:
            out[0] = c':'
            out = put_u64(out + 1, req.behind if bit == MARK_REQUEST_TRAILING else resp.behind)
        elif (bit == MARK_REQUEST_UNDECODED and ex.marks & MARK_REQUEST_REFUSED
                or bit == MARK_RESPONSE_UNDECODED and ex.marks & MARK_RESPONSE_REFUSED):
            out = put_text(out, b':budget')
        elif bit == MARK_AMBIGUOUS:
            j = 0
            while reasons != NULL and reasons[j] != NULL:
                if ex.reasons & (<uint32_t>1 << j):
                    out = put_text(out, b':')
                    out = put_text(out, reasons[j])
                j += 1
        out = put_text(out, b'\\"')
    return put_text(out, b']')
