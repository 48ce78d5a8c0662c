"""What two ends agree on; see handshake.pyx."""

from libc.stdint cimport uint16_t

from collector.shards.http.fields cimport fields_t

cdef enum:  # extension: exchange_t.notes of a handshake that is handed to this layer
    EXT_DEFLATE = 1          # permessage-deflate (RFC 7692)
    EXT_CLIENT_ANEW = 2      # client_no_context_takeover: each message by itself
    EXT_SERVER_ANEW = 4
    EXT_UNKNOWN = 8          # one that nobody here knows: frames with a reserved bit mean anything
    CLIENT_BEGAN = 16        # no extension: bytes of the client have gone by behind its request already

cdef bint upgrades_to_websocket(const fields_t* fields) noexcept nogil
cdef uint16_t agreed_extensions(const fields_t* fields) noexcept nogil
