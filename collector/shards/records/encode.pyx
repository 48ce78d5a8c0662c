"""One exchange -> one JSON record, in the outgoing batch.

The heads arrive here already as JSON text (they are written while their fields are at hand), so what is left is copying,
the two bodies, the times and the marks.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, strlen

from collector.abi cimport DIR_IN, SOURCE_GNUTLS, SOURCE_GO, SOURCE_NSS, SOURCE_OPENSSL, SOURCE_SYSCALL
from collector.shards.memory cimport buf_copy, buf_free, buf_reserve, buf_t
from collector.shards.names cimport library_name, process_entry, process_name
from collector.shards.packing cimport batch_add, batch_reserve, batch_t
from collector.shards.peers cimport peer_of
from collector.shards.records.bodies cimport put_body
from collector.shards.records.marks cimport put_marks, shown_t
from collector.shards.records.transcode cimport count_messages, put_json, WITHOUT_JSON
from collector.shards.records.text cimport (
    address_known, escape_json, put_address, put_hex, put_millis, put_text, put_u64, TEXT_LATIN1)
from collector.shards.http.message cimport (
    exchange_t, EX_LAST, EX_NUMBERED, EX_WEBSOCKET, MEDIA_CONNECT, MEDIA_GRPC, SAMPLE_BODILESS)
from collector.shards.http.noise cimport noise_name
from collector.shards.marks cimport *
from collector.shards.redaction.state cimport use_rules
from collector.shards.sampling.sampler cimport put_sampling, record_told
from collector.shards.state cimport *

cdef enum:
    # names, numbers, three addresses and the name of a process; what a library has told (47, 16 and 64 bytes), a byte of
    # which may become six
    CONSTANT_BYTES = 1024 + 6 * (47 + 16 + 64)
    SOURCES = 5

cdef const char* SOURCE_NAMES[5]        # by enum event_source: a library that has no name
SOURCE_NAMES[SOURCE_SYSCALL] = b""
SOURCE_NAMES[SOURCE_OPENSSL] = b"openssl"
SOURCE_NAMES[SOURCE_GNUTLS] = b"gnutls"
SOURCE_NAMES[SOURCE_NSS] = b"nss"
SOURCE_NAMES[SOURCE_GO] = b"go"


cdef inline char* put_ascii(char* out, const char* name, const char* text, size_t n) noexcept nogil:
    """A field that is only there when it is not empty; `name` with all that stands around it."""
    if n == 0:
        return out
    out = put_text(out, name)
    return escape_json(out, <const uint8_t*>text, <const uint8_t*>text + n, TEXT_LATIN1)


cdef char* put_version(char* out, uint32_t version) noexcept nogil:
    """TLS 1.x and SSL 3.0 by their names, anything else as the number in the protocol."""
    if version >> 4 == 0x30 and version & 15 <= 4:
        out = put_text(out, b"3.0" if version == 0x0300 else b"1.")
        return out if version == 0x0300 else put_u64(out, (version & 15) - 1)
    return put_hex(put_text(out, b"0x"), version)


cdef char* put_tls(char* out, ctx_t* ctx, const conn_t* conn) noexcept nogil:
    """What is known of the TLS that the plaintext was taken at. The last text is left open."""
    cdef const tls_t* tls = conn.tls
    cdef const char* library
    if not conn.flags & CONN_TLS:
        return put_text(out, b'","tls":"false')
    out = put_text(out, b'","tls":"true')
    library = library_name(ctx, tls.library if tls != NULL else 0)
    if library[0] == 0:
        library = SOURCE_NAMES[conn.source if conn.source < SOURCES else 0]
    out = put_ascii(out, b'","tlsLibrary":"', library, strlen(library))
    if tls != NULL:
        if tls.version:
            out = put_version(put_text(out, b'","tlsVersion":"'), tls.version)
        out = put_ascii(out, b'","alpn":"', tls.text, tls.alpn_len)
        out = put_ascii(out, b'","sni":"', tls.text + tls.alpn_len, tls.sni_len)
    return out


cdef inline char* put_owner(char* out, const owner_t* owner) noexcept nogil:
    """Fields that were told. The last text is left open, as the one before was."""
    if owner == NULL or owner.len == 0:
        return out
    out = put_text(out, b'",')
    memcpy(out, owner.fields, owner.len)
    return out + owner.len - 1


cdef inline const char* protocol_of(const flow_t* flow, const exchange_t* ex) noexcept nogil:
    """What `protocol` is: that of the messages in the bodies, else that of the connection."""
    cdef uint8_t media = ex.req.media if ex.req.media >= MEDIA_GRPC else ex.resp.media
    if media < MEDIA_GRPC:
        return flow.layer.name
    return b"grpc" if media == MEDIA_GRPC else b"connect" if media == MEDIA_CONNECT else b"grpc-web"


cdef int build_constant(ctx_t* ctx, flow_t* flow, uint32_t tgid, const char* protocol) noexcept:
    """The fields that are the same for the records of a connection and process, once. 0, or -1 when memory is out."""
    cdef char* out
    cdef conn_t* conn = flow.conn
    cdef const char* comm = process_name(ctx, tgid)
    cdef const name_t* entry = process_entry(ctx, tgid)
    cdef size_t n = 0
    cdef const owner_t* owner = entry.owner if entry != NULL else NULL
    cdef const owner_t* peer = peer_of(ctx, conn)
    if comm[0] or conn.constant_tgid != tgid:       # a name that had to give way is still known here
        memcpy(conn.comm, comm, 16)
    comm = conn.comm
    cdef bint client = conn.dir_request != DIR_IN
    buf_free(&ctx.pool, &conn.constant)
    ctx.scratch.len = 0
    if buf_reserve(&ctx.batch.pool, &ctx.scratch, CONSTANT_BYTES + (owner.len if owner != NULL else 0)
                   + (peer.len if peer != NULL else 0)) < 0:
        return -1
    out = ctx.scratch.data
    out = put_text(out, b',"ip":"')
    if client:
        out = put_address(out, conn.local, conn.local_port)
        out = put_text(out, b'","destIp":"')
        out = put_address(out, conn.remote, conn.remote_port)
        out = put_text(out, b'","direction":"2')
    else:
        out = put_address(out, conn.remote, conn.remote_port)
        out = put_text(out, b'","destIp":"')
        out = put_address(out, conn.local, conn.local_port)
        out = put_text(out, b'","direction":"1')
    if conn.client_source == CLIENT_PROXY_V1 or conn.client_source == CLIENT_PROXY_V2:
        out = put_text(out, b'","clientIp":"')
        out = put_address(out, conn.client, conn.client_port)
        out = put_text(out, b'","clientSource":"proxy_v1' if conn.client_source == CLIENT_PROXY_V1 else
                       b'","clientSource":"proxy_v2')
    out = put_text(out, b'","process_id":"')
    out = put_u64(out, tgid)
    out = put_text(out, b'","socket_id":"')
    if conn.fd >= 0:
        out = put_u64(out, <uint64_t>conn.fd)
    out = put_text(out, b'","process_name":"')
    while n < 16 and comm[n]:
        n += 1
    out = escape_json(out, <const uint8_t*>comm, <const uint8_t*>comm + n, TEXT_LATIN1)
    out = put_owner(put_owner(out, owner), peer)
    out = put_text(out, b'","daemonset_id":"')
    memcpy(out, ctx.daemonset, ctx.daemonset_len)
    out += ctx.daemonset_len
    out = put_text(out, b'","akto_account_id":"1000000","akto_vxlan_id":"0","is_pending":"false","source":"MIRRORING"')
    out = put_text(out, b',"enable_graph":"true","protocol":"')
    out = put_text(out, protocol)
    out = put_tls(out, ctx, conn)
    out = put_text(out, b'"')
    if buf_copy(&ctx.pool, &conn.constant, ctx.scratch.data, <size_t>(out - ctx.scratch.data)) < 0:
        return -1       # there is one for each connection
    conn.constant_tgid = tgid
    conn.constant_names = ctx.names_version
    conn.constant_protocol = protocol
    return 0


cdef int put_events(batch_t* batch, const exchange_t* ex) noexcept:
    """The messages of a WebSocket, a JSON array without its end, as text; none of them where sampling leaves bodies out.
    0, or -1 when memory is out."""
    cdef char* out
    cdef const buf_t* events = ex.events
    cdef uint32_t n = 1 if ex.sampling & SAMPLE_BODILESS else events.len
    if batch_reserve(batch, <size_t>n * 6 + 64) < 0:
        return -1
    out = put_text(batch.records.data + batch.records.len, b',"events":"')
    out = escape_json(out, <const uint8_t*>events.data, <const uint8_t*>events.data + n, TEXT_LATIN1)
    out = put_text(out, b']"')
    batch.records.len = <uint32_t>(out - batch.records.data)
    return 0


cdef int encode_once(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t end_ns, size_t limit) noexcept:
    """Append the record without its newline, and add to ex.marks what was found. 0, or -1 when memory is out."""
    cdef uint32_t marks = ex.marks
    cdef uint64_t start_wall
    cdef shown_t req_shown, resp_shown
    cdef char* out
    cdef conn_t* conn = flow.conn
    cdef batch_t* batch = ctx.batch
    ctx.redacted = ex.redacted
    if ctx.redaction != NULL:
        use_rules(ctx.redaction, ex.redaction_rules, ex.redaction_version)
    if batch_reserve(batch, <size_t>ex.req.head.len + 64) < 0:
        return -1
    batch.records.data[batch.records.len] = c'{'
    memcpy(batch.records.data + batch.records.len + 1, ex.req.head.data, ex.req.head.len)
    batch.records.len += ex.req.head.len + 1
    if put_body(ctx, conn, &ex.req, True, &marks, &req_shown, limit, end_ns) < 0:
        return -1
    if ctx.transcodes and put_json(ctx, conn, ex, True, limit, end_ns) < 0:
        return -1
    if batch_reserve(batch, <size_t>ex.resp.head.len + 128) < 0:
        return -1
    out = batch.records.data + batch.records.len
    if ex.resp.head.len:
        memcpy(out, ex.resp.head.data, ex.resp.head.len)
        out += ex.resp.head.len
    else:
        out = put_text(out, b',"status":"","statusCode":"0","responseHeaders":"{}"')
    batch.records.len = <uint32_t>(out - batch.records.data)
    if put_body(ctx, conn, &ex.resp, False, &marks, &resp_shown, limit, end_ns) < 0:
        return -1
    if ctx.transcodes and put_json(ctx, conn, ex, False, limit, end_ns) < 0:
        return -1
    if ex.events != NULL and put_events(batch, ex) < 0:
        return -1
    if batch_reserve(batch, <size_t>conn.constant.len + 3300) < 0:
        return -1
    out = batch.records.data + batch.records.len
    memcpy(out, conn.constant.data, conn.constant.len)
    out += conn.constant.len
    start_wall = ex.req.first_ns + <uint64_t>ctx.wall_offset_ns     # modulo 2**64: times in a damaged span may be any
    out = put_text(out, b',"time":"')
    out = put_u64(out, start_wall // 1000000000)
    out = put_text(out, b'","startTimeMs":"')
    out = put_u64(out, start_wall // 1000000)
    out = put_text(out, b'","firstByteMs":"')
    if ex.resp.started and ex.resp.first_ns >= ex.req.first_ns:
        out = put_millis(out, ex.resp.first_ns - ex.req.first_ns)
    out = put_text(out, b'","durationMs":"')
    out = put_millis(out, end_ns - ex.req.first_ns if end_ns > ex.req.first_ns else 0)
    out = put_text(out, b'","requestSize":"')
    out = put_u64(out, ex.req.size - ex.req.told)
    out = put_text(out, b'","responseSize":"')
    out = put_u64(out, ex.resp.size - ex.resp.told)
    if ex.client_source == CLIENT_HEADER:
        out = put_text(out, b'","clientIp":"')
        out = put_address(out, ex.client, ex.client_port)
        out = put_text(out, b'","clientSource":"')
        out = escape_json(out, <const uint8_t*>ctx.real_ip_name, <const uint8_t*>ctx.real_ip_name + ctx.real_ip_len,
                          TEXT_LATIN1)
    out = put_text(out, b'","recordId":"')
    memcpy(out, ctx.prefix, ctx.prefix_len)
    out += ctx.prefix_len
    out = put_hex(out, conn.id)
    if conn.source:         # positions of a library's plaintext are not those of the socket, which may have the same number
        out[0] = c'-'
        out[1] = c's'
        out = put_hex(out + 2, conn.source)
    out[0] = c'-'
    if ex.flags & EX_NUMBERED:
        out[1] = c'h'
        out += 1
    out = put_hex(out + 1, ex.pos)
    if ex.part:
        out = put_u64(put_text(out, b'-p'), ex.part)
        out = put_u64(put_text(out, b'","part":"'), ex.part)
        out = put_text(out, b'","lastPart":"true' if ex.flags & EX_LAST else b'","lastPart":"false')
    if ctx.redacted:
        out = put_u64(put_text(out, b'","redacted":"'), ctx.redacted)
    if ex.noise:
        out = put_text(put_text(out, b'","noise":"'), noise_name(ex.noise))
    if ex.flags & EX_WEBSOCKET:
        out = put_text(out, b'","connection_type":"WEBSOCKET')
    if ctx.sampler != NULL:
        out = put_sampling(out, ctx, ex)
    if marks == 0:
        out = put_text(out, b'","marks":"[]"}')
    else:
        ex.marks = marks
        out = put_text(out, b'","marks":"')
        out = put_marks(out, ex, flow.layer.reasons, &req_shown, &resp_shown)
        out = put_text(out, b'"}')
    batch.records.len = <uint32_t>(out - batch.records.data)
    return 0


cdef inline void count_bodies(ctx_t* ctx, uint32_t marks) noexcept nogil:
    ctx.counters[C_UNDECODED] += (marks & MARK_REQUEST_UNDECODED != 0) + (marks & MARK_RESPONSE_UNDECODED != 0)
    ctx.counters[C_REFUSED_BODIES] += (marks & MARK_REQUEST_REFUSED != 0) + (marks & MARK_RESPONSE_REFUSED != 0)


cdef inline void count_owner(ctx_t* ctx, uint32_t tgid) noexcept nogil:
    cdef const name_t* entry = process_entry(ctx, tgid)
    if entry != NULL and entry.pending_ns != 0:     # unless the kubelet's files have named it
        ctx.counters[C_OWNER_UNKNOWN] += (entry.owner == NULL or entry.owner.len < 11
                                          or memcmp(entry.owner.fields, b'"namespace"', 11) != 0)


cdef void emit_record(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t end_ns) noexcept:
    """Put the record of `ex` into the outgoing batch. A record that would pass ctx.record_bytes is written again
    with shorter bodies (marked); one that is still too long is counted and left out.
    """
    cdef conn_t* conn = flow.conn
    cdef batch_t* batch = ctx.batch
    cdef uint32_t start = batch.records.len
    cdef size_t limit = 0xFFFFFFFF
    cdef uint32_t before
    cdef const char* protocol = protocol_of(flow, ex)
    if ctx.output_limit and ctx.output_used >= ctx.output_limit:
        ctx.counters[C_BANDWIDTH] += 1
        return
    if start > batch.most:
        # much at once - a timer, an exit, a close - whose bodies, decoded, could be a thousand times what was held
        limit = 0
    if ((conn.constant.len == 0 or conn.constant_tgid != ex.tgid or conn.constant_names != ctx.names_version
            or conn.constant_protocol != protocol)
            and build_constant(ctx, flow, ex.tgid, protocol) < 0):
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        return
    if not (address_known(conn.local) and address_known(conn.remote)):
        ex.marks |= MARK_PEER_UNKNOWN
    before = ex.marks
    while True:
        ex.marks = before
        if encode_once(ctx, flow, ex, end_ns, limit) < 0:
            batch.records.len = start
            ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
            return
        if batch.records.len - start + ex.details.len < ctx.record_bytes:
            break
        batch.records.len = start
        if limit == 0:
            ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
            return
        if limit == 0xFFFFFFFF and ctx.json_there:
            limit = WITHOUT_JSON
            continue
        if limit >= WITHOUT_JSON:
            limit = ctx.body_bytes
        limit = limit // 2 if limit > 2048 else 0
    if batch_add(batch, start, end_ns, conn.id, ex.pos, &ex.details) < 0:
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        return
    if ctx.transcodes:
        count_messages(ctx)
    if ctx.sampler != NULL:
        record_told(ctx, ex)
    ctx.counters[C_RECORDS] += 1
    if ctx.pending_owners:
        count_owner(ctx, ex.tgid)
    ctx.counters[C_REDACTED] += ctx.redacted
    ctx.counters[C_RECORD_BYTES] += batch.records.len - start
    ctx.output_used += batch.records.len - start
    if ex.marks:
        ctx.counters[C_RECORDS_MARKED] += 1
        ctx.counters[C_PEER_UNKNOWN] += (
            ex.marks & MARK_PEER_UNKNOWN != 0 and conn.source != SOURCE_SYSCALL and conn.fd < 0)
        count_bodies(ctx, ex.marks)
