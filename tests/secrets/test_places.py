"""Places that secrets stand in: answers of well-known APIs, files of tools, what proxies and frameworks make of heads.
And what looks like such a place and is none.
"""

from __future__ import annotations

import json
import time

import pytest

from collector.policy.model import BUILTIN
from collector.shards.redaction.redactor import Redactor
from tests.secrets.documents import FORM, JSON, multipart
from tests.secrets.running import CLIENT, PLAIN_ANSWER, PLAIN_REQUEST, SERVER, answered, asked, written
from tests.secrets.test_shape import shape

KEY = "kV7mQ2xT9bLr4Wc8"
PARTS = "multipart/form-data; boundary=b"


BATCH = "--b\r\nContent-Type: application/http\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n--b--\r\n"


def body(text: str, media: str = JSON, policy: str = "secrets") -> str:
    """What becomes of a request's body."""
    _, (record,) = written([(CLIENT, asked(text.encode(), media)), (SERVER, PLAIN_ANSWER)], policy)
    shown: str = record["requestPayload"]
    return shown


def asking(field: str, policy: str = "secrets") -> dict[str, str]:
    _, (record,) = written([(CLIENT, asked(b"{}", JSON, field)), (SERVER, PLAIN_ANSWER)], policy)
    fields: dict[str, str] = json.loads(record["requestHeaders"])
    return fields


def answering(field: str, policy: str = "secrets") -> dict[str, str]:
    _, (record,) = written([(CLIENT, PLAIN_REQUEST), (SERVER, answered(b"{}", JSON, field))], policy)
    fields: dict[str, str] = json.loads(record["responseHeaders"])
    return fields


def part(fields: str) -> str:
    return multipart((fields, KEY), boundary="b")


BODIES: dict[str, tuple[str, str]] = {
    "json, many blanks before the value": (f'{{"password":{" " * 90}"{KEY}"}}', JSON),
    "json, many blanks before the colon": (f'{{"password"{" " * 90}:"{KEY}"}}', JSON),
    "json, a name with brackets": (f'{{"a": 1, "some name that is longer": 2, "login[password]": "{KEY}"}}', JSON),
    "json, objects in an array": (f'{{"password": [{{"v": "{KEY}"}}]}}', JSON),
    "json, an object of cookies": (f'{{"cookies": {{"theme": "{KEY}"}}}}', JSON),
    "json, escapes behind another secret": (f'{{"log": "token=abc1 https:\\/\\/ann:{KEY}@a.example\\/"}}', JSON),
    "ruby": (f':password=>"{KEY}", "id" => 1', "text/plain"),
    "ruby, quoted": (f'{{"token" => "{KEY}", "id" => 1}}', "text/plain"),
    "php": (f"['password' => '{KEY}', 'id' => 1]", "text/plain"),
    "go": (f'password := "{KEY}"', "text/plain"),
    "python": (f"{{'token': b'{KEY}', 'id': 1}}", "text/plain"),
    "odata batch, cookies": (BATCH.format(field=f"Cookie: a=1; b={KEY}"), "multipart/mixed; boundary=b"),
    "odata batch, credentials": (BATCH.format(field=f"Authorization: Token {KEY}"), "multipart/mixed; boundary=b"),
    "a command": (json.dumps({"run": f"curl -H 'Cookie: a=1; b={KEY}' https://a.example"}), JSON),
    "registry": (json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": KEY}}}), JSON),
    ".npmrc": (f"//registry.example/:_password={KEY}\n_auth={KEY}\n", "text/plain"),
    "multipart, a name with brackets": (part('Content-Disposition: form-data; name="user[password]"'), PARTS),
    "multipart, a list": (part('Content-Disposition: form-data; name="user[tokens][][token]"'), PARTS),
    "xml, a comment in the value": (f"<a><password><!-- > -->{KEY}</password></a>", "text/xml"),
    "xml, a section behind text": (f"<a><password>x<![CDATA[{KEY}]]></password></a>", "text/xml"),
    "xml, text behind a section": (f"<a><password><![CDATA[x]]>{KEY}</password></a>", "text/xml"),
}  # fmt: skip


@pytest.mark.parametrize("place", BODIES)
def test_a_secret_in_a_body(place: str) -> None:
    assert KEY in body(*BODIES[place], policy="off")
    assert KEY not in body(*BODIES[place])


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "Enter your password: ", "next": "a"}',
        '{"password:": "a", "next": "b"}',
        '{"hint": "password=\'", "next": "a"}',
        '{"hint": "password=\'abc", "next": "it\'s"}',
        '{"usage": "login <user> <password>", "next": "a"}',
        r'{"log": "{\"usage\": \"login <password> here\", \"x\": 1}", "next": "<a>"}',
        '{"usage": "login <password> here", "next": "<a>"}',
        '["-----BEGIN PRIVATE KEY-----", "MIIEvQ", "-----END PRIVATE KEY-----", "a"]',
        '["-----BEGIN PRIVATE KEY-----\\"", "a"]',
        r'["\"password:\\\"\\\"\\\"x\"", "a"]',
        '["pwd=\\\\", "a"]',
        '["Authorization: required for all calls", "a"]',
        '["const f = token => load(token)", "a"]',
        '["Set-Cookie: it is a header", "a"]',
        '{"token": {"a": 1}, "value": "a"}',
    ],
)
def test_values_end_where_their_text_does(text: str) -> None:
    shown = json.loads(body(text))
    assert shape(shown) == shape(json.loads(text))
    last = shown[-1] if isinstance(shown, list) else list(shown.values())[-1]
    assert last == (json.loads(text)[-1] if isinstance(shown, list) else list(json.loads(text).values())[-1])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"Bearer\t{KEY} x", "Bearer\t[redacted:authorization]"),
        (f"{KEY} x", "[redacted:authorization]"),
        (f"token={KEY} x=1", "[redacted:authorization]"),
        (f"ApiKey:{KEY} v1", "[redacted:authorization]"),
        (f"{KEY}, Bearer x", "[redacted:authorization]"),
        (f"AWS4-HMAC-SHA256 Credential={KEY}", "AWS4-HMAC-SHA256 [redacted:authorization]"),
    ],
)
def test_nothing_but_a_scheme_stays_of_credentials(value: str, shown: str) -> None:
    assert asking(f"Authorization: {value}")["Authorization"] == shown


@pytest.mark.parametrize("policy", ["secrets", "strict"])
@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (f"a=1; Path=/, sid={KEY}; Secure", "; Path=/, sid="),
        (f"a=1; Path=/; session={KEY}", "; Path=/; session="),
        (f"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT, b={KEY}; Max-Age=5", "; Expires=Wed, 21 Oct 2026 07:28:00 GMT, b="),
    ],
)
def test_cookies_that_were_joined(value: str, kept: str, policy: str) -> None:
    shown = answering(f"Set-Cookie: {value}", policy)["Set-Cookie"]
    assert KEY not in shown and kept in shown


@pytest.mark.parametrize("policy", ["secrets", "strict"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"bearer, {KEY}", "bearer, [redacted:bearer]"),
        (f"graphql-ws, {KEY}", "graphql-ws, [redacted:bearer]"),
        (f"access_token.{KEY}, json", "access_token.[redacted:bearer], json"),
        (f"base64url.bearer.authorization.k8s.io.{KEY}, v4.channel.k8s.io",
         "base64url.bearer.authorization.k8s.io.[redacted:bearer], v4.channel.k8s.io"),
        ("graphql-transport-ws, v4.channel.k8s.io, wamp.2.json", "graphql-transport-ws, v4.channel.k8s.io, wamp.2.json"),
    ],
)  # fmt: skip
def test_tokens_among_the_protocols_of_a_websocket(value: str, shown: str, policy: str) -> None:
    assert asking(f"Sec-WebSocket-Protocol: {value}", policy)["Sec-WebSocket-Protocol"] == shown


def seconds(text: bytes) -> float:
    """Of CPU, the least of some."""
    redactor, out = Redactor(BUILTIN["secrets"].redaction), []
    for _ in range(3):
        begin = time.process_time()
        redactor.text(text)
        out.append(time.process_time() - begin)
    return min(out)


@pytest.mark.parametrize(
    "unit", [b'"password":{', b'"password":[', b'"token":{', b"<password><!--", b"\\u4e2d", b"password='"]
)
def test_work_is_linear(unit: bytes) -> None:
    """Sixteen times the text takes at most as many times the work, with room for what else the machine does."""
    small, large = seconds(b'{"a":"' + unit * 4000), seconds(b'{"a":"' + unit * 64000)
    assert large < 64 * max(small, 0.0002)


def test_a_form_keeps_its_other_fields() -> None:
    assert body(f"user[password][]={KEY}&page=2", FORM).endswith("&page=2")
