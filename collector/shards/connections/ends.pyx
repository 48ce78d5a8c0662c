"""Which socket a connection is: its ends and its role, as they are told (EVENT_OPEN, EVENT_ADDRESS, EVENT_BIND), the source
whose bytes are read, and whether the filters that go by ports and role want it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from collector.abi cimport *
from collector.shards.connections.table cimport *
from collector.shards.layers.stack cimport flow_close, flow_rejoin
from collector.shards.memory cimport buf_free
from collector.shards.names cimport process_unselected
from collector.shards.state cimport *
from collector.shards.unwanted cimport withdraw

cdef enum:
    AF_UNIX = 1


cdef void learn_role(ctx_t* ctx, conn_t* conn, uint8_t role) noexcept:
    """Who accepted and who connected is known, if `role` says so: what had been guessed from bytes of a body is over."""
    cdef uint8_t d = DIR_IN if role == ROLE_SERVER else DIR_OUT
    if role == ROLE_UNKNOWN:
        return
    conn.role = role
    if conn.dir_request != DIR_UNKNOWN and conn.dir_request != d:
        flow_rejoin(ctx, &conn.flow, 0)
        conn.dir_request = d


cdef inline void set_ends(conn_t* conn, const uint8_t* local, const uint8_t* remote, uint16_t local_port,
                          uint16_t remote_port) noexcept:
    memcpy(conn.local, local, 16)
    memcpy(conn.remote, remote, 16)
    conn.local_port = local_port
    conn.remote_port = remote_port


cdef void choose(ctx_t* ctx, conn_t* conn) noexcept:
    """The filters that look at ports and role: of a new connection, or when they are learnt."""
    cdef uint16_t server_port
    cdef uint32_t i
    cdef bint was_ignored = conn.flags & CONN_IGNORED
    if process_unselected(ctx, conn.tgid):
        ctx.counters[C_UNSELECTED] += not was_ignored
        ignore(ctx, conn)
        return
    # a connection is chosen by either of its ports; one whose ports are not known yet is not, unless they are awaited
    if (ctx.any_chosen and not (ctx.port_rule[conn.local_port] | ctx.port_rule[conn.remote_port]) & PORT_CHOSEN
            and (socket_known(conn) or not conn.holds & HOLD_PEER)):
        ignore(ctx, conn)
        return
    if ctx.disable_egress and conn.role == ROLE_CLIENT:
        ctx.counters[C_FILTERED_EGRESS] += not was_ignored
        ignore(ctx, conn)
        return
    if ctx.any_ignored:
        server_port = conn.remote_port if conn.role == ROLE_CLIENT else conn.local_port
        if server_port and ctx.port_rule[server_port] & PORT_IGNORED:
            ctx.counters[C_FILTERED_PORT] += not was_ignored
            ignore(ctx, conn)
            return
    if was_ignored and not conn.left_out:
        conn.flags &= ~CONN_IGNORED & 0xFF
        conn.flags |= CONN_JOINED
        withdraw(ctx, conn)
        for i in range(2):
            conn.stream[i].known = 0


cdef void change_source(ctx_t* ctx, conn_t* conn, uint8_t source) noexcept:
    """From here on the plaintext of a library is captured: what was read of the socket is over, and new positions count.
    What a preamble of the PROXY protocol has claimed in front of the ciphertext stays."""
    cdef uint32_t i
    flow_close(ctx, &conn.flow, 0)
    conn.flow.passed = 0
    withdraw(ctx, conn)
    buf_free(&ctx.pool, &conn.constant)
    conn.source = source
    conn.flags |= CONN_TLS
    conn.holds = 0          # no library takes a file for a connection
    conn.owner_due_ns = 0
    conn.flags &= ~(CONN_OPENED | CONN_JOINED) & 0xFF
    for i in range(2):
        conn.stream[i].known = 0


cdef void told_ends(ctx_t* ctx, conn_t* conn, event_open* o) noexcept:
    """Ends, role and first positions are known."""
    cdef uint32_t i
    learn_role(ctx, conn, o.role)
    set_ends(conn, o.local, o.remote, o.local_port, o.remote_port)
    conn.unix_socket = o.family == AF_UNIX
    if o.h.source != SOURCE_SYSCALL and o.h.type == EVENT_OPEN and conn.source == SOURCE_SYSCALL:
        change_source(ctx, conn, o.h.source)
        if o.start == START_REJOIN:
            conn.flags |= CONN_JOINED
    if (o.h.type == EVENT_OPEN and o.start != START_REJOIN and not conn.flags & CONN_OPENED
            and not conn.stream[0].known and not conn.stream[1].known):
        conn.flags |= CONN_OPENED
        conn.flags &= ~CONN_JOINED & 0xFF       # this shard may have been told of it before it came to its beginning
        for i in range(2):
            conn.stream[i].known = 1
            conn.stream[i].pos = o.pos[i]
        if o.start != START_SEEN:
            conn.flags |= CONN_JOINED
            if o.start == START_UNCONFIRMED:
                conn.holds |= HOLD_SOCKET
    buf_free(&ctx.pool, &conn.constant)
    if o.h.type == EVENT_ADDRESS:
        table_release(ctx, conn, HOLD_SOCKET)
    choose(ctx, conn)
    if socket_known(conn) or o.h.fd >= 0:
        table_release(ctx, conn, HOLD_PEER)


cdef void told_socket(ctx_t* ctx, table_t* table, conn_t* conn, event_bind* b) noexcept:
    """The connection, which is an object of a TLS library, is that socket: both names are one connection from now on.
    What is known of the socket - its ends, its role - is known of it; bytes of the socket itself are ciphertext."""
    cdef conn_t* socket
    cdef size_t held
    if b.socket == 0 or b.socket == conn.id or conn.socket == b.socket or conn.source == SOURCE_SYSCALL:
        return
    socket = table_find(table, b.socket)
    if socket == conn:
        return
    if conn.socket:
        conn.client_source = CLIENT_NONE        # what was claimed in front of the socket that it was before
    if socket != NULL:
        if not conn.role:
            learn_role(ctx, conn, socket.role)
        if not socket_known(conn) and socket_known(socket):
            set_ends(conn, socket.local, socket.remote, socket.local_port, socket.remote_port)
        conn.client_source = socket.client_source       # a preamble stands in front of the ciphertext
        memcpy(conn.client, socket.client, 16)
        conn.client_port = socket.client_port
        if socket.socket == 0:
            held = ctx.pool.bytes - ctx.free_bytes
            table_close(ctx, table, socket, 0)
            conn.held += held - (ctx.pool.bytes - ctx.free_bytes)   # what it held was not this one's (account)
        else:
            table_bind(table, socket, 0)      # it was another object's: the newer one has it
    learn_role(ctx, conn, b.role)
    if b.local_port or b.remote_port:
        set_ends(conn, b.local, b.remote, b.local_port, b.remote_port)
    table_bind(table, conn, b.socket)
    if conn.fd < 0:
        conn.fd = b.h.fd
    conn.flags |= CONN_TLS
    buf_free(&ctx.pool, &conn.constant)
    choose(ctx, conn)
    table_release(ctx, conn, HOLD_PEER)


cdef void found_owner(ctx_t* ctx, table_t* t, uint32_t tgid) noexcept:
    """Who owns that process is known now, or whether anything of it is wanted."""
    cdef conn_t* c = table_group(t, tgid)
    cdef conn_t* following
    cdef size_t before
    while c != NULL:
        following = c.group_next
        if c.tgid == tgid:
            before = ctx.pool.bytes - ctx.free_bytes
            choose(ctx, c)
            table_release(ctx, c, HOLD_OWNER)
            c.held += ctx.pool.bytes - ctx.free_bytes - before
            if c.over:
                table_close(ctx, t, c, 0)
        c = following
