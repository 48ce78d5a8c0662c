"""What redaction goes by and works on, as C structs; filled in by redactor.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "redaction/scan.h" nogil:
    enum:
        SCAN_BYTES
        SCAN_MANY
    ctypedef struct scan_t:
        uint64_t forms
        uint64_t digits
        uint64_t gaps
        uint64_t ends
        uint64_t word
    ctypedef struct beginnings_t:
        uint8_t low[3][16]
        uint8_t high[3][16]
        uint8_t any[3][256]
    void scan_prepare(int most)
    unsigned scan_blocks(const beginnings_t* b, const uint8_t* p, size_t n, scan_t* out)
    uint64_t eighteen(uint64_t word)
    uint64_t numbers(const scan_t* s, unsigned before)
    uint64_t rows_of_digits(uint64_t digits, unsigned before)
    unsigned first_bit(uint64_t x)
    unsigned ones_below(uint64_t x)
    unsigned ones_above(uint64_t x)

cdef enum:  # mode
    MODE_OFF = 0
    MODE_SECRETS = 1
    MODE_STRICT = 2

cdef enum:
    NAMES = 8192            # places of the table; a power of two
    PREFIXES = 64
    KINDS = 256
    DEPTH = 3               # texts in texts in texts

cdef enum:  # name_flag
    NAME_WHOLE = 1          # this is the whole name
    NAME_ENDING = 2         # or the end of one
    NAME_APART = 4          # an ending that is a word of its own: short ones
    NAME_NOT = 8            # a whole name that is no secret, whatever it ends with
    NAME_PAIR = 16          # `name` or `key`: its value is the name of what stands beside it

cdef struct known_t:
    uint64_t hash           # 0: free
    uint16_t kind
    uint8_t flags

cdef struct prefix_t:       # a form: a beginning, and at least so many characters of a class behind it
    uint8_t text[12]
    uint8_t length
    uint8_t least
    uint16_t kind
    uint16_t bit            # of allowed

cdef struct redaction_t:
    uint8_t mode
    uint8_t keyed                   # values become keyed hashes
    uint8_t ruled                   # there are rules of its own
    uint16_t version                # of the policy
    uint16_t rules                  # number of those in force for what is being read (rules.py); 0: none
    uint64_t endings[256]           # bits of the hashes of four last bytes that a name may have
    uint64_t lengths                # bits: what is known may have so many letters
    known_t names[8192]
    beginnings_t beginnings
    prefix_t prefixes[64]
    uint8_t prefix_first[256]       # by first byte: where its prefixes begin, and how many there are
    uint8_t prefix_many[256]
    uint16_t allowed[256]           # of each byte: bits of the classes that it is in
    uint8_t ibans[676]              # length by country, 0: none
    uint8_t numbers[256]            # by kind: its values may be numbers
    uint8_t whole[256]              # by kind: all that is in an object or array of this name is secret
    const char* kind_text[256]      # by kind: `[redacted:KIND]` (borrowed from the Redactor)
    uint32_t kind_length[256]
    uint64_t kind_of[16]            # kinds of forms that are no prefixes (enum form)
    void* owner                     # the Redactor (borrowed)
    int64_t work                    # what the last text has cost beyond one look, in bytes of other texts
    uint8_t spent                   # nothing may be spent on those

cdef enum:  # form
    FORM_JWT = 0
    FORM_CARD
    FORM_IBAN
    FORM_PRIVATE_KEY
    FORM_BEARER
    FORM_BASIC
    FORM_URL
    FORM_TELEGRAM
    FORM_COOKIE
    FORM_AUTHORIZATION
    FORM_UNREAD         # a text inside another one, for which nothing is left to spend

cdef enum ruled_t:          # what rules are asked of
    RULED_FIELD
    RULED_TARGET
    RULED_FORM
    RULED_BODY

cdef struct edits_t:        # what becomes of a text
    const uint8_t* begin
    const uint8_t* end
    const uint8_t* text     # where `kept` counts from
    const uint32_t* kept    # begin and end, from `text` on, of what rules have settled; NULL: nothing
    uint32_t kept_many
    const uint8_t* done     # up to here it was copied
    char* data              # so far
    size_t len
    size_t cap
    uint32_t count          # of values replaced
    uint8_t failed          # memory is out
    uint8_t cut             # the text goes on behind its end
    uint8_t depth           # of texts that it is in
    uint8_t same_size       # replaced by as many bytes: it is no text

cdef enum:
    ALL_RULES = 1           # number of the set that has all rules


cdef inline void use_rules(redaction_t* r, uint16_t number, uint16_t version) noexcept nogil:
    """Those that were chosen for an exchange under a version of the policy; under another one, all that there are."""
    r.rules = 0 if not r.ruled else number if version == r.version else ALL_RULES
