"""Kafka's RecordBatch, version 2; see kafka.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from collector.shards.packing cimport batch_entry_t

cdef enum:
    HEADER_BYTES = 61       # of a RecordBatch
    CRC_FROM = 21           # the checksum is that of everything from here on
    DETAILS_BYTES = 18
    KEY_BYTES = 16          # conn_id in hexadecimal
    RECORD_MOST = 5 + 1 + 1 + 5 + 1 + KEY_BYTES + 5 + 1 + 1 + DETAILS_BYTES + 5     # beside its value and details

cdef size_t framed_most(const batch_entry_t* entry) noexcept
cdef size_t frame(uint8_t* out, const batch_entry_t* entries, uint32_t count, const char* records,
                  const char* details, bint keys) noexcept
cdef void put_header(uint8_t* out, uint32_t records_bytes, uint16_t codec, uint32_t count, int64_t wall_ms) noexcept
cdef void put_crc(uint8_t* out, uint32_t crc) noexcept
