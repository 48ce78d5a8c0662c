"""JSON lines as the records of Kafka's RecordBatch, version 2.

    RecordBatch   61 bytes, big endian, then the records, compressed together
    Record        varint length, 0 (attributes), varint 0 (time, less the batch's), varint offset (less the batch's first),
                  varint length of the key and the key (-1: none), varint length and value, varint number of headers; of
                  each length and name, length and value. Varints are zig-zag.

Kafka protocol guide, "Record Batch" and "Record" (https://kafka.apache.org/documentation/#messageformat). A record has the
header `collection_details` when its exchange has details. Nothing here can fail: sizes are known before.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from collector.shards.packing cimport batch_entry_t

cdef extern from *:
    """
    #define DETAILS "collection_details"
    #define DIGITS "0123456789abcdef"
    static inline void put32(unsigned char *out, unsigned int value)
    {
        value = __builtin_bswap32(value);
        __builtin_memcpy(out, &value, 4);
    }
    static inline void put64(unsigned char *out, unsigned long long value)
    {
        value = __builtin_bswap64(value);
        __builtin_memcpy(out, &value, 8);
    }
    """
    const char* DETAILS
    const char* DIGITS
    void put32(uint8_t* out, uint32_t value) noexcept
    void put64(uint8_t* out, uint64_t value) noexcept

cdef enum:
    NO_KEY = 1                                                          # -1 as a varint
    MAGIC = 2


cdef inline uint8_t* put_varint(uint8_t* out, uint32_t value) noexcept:
    """A number that is not negative, at most 2**31 - 1."""
    value <<= 1
    while value >= 0x80:
        out[0] = <uint8_t>(value | 0x80)
        out += 1
        value >>= 7
    out[0] = <uint8_t>value
    return out + 1


cdef inline uint32_t varint_bytes(uint32_t value) noexcept:
    cdef uint32_t size = 1
    value <<= 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_key(uint8_t* out, uint64_t conn_id) noexcept:
    cdef uint32_t i
    for i in range(KEY_BYTES):
        out[i] = <uint8_t>DIGITS[conn_id >> (60 - 4 * i) & 15]
    return out + KEY_BYTES


cdef size_t framed_most(const batch_entry_t* entry) noexcept:
    """Bytes that a record of a batch needs at most."""
    return <size_t>entry.length + entry.details_len + RECORD_MOST


cdef size_t frame(uint8_t* out, const batch_entry_t* entries, uint32_t count, const char* records,
                  const char* details, bint keys) noexcept:
    """The first ``count`` lines of ``records`` as Records, whose keys are their connections, or nothing. ``out`` has room
    for the sum of `framed_most`; the bytes that were used."""
    cdef uint8_t* at = out
    cdef const batch_entry_t* entry
    cdef uint32_t i, value, length
    for i in range(count):
        entry = &entries[i]
        value = entry.length - 1        # without the newline
        length = 2 + varint_bytes(i) + 1 + (KEY_BYTES if keys else 0) + varint_bytes(value) + value + 1
        if entry.details_len:
            length += 1 + DETAILS_BYTES + varint_bytes(entry.details_len) + entry.details_len
        at = put_varint(at, length)
        at[0] = 0
        at[1] = 0
        at = put_varint(at + 2, i)
        if keys:
            at = put_key(put_varint(at, KEY_BYTES), entry.conn_id)
        else:
            at[0] = NO_KEY
            at += 1
        at = put_varint(at, value)
        memcpy(at, records, value)
        at += value
        records += entry.length
        at[0] = 2 if entry.details_len else 0
        at += 1
        if entry.details_len:
            at = put_varint(at, DETAILS_BYTES)
            memcpy(at, DETAILS, DETAILS_BYTES)
            at = put_varint(at + DETAILS_BYTES, entry.details_len)
            memcpy(at, details, entry.details_len)
            at += entry.details_len
            details += entry.details_len
    return <size_t>(at - out)


cdef void put_header(uint8_t* out, uint32_t records_bytes, uint16_t codec, uint32_t count, int64_t wall_ms) noexcept:
    """The header of a batch of no particular producer, but for its checksum. ``records_bytes``: as they are sent;
    ``wall_ms``: time of all records, Unix milliseconds."""
    memset(out, 0, HEADER_BYTES)                            # base offset, leader epoch, attributes
    put32(out + 8, HEADER_BYTES - 12 + records_bytes)       # from behind this number to the end
    put32(out + 12, 0xFFFFFFFF)                             # partition leader epoch: the broker's
    out[16] = MAGIC
    out[22] = <uint8_t>codec
    put32(out + 23, count - 1)                              # last offset, less the first
    put64(out + 27, <uint64_t>wall_ms)                      # first and last time
    put64(out + 35, <uint64_t>wall_ms)
    memset(out + 43, 0xFF, 14)                              # no producer id, epoch and sequence
    put32(out + 57, count)


cdef void put_crc(uint8_t* out, uint32_t crc) noexcept:
    """Enter the checksum (CRC-32C) of everything from CRC_FROM on."""
    put32(out + 17, crc)
