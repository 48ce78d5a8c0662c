"""Conversations of protocols that are no HTTP, both ends, byte for byte as programs send them: nothing may come of these.

Each is a list of (client, bytes), one call each. Texts and numbers in them are of this file; layouts are those of each
protocol's own specification, which the function names.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import struct
from collections.abc import Callable

Said = list[tuple[bool, bytes]]
CLIENT, SERVER = True, False
HTTP = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"  # what a value, a message or a row may hold


def _sized(form: str, data: bytes) -> bytes:
    return struct.pack(form, len(data)) + data


def redis(value: bytes = b"a value") -> Said:
    """RESP2 and RESP3: commands in arrays, pipelined ones, a subscription."""

    def command(*words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

    return [
        (CLIENT, command(b"HELLO", b"3")),
        (SERVER, b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"),
        (CLIENT, command(b"SET", b"key", value)),
        (SERVER, b"+OK\r\n"),
        (CLIENT, command(b"GET", b"key") + command(b"INCR", b"n")),
        (SERVER, b"$%d\r\n%s\r\n:1\r\n" % (len(value), value)),
        (CLIENT, command(b"GET", b"none")),
        (SERVER, b"_\r\n"),
        (CLIENT, command(b"SUBSCRIBE", b"news")),
        (SERVER, b">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"),
        (SERVER, b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n" + b"$%d\r\n%s\r\n" % (len(value), value)),
    ]


def redis_inline(value: bytes = b"value") -> Said:
    """Commands as a person types them, which begin like a request."""
    return [
        (CLIENT, b"PING\r\n"),
        (SERVER, b"+PONG\r\n"),
        (CLIENT, b"GET key\r\n"),
        (SERVER, b"$%d\r\n%s\r\n" % (len(value), value)),
        (CLIENT, b"SET key value\r\nGET /key\r\n"),
        (SERVER, b"+OK\r\n$-1\r\n"),
    ]


def postgres(value: bytes = b"Ada") -> Said:
    """Protocol 3.0: no TLS, start, a password, a query, a prepared statement, a copy."""

    def message(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack(">I", len(data) + 4) + data

    start = struct.pack(">I", 196608) + b"user\0app\0database\0app\0\0"
    row = struct.pack(">H", 1) + _sized(">I", value)
    columns = struct.pack(">H", 1) + b"name\0" + struct.pack(">IHIhih", 16384, 1, 25, -1, -1, 0)
    return [
        (CLIENT, struct.pack(">II", 8, 80877103)),
        (SERVER, b"N"),
        (CLIENT, struct.pack(">I", len(start) + 4) + start),
        (SERVER, message(b"R", struct.pack(">I", 5) + b"salt")),
        (CLIENT, message(b"p", b"md5" + b"0" * 32 + b"\0")),
        (SERVER, message(b"R", b"\0\0\0\0") + message(b"S", b"server_version\x0015.18\0") + message(b"Z", b"I")),
        (CLIENT, message(b"Q", b"SELECT name FROM people\0")),
        (SERVER, message(b"T", columns) + message(b"D", row) + message(b"C", b"SELECT 1\0") + message(b"Z", b"I")),
        (CLIENT, message(b"P", b"\0INSERT INTO people VALUES ($1)\0\0\0") + message(
            b"B", b"\0\0\0\0" + struct.pack(">H", 1) + _sized(">I", value) + b"\0\0") + message(b"S", b"")),
        (SERVER, message(b"1", b"") + message(b"2", b"") + message(b"C", b"INSERT 0 1\0") + message(b"Z", b"I")),
        (CLIENT, message(b"d", value + b"\n") + message(b"c", b"")),
        (CLIENT, message(b"X", b"")),
    ]  # fmt: skip


def mysql(value: bytes = b"Ada") -> Said:
    """Client/server protocol 4.1: the server begins."""

    def packet(number: int, data: bytes) -> bytes:
        return len(data).to_bytes(3, "little") + bytes([number]) + data

    greeting = (
        b"\x0a8.0.36\0" + struct.pack("<I", 8) + b"abcdefgh\0\xff\xf7\xff\x02\0\xff\xdf\x15" + bytes(10) + b"ijklmnopqrst\0"
    )
    login = struct.pack("<IIB", 0x3FA685, 1 << 24, 255) + bytes(23) + b"app\0\x14" + bytes(range(20)) + b"app\0"
    column = b"\x03def\x03app\x06people\x06people\x04name\x04name\x0c\xff\0\x80\0\0\0\xfd\0\0\0\0\0"
    row = bytes([len(value)]) + value
    return [
        (SERVER, packet(0, greeting + b"caching_sha2_password\0")),
        (CLIENT, packet(1, login + b"caching_sha2_password\0")),
        (SERVER, packet(2, b"\x01\x03") + packet(3, b"\0\0\0\x02\0\0\0")),
        (CLIENT, packet(0, b"\x03SELECT name FROM people")),
        (SERVER, packet(1, b"\x01") + packet(2, column) + packet(3, row) + packet(4, b"\xfe\0\0\x02\0\0\0")),
        (CLIENT, packet(0, b"\x03INSERT INTO people VALUES ('%s')" % value)),
        (SERVER, packet(1, b"\0\x01\0\x02\0\0\0")),
        (CLIENT, packet(0, b"\x01")),
    ]


def mongodb(value: bytes = b"Ada") -> Said:
    """The wire protocol: OP_MSG with documents in BSON."""

    def document(*items: bytes) -> bytes:
        data = b"".join(items) + b"\0"
        return struct.pack("<i", len(data) + 4) + data

    def text(name: bytes, content: bytes) -> bytes:
        return b"\x02" + name + b"\0" + struct.pack("<i", len(content) + 1) + content + b"\0"

    def op_msg(number: int, answers: int, body: bytes) -> bytes:
        data = struct.pack("<I", 0) + b"\0" + body
        return struct.pack("<iiii", len(data) + 16, number, answers, 2013) + data

    ok = b"\x01ok\0" + struct.pack("<d", 1)
    return [
        (CLIENT, op_msg(1, 0, document(b"\x10hello\0\1\0\0\0", text(b"$db", b"admin")))),
        (SERVER, op_msg(9, 1, document(b"\x08isWritablePrimary\0\1", b"\x10maxWireVersion\0\x15\0\0\0", ok))),
        (CLIENT, op_msg(2, 0, document(text(b"insert", b"people"), text(b"name", value), text(b"$db", b"app")))),
        (SERVER, op_msg(10, 2, document(b"\x10n\0\1\0\0\0", ok))),
        (CLIENT, op_msg(3, 0, document(text(b"find", b"people"), text(b"$db", b"app")))),
        (SERVER, op_msg(11, 3, document(text(b"name", value), ok))),
    ]


def kafka(value: bytes = b"an event") -> Said:
    """ApiVersions, Metadata, Produce and Fetch, with record batches of version 2."""

    def request(api: int, version: int, number: int, data: bytes) -> bytes:
        return _sized(">i", struct.pack(">hhi", api, version, number) + _sized(">h", b"producer-1") + data)

    record = b"\0\0\0\1" + bytes([2 * len(value)]) + value + b"\0"
    batch = struct.pack(">qiibIhiqqqhii", 0, 49 + len(record) + 1, 0, 2, 0x1234ABCD, 0, 0, 1, 1, -1, -1, -1, 1)
    batch += bytes([2 * len(record)]) + record
    topic = struct.pack(">i", 1) + _sized(">h", b"events") + struct.pack(">ii", 1, 0)
    return [
        (CLIENT, request(18, 0, 1, b"")),
        (SERVER, _sized(">i", struct.pack(">ihi", 1, 0, 2) + struct.pack(">hhhhhh", 0, 0, 9, 3, 0, 12))),
        (CLIENT, request(3, 1, 2, struct.pack(">i", 1) + _sized(">h", b"events"))),
        (SERVER, _sized(">i", struct.pack(">iii", 2, 1, 0) + _sized(">h", b"broker-0") + struct.pack(">i", 9092))),
        (CLIENT, request(0, 3, 3, struct.pack(">hhi", -1, 1, 30000) + topic + _sized(">i", batch))),
        (SERVER, _sized(">i", struct.pack(">i", 3) + topic + struct.pack(">hqqi", 0, 0, -1, 0))),
        (
            CLIENT,
            request(1, 4, 4, struct.pack(">iiii", -1, 500, 1, 1 << 20) + b"\0" + topic + struct.pack(">qi", 0, 1 << 20)),
        ),
        (SERVER, _sized(">i", struct.pack(">ii", 4, 0) + topic + struct.pack(">hqq", 0, 1, 1) + _sized(">i", batch))),
    ]


def dns(value: bytes = b"v=1") -> Said:
    """RFC 1035 over TCP (section 4.2.2): two bytes of length."""
    question = b"\x01a\x07example\0" + struct.pack(">HH", 16, 1)
    answer = b"\xc0\x0c" + struct.pack(">HHI", 16, 1, 300) + _sized(">H", bytes([len(value)]) + value)
    asks = _sized(">H", struct.pack(">HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + question)
    says = _sized(">H", struct.pack(">HHHHHH", 0x1234, 0x8180, 1, 1, 0, 0) + question + answer)
    return [(CLIENT, asks), (SERVER, says), (CLIENT, asks[:2]), (CLIENT, asks[2:]), (SERVER, says)]


def ssh(value: bytes = b"") -> Said:
    """RFC 4253: versions, lists of algorithms, then bytes that look random."""
    names = b"".join(
        _sized(">I", n) for n in (b"curve25519-sha256", b"ssh-ed25519", b"aes128-ctr", b"hmac-sha2-256", b"none")
    )
    exchange = b"\x14" + bytes(range(16)) + names + bytes(5)
    packet = struct.pack(">IB", len(exchange) + 9, 8) + exchange + bytes(8)
    secret = random.Random(1).randbytes(400)
    return [
        (SERVER, b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
        (CLIENT, b"SSH-2.0-OpenSSH_9.2\r\n"),
        (CLIENT, packet),
        (SERVER, packet),
        (CLIENT, secret[:200] + value),
        (SERVER, secret[200:]),
    ]


def smtp(value: bytes = b"Hello,\r\n") -> Said:
    """RFC 5321: a message with a header section like that of HTTP."""
    return [
        (SERVER, b"220 mx.example ESMTP Postfix\r\n"),
        (CLIENT, b"EHLO client.example\r\n"),
        (SERVER, b"250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"),
        (CLIENT, b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"),
        (SERVER, b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"),
        (CLIENT, b"Subject: news\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\n" + value + b"\r\n.\r\n"),
        (SERVER, b"250 2.0.0 Ok: queued as 4F\r\n"),
        (CLIENT, b"QUIT\r\n"),
        (SERVER, b"221 2.0.0 Bye\r\n"),
    ]


def imap(value: bytes = b"Hello") -> Said:
    """RFC 9051."""
    return [
        (SERVER, b"* OK [CAPABILITY IMAP4rev1] ready\r\n"),
        (CLIENT, b"a1 LOGIN ada secret\r\n"),
        (SERVER, b"a1 OK done\r\n"),
        (CLIENT, b"a2 FETCH 1 BODY[]\r\n"),
        (SERVER, b"* 1 FETCH (BODY[] {%d}\r\n%s)\r\na2 OK done\r\n" % (len(value), value)),
        (CLIENT, b"a3 APPEND saved {%d}\r\n" % len(value)),
        (SERVER, b"+ go ahead\r\n"),
        (CLIENT, value + b"\r\n"),
    ]


def pop3(value: bytes = b"Hello") -> Said:
    """RFC 1939."""
    return [
        (SERVER, b"+OK ready\r\n"),
        (CLIENT, b"USER ada\r\n"),
        (SERVER, b"+OK\r\n"),
        (CLIENT, b"RETR 1\r\n"),
        (SERVER, b"+OK\r\nSubject: x\r\n\r\n" + value + b"\r\n.\r\n"),
    ]


def ftp(value: bytes = b"file.txt") -> Said:
    """RFC 959: some commands are words of HTTP."""
    return [
        (SERVER, b"220 ready\r\n"),
        (CLIENT, b"USER ada\r\n"),
        (SERVER, b"331 password\r\n"),
        (CLIENT, b"OPTS UTF8 ON\r\n"),
        (SERVER, b"200 UTF8 set\r\n"),
        (CLIENT, b"DELE " + value.split(b"\r")[0] + b"\r\n"),
        (SERVER, b"250 gone\r\n"),
    ]


def nntp(value: bytes = b"an article") -> Said:
    """RFC 3977: HEAD and POST are commands."""
    return [
        (SERVER, b"200 news.example ready\r\n"),
        (CLIENT, b"GROUP misc.test\r\n"),
        (SERVER, b"211 1 1 1 misc.test\r\n"),
        (CLIENT, b"HEAD 1\r\n"),
        (SERVER, b"221 1 <a@b>\r\nSubject: x\r\n.\r\n"),
        (CLIENT, b"POST\r\n"),
        (SERVER, b"340 send it\r\n"),
        (CLIENT, b"Subject: x\r\n\r\n" + value + b"\r\n.\r\n"),
    ]


def amqp(value: bytes = b"a message") -> Said:
    """AMQP 0-9-1: a header, then frames."""

    def method(channel: int, ids: tuple[int, int], data: bytes = b"") -> bytes:
        body = struct.pack(">HH", *ids) + data
        return struct.pack(">BHI", 1, channel, len(body)) + body + b"\xce"

    content = struct.pack(">BHI", 2, 1, 14) + struct.pack(">HHQH", 60, 0, len(value), 0) + b"\xce"
    content += struct.pack(">BHI", 3, 1, len(value)) + value + b"\xce"
    return [
        (CLIENT, b"AMQP\0\0\x09\x01"),
        (SERVER, method(0, (10, 10), b"\0\x09" + struct.pack(">I", 0) + _sized(">I", b"PLAIN") + _sized(">I", b"en_US"))),
        (CLIENT, method(0, (10, 11), struct.pack(">I", 0) + b"\x05PLAIN" + _sized(">I", b"\0guest\0guest") + b"\x05en_US")),
        (SERVER, method(0, (10, 30), struct.pack(">HIH", 2047, 131072, 60))),
        (CLIENT, method(0, (10, 31), struct.pack(">HIH", 2047, 131072, 60)) + method(0, (10, 40), b"\x01/\0\0")),
        (SERVER, method(0, (10, 41), b"\0")),
        (CLIENT, method(1, (60, 40), b"\0\0\0\x05queue\0") + content),
        (SERVER, method(1, (60, 60), b"\x01c" + struct.pack(">QB", 1, 0) + b"\0\x05queue") + content),
        (CLIENT, struct.pack(">BHI", 8, 0, 0) + b"\xce"),
    ]


def mqtt(value: bytes = b"21.5") -> Said:
    """MQTT 3.1.1."""

    def packet(kind: int, data: bytes) -> bytes:
        return bytes([kind, len(data)]) + data

    topic = _sized(">H", b"home/temperature")
    return [
        (CLIENT, packet(0x10, _sized(">H", b"MQTT") + b"\x04\x02\0\x3c" + _sized(">H", b"sensor-1"))),
        (SERVER, packet(0x20, b"\0\0")),
        (CLIENT, packet(0x82, b"\0\x01" + topic + b"\x01")),
        (SERVER, packet(0x90, b"\0\x01\x01")),
        (CLIENT, packet(0x32, topic + b"\0\x02" + value)),
        (SERVER, packet(0x40, b"\0\x02")),
        (SERVER, packet(0x30, topic + value)),
        (CLIENT, b"\xc0\0"),
        (SERVER, b"\xd0\0"),
    ]


def cassandra(value: bytes = b"Ada") -> Said:
    """CQL binary protocol, version 4."""

    def frame(kind: int, stream: int, opcode: int, data: bytes) -> bytes:
        return struct.pack(">BBhB", kind, 0, stream, opcode) + _sized(">I", data)

    rows = struct.pack(">IIII", 2, 1, 1, 0) + _sized(">H", b"app") + struct.pack(">I", 1) + _sized(">I", value)
    return [
        (CLIENT, frame(4, 0, 5, b"")),
        (SERVER, frame(0x84, 0, 6, struct.pack(">H", 0))),
        (CLIENT, frame(4, 1, 1, struct.pack(">H", 1) + _sized(">H", b"CQL_VERSION") + _sized(">H", b"3.4.4"))),
        (SERVER, frame(0x84, 1, 2, b"")),
        (CLIENT, frame(4, 2, 7, _sized(">I", b"INSERT INTO people (name) VALUES ('%s')" % value) + b"\0\x01\0")),
        (SERVER, frame(0x84, 2, 8, struct.pack(">I", 1))),
        (CLIENT, frame(4, 3, 7, _sized(">I", b"SELECT name FROM people") + b"\0\x01\0")),
        (SERVER, frame(0x84, 3, 8, rows)),
    ]


def memcached(value: bytes = b"a value") -> Said:
    """The text protocol, then the binary one."""

    def binary(magic: int, opcode: int, key: bytes, extra: bytes, data: bytes) -> bytes:
        whole = len(extra) + len(key) + len(data)
        return struct.pack(">BBHBBHIIQ", magic, opcode, len(key), len(extra), 0, 0, whole, 7, 0) + extra + key + data

    return [
        (CLIENT, b"set key 0 0 %d\r\n%s\r\n" % (len(value), value)),
        (SERVER, b"STORED\r\n"),
        (CLIENT, b"get key\r\n"),
        (SERVER, b"VALUE key 0 %d\r\n%s\r\nEND\r\n" % (len(value), value)),
        (CLIENT, binary(0x80, 1, b"key", bytes(8), value)),
        (SERVER, binary(0x81, 1, b"", b"", b"")),
        (CLIENT, binary(0x80, 0, b"key", b"", b"")),
        (SERVER, binary(0x81, 0, b"", bytes(4), value)),
    ]


def ldap(value: bytes = b"cn=ada") -> Said:
    """RFC 4511, in BER."""

    def item(tag: int, data: bytes) -> bytes:
        return bytes([tag, len(data)]) + data

    bind = item(0x60, item(2, b"\x03") + item(4, value) + item(0x80, b"secret"))
    return [
        (CLIENT, item(0x30, item(2, b"\x01") + bind)),
        (SERVER, item(0x30, item(2, b"\x01") + item(0x61, b"\x0a\x01\0\x04\0\x04\0"))),
        (CLIENT, item(0x30, item(2, b"\x02") + item(0x4A, value))),
    ]


def nats(value: bytes = b"hello") -> Said:
    """Text; CONNECT is the client's first word."""
    return [
        (SERVER, b'INFO {"server_id":"N","version":"2.10.1","max_payload":1048576}\r\n'),
        (CLIENT, b'CONNECT {"verbose":false,"pedantic":false,"lang":"go"}\r\nPING\r\n'),
        (SERVER, b"PONG\r\n"),
        (CLIENT, b"SUB news 1\r\nPUB news %d\r\n%s\r\n" % (len(value), value)),
        (SERVER, b"MSG news 1 %d\r\n%s\r\n" % (len(value), value)),
    ]


def stomp(value: bytes = b"hello") -> Said:
    """STOMP 1.2: CONNECT, and header lines."""
    return [
        (CLIENT, b"CONNECT\naccept-version:1.2\nhost:a.example\n\n\0"),
        (SERVER, b"CONNECTED\nversion:1.2\n\n\0"),
        (CLIENT, b"SEND\ndestination:/queue/a\ncontent-type:text/plain\n\n" + value + b"\0"),
        (SERVER, b"MESSAGE\nsubscription:0\ndestination:/queue/a\n\n" + value + b"\0"),
    ]


def zookeeper(value: bytes = b"data") -> Said:
    """Jute records, each with four bytes of length."""
    return [
        (CLIENT, _sized(">i", struct.pack(">iqiq", 0, 0, 30000, 0) + _sized(">i", bytes(16)) + b"\0")),
        (SERVER, _sized(">i", struct.pack(">iiq", 0, 30000, 77) + _sized(">i", bytes(16)) + b"\0")),
        (CLIENT, _sized(">i", struct.pack(">ii", 1, 4) + _sized(">i", b"/brokers/ids/0") + b"\0")),
        (SERVER, _sized(">i", struct.pack(">iqi", 1, 5, 0) + _sized(">i", value) + bytes(68))),
    ]


def thrift(value: bytes = b"Ada") -> Said:
    """TBinaryProtocol in TFramedTransport."""
    call = struct.pack(">I", 0x80010001) + _sized(">I", b"getPerson") + struct.pack(">I", 1)
    reply = struct.pack(">I", 0x80010002) + _sized(">I", b"getPerson") + struct.pack(">I", 1)
    field = b"\x0b\0\x01" + _sized(">I", value) + b"\0"
    return [(CLIENT, _sized(">I", call + field)), (SERVER, _sized(">I", reply + field))] * 3


def websocket_frames(value: bytes = b"hello") -> Said:
    """RFC 6455, from behind the handshake on: a connection that is older than its observer."""
    masked = bytes(b ^ b"mask"[n % 4] for n, b in enumerate(value))
    return [
        (CLIENT, bytes([0x81, 0x80 | len(value)]) + b"mask" + masked),
        (SERVER, bytes([0x81, len(value)]) + value),
        (CLIENT, b"\x89\x80mask"),
        (SERVER, b"\x8a\0"),
    ]


def rtsp(value: bytes = b"") -> Said:
    """RFC 7826: like HTTP but for the version."""
    return [
        (CLIENT, b"OPTIONS rtsp://a.example/live RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        (SERVER, b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: DESCRIBE, PLAY\r\n\r\n"),
        (CLIENT, b"DESCRIBE rtsp://a.example/live RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\n\r\n"),
        (SERVER, b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: %d\r\n\r\n" % len(value) + value),
    ]


def sip(value: bytes = b"") -> Said:
    """RFC 3261 over TCP."""
    return [
        (CLIENT, b"REGISTER sip:a.example SIP/2.0\r\nVia: SIP/2.0/TCP b.example\r\nContent-Length: 0\r\n\r\n"),
        (SERVER, b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP b.example\r\nContent-Length: %d\r\n\r\n" % len(value) + value),
    ]


def tls(value: bytes = b"secret") -> Said:
    """Two ends of OpenSSL: a handshake of TLS 1.2, without certificates, and what they say, encrypted."""
    said: Said = []
    ends = []
    for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context, into, out = ssl.SSLContext(kind), ssl.MemoryBIO(), ssl.MemoryBIO()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
        ends.append((context.wrap_bio(into, out, server_side=kind == ssl.PROTOCOL_TLS_SERVER), into, out))

    def pump() -> None:
        for n, (_end, _into, out) in enumerate(ends):
            if data := out.read():
                said.append((n == 0, data))
                ends[1 - n][1].write(data)

    for _ in range(4):
        for end, _into, _out in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            pump()
    for n in range(6):
        ends[n % 2][0].write(HTTP + value)
        pump()
        assert ends[1 - n % 2][0].read(1 << 16) == HTTP + value
    return said


def noise(value: bytes = b"") -> Said:
    """Bytes of no protocol."""
    rng = random.Random(value)
    return [(rng.random() < 0.5, rng.randbytes(rng.randrange(1, 400))) for _ in range(12)]


PROTOCOLS: dict[str, Callable[[bytes], Said]] = {
    f.__name__: f
    for f in (
        redis, redis_inline, postgres, mysql, mongodb, kafka, dns, ssh, smtp, imap, pop3, ftp, nntp, amqp, mqtt, cassandra,
        memcached, ldap, nats, stomp, zookeeper, thrift, websocket_frames, rtsp, sip, tls, noise,
    )
}  # fmt: skip
