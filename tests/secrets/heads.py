"""Heads that hold a secret: each a function of (secret, name) to the calls of a conversation."""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from tests.secrets.documents import JSON, b64, dumps
from tests.secrets.kinds import Secret
from tests.secrets.running import CLIENT, PLAIN_ANSWER, PLAIN_REQUEST, SERVER, Calls, answered, asked

quote = urllib.parse.quote
Build = Callable[[Secret, str], Calls]
TOKEN = re.compile(r"[!-~]+")  # without blanks
COOKIE = re.compile(r"[!#-+\--:<-\[\]-~]+")  # RFC 6265 section 4.1.1
LINE = re.compile(r"[ -~]+")
ANY = re.compile(r"[^\0]+")
USER = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=-]+")  # RFC 3986 section 3.2.1


@dataclass(frozen=True, slots=True)
class Head:
    """``named``: a name or its place says that it is a secret. ``allowed``: what can be written there. ``shown``: strict
    shows it too, as it may be what the endpoint is called. ``recorded``: without a policy it is in the record.
    """

    name: str
    build: Build
    named: bool
    allowed: re.Pattern[str]
    shown: bool
    recorded: bool

    def fits(self, secret: Secret) -> bool:
        return self.allowed.fullmatch(secret.text) is not None

    def due(self, secret: Secret, policy: str) -> bool:
        return self.named or secret.form or (policy == "strict" and not self.shown)


HEADS: dict[str, Head] = {}
_UNRECORDED = ("bad-line", "interim", "trailer", "chunk-extension")


def head_(name: str, build: Build, *, named: bool = True, allowed: re.Pattern[str] = LINE, shown: bool = False) -> None:
    assert name not in HEADS
    HEADS[name] = Head(name, build, named, allowed, shown, name not in _UNRECORDED)


def request(field: str, text: str) -> Calls:
    return [(CLIENT, asked(b"{}", JSON, f"{field}: {text}")), (SERVER, PLAIN_ANSWER)]


def response(field: str, text: str, status: str = "200 OK") -> Calls:
    return [(CLIENT, PLAIN_REQUEST), (SERVER, answered(b"{}", JSON, f"{field}: {text}", status=status))]


def target(text: str) -> Calls:
    return [(CLIENT, asked(method="GET", target=text)), (SERVER, PLAIN_ANSWER)]


def enc(secret: Secret) -> str:
    return quote(secret.text, "")


# ---- credentials ----

for _scheme in ("Bearer", "bearer", "Token", "JWT", "ApiKey", "SSWS", "GenieKey", "Negotiate", "OAuth"):
    head_(f"authorization-{_scheme}", lambda s, n, w=_scheme: request("Authorization", f"{w} {s.text}"), allowed=TOKEN)  # type: ignore[misc]
head_("authorization-alone", lambda s, n: request("Authorization", s.text))
head_("authorization-blanks", lambda s, n: request("authorization", f" \t Bearer \t {s.text} \t"))
head_("authorization-basic", lambda s, n: request("Authorization", f"Basic {b64(f'ann:{s.text}')}"), allowed=ANY)
head_("authorization-basic-user", lambda s, n: request("Authorization", f"Basic {b64(f'{s.text}:')}"), allowed=ANY)
head_(
    "authorization-token-parameter",
    lambda s, n: request("Authorization", f'Token token="{s.text}", email="a@b"'),
    allowed=COOKIE,
)
head_(
    "authorization-digest",
    lambda s, n: request("Authorization", f'Digest username="ann", realm="x", response="{s.text}"'),
    allowed=COOKIE,
)
head_(
    "authorization-aws",
    lambda s, n: request("Authorization", f"AWS4-HMAC-SHA256 Credential=x/20270101/eu/s3/aws4_request, Signature={s.text}"),
    allowed=COOKIE,
)
head_(
    "authorization-twice",
    lambda s, n: request("Authorization", f"Bearer first\r\nAuthorization: Bearer {s.text}"),
    allowed=TOKEN,
)
head_("authorization-folded", lambda s, n: request("Authorization", f"Bearer\r\n {s.text}"), allowed=TOKEN)
head_("authorization-blank-before-colon", lambda s, n: request("Authorization ", f"Bearer {s.text}"), allowed=TOKEN)
head_("authorization-odd-case", lambda s, n: request("aUTHORIZATION", f"Bearer {s.text}"), allowed=TOKEN)
head_("proxy-authorization", lambda s, n: request("Proxy-Authorization", f"Basic {b64(f'ann:{s.text}')}"), allowed=ANY)
head_("authentication-info", lambda s, n: response("Authentication-Info", f'nextnonce="{s.text}"'), allowed=COOKIE)
head_("authorization-answered", lambda s, n: response("Authorization", f"Bearer {s.text}"), allowed=TOKEN)
head_("cookie", lambda s, n: request("Cookie", f"theme=dark; session={s.text}; lang=de"), allowed=COOKIE)
head_("cookie-ordinary-name", lambda s, n: request("Cookie", f"theme={s.text}"), allowed=COOKIE)
head_("cookie-without-name", lambda s, n: request("Cookie", f"a=1; {s.text}"), allowed=COOKIE)
head_("cookie-quoted", lambda s, n: request("Cookie", f'a="{s.text}"; b=2'), allowed=COOKIE)
head_("cookie-encoded", lambda s, n: request("Cookie", f"a=1; b={enc(s)};c=2"), allowed=ANY)
head_("cookie-json", lambda s, n: request("Cookie", "prefs=" + quote(dumps({"user": "ann", "x": s.text}), "")), allowed=ANY)
head_("cookie-twice", lambda s, n: request("Cookie", f"a=1\r\nX-A: b\r\ncookie: b={s.text}"), allowed=COOKIE)
head_("cookie2", lambda s, n: request("Cookie2", f"$Version=1; b={s.text}"), allowed=COOKIE)
head_("set-cookie", lambda s, n: response("Set-Cookie", f"sid={s.text}; Path=/; HttpOnly; Max-Age=3600"), allowed=COOKIE)
head_("set-cookie-alone", lambda s, n: response("Set-Cookie", f"sid={s.text}"), allowed=COOKIE)
head_("set-cookie-without-name", lambda s, n: response("Set-Cookie", f"{s.text}; Path=/"), allowed=COOKIE)
head_("set-cookie-encoded", lambda s, n: response("Set-Cookie", f"sid={enc(s)}; Path=/"), allowed=ANY)
head_(
    "set-cookie-several",
    lambda s, n: response(
        "Set-Cookie", f"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\nset-cookie: b={s.text}; Secure\r\nSet-Cookie: c=3"
    ),
    allowed=COOKIE,
)
head_("set-cookie-asked", lambda s, n: request("Set-Cookie", f"sid={s.text}"), allowed=COOKIE)
head_("header-by-name", lambda s, n: request(n, s.text))
head_("header-by-name-answered", lambda s, n: response(n, s.text))
head_("header-by-name-lower", lambda s, n: request(n.lower(), s.text))
head_("header-by-name-quoted", lambda s, n: request(n, f'"{s.text}"'), allowed=COOKIE)
head_("header-by-name-twice", lambda s, n: request(n, f"x\r\nX-A: b\r\n{n}: {s.text}"))
head_(
    "header-by-name-latin",
    lambda s, n: [(CLIENT, asked(b"", "", f"{n}: \u00e4 {s.text}").replace(b"\xc3\xa4", b"\xe4")), (SERVER, PLAIN_ANSWER)],
)
head_("x-api-key", lambda s, n: request("X-Api-Key", s.text))

# ---- other fields, told by form ----

for _field in (
    "X-Custom",
    "User-Agent",
    "X-Request-Id",
    "From",
    "Via",
    "Warning",
    "If-None-Match",
    "X-Debug",
    "Content-Disposition",
):
    head_(f"header-{_field}", lambda s, n, w=_field: request(w, s.text), named=False)  # type: ignore[misc]
head_("header-in-a-sentence", lambda s, n: request("X-Note", f"the key is ({s.text}), thanks"), named=False)
head_("header-answered", lambda s, n: response("X-Custom", s.text), named=False)
head_("header-encoded", lambda s, n: request("X-Custom", enc(s)), named=False, allowed=ANY)
head_("header-base64", lambda s, n: request("X-Custom", b64(f"a {s.text}")), named=False, allowed=ANY)
head_("header-json", lambda s, n: request("X-Custom", dumps({"a": [s.text]})), named=False)
head_(
    "www-authenticate",
    lambda s, n: response("WWW-Authenticate", f'Bearer realm="a", error_description="{s.text}"'),
    named=False,
    allowed=COOKIE,
)
head_("etag", lambda s, n: response("ETag", f'"{s.text}"'), named=False)
head_("baggage", lambda s, n: request("baggage", f"userId=ann,note={enc(s)}"), named=False, allowed=ANY)
head_("header-json-by-name", lambda s, n: request("X-Context", dumps({"user": "ann", "accessToken": s.text})))

# ---- fields that hold a target ----

_URLS = ("Referer", "Origin", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri")
for _field in _URLS:
    head_(
        f"{_field}-query".lower(),
        lambda s, n, w=_field: request(w, f"https://a.example/cb?a=1&{quote(n)}={enc(s)}"),  # type: ignore[misc]
        allowed=ANY,
    )
for _field in ("Location", "Content-Location", "Refresh"):
    head_(
        f"{_field}-query".lower(),
        lambda s, n, w=_field: response(w, f"{'0; url=' if w == 'Refresh' else ''}/cb?{quote(n)}={enc(s)}&b=2", "302 Found"),  # type: ignore[misc]
        allowed=ANY,
    )
head_("link-query", lambda s, n: response("Link", f'<https://a.example/x?{quote(n)}={enc(s)}>; rel="next"'), allowed=ANY)
head_(
    "location-fragment",
    lambda s, n: response("Location", f"https://a.example/cb#access_token={enc(s)}&state=x", "302 Found"),
    allowed=ANY,
)
head_("location-user", lambda s, n: response("Location", f"https://ann:{enc(s)}@a.example/", "302 Found"), allowed=ANY)
head_(
    "location-in-query",
    lambda s, n: response("Location", "/login?next=" + quote(f"https://a.example/?{n}={enc(s)}", ""), "302 Found"),
    allowed=ANY,
)
head_("referer-user", lambda s, n: request("Referer", f"http://ann:{enc(s)}@a.example/x"), allowed=ANY)
head_("referer-path", lambda s, n: request("Referer", f"https://a.example/reset/{enc(s)}"), named=False, allowed=ANY)
head_("location-other-name", lambda s, n: response("Location", f"/cb?q={enc(s)}", "302 Found"), named=False, allowed=ANY)

# ---- the target ----

head_("query", lambda s, n: target(f"/v1/login?a=1&{quote(n)}={enc(s)}&b=2"), allowed=ANY)
head_("query-raw", lambda s, n: target(f"/v1/login?{quote(n)}={s.text}"), allowed=USER)
head_("query-first", lambda s, n: target(f"/?{quote(n)}={enc(s)}"), allowed=ANY)
head_("query-plus", lambda s, n: target("/v1/login?" + urllib.parse.urlencode({n: s.text})), allowed=ANY)
head_("query-semicolons", lambda s, n: target(f"/v1/login?a=1;{quote(n)}={enc(s)};b=2"), allowed=ANY)
head_("query-encoded-name", lambda s, n: target("/?" + "".join(f"%{b:02X}" for b in n.encode()) + f"={enc(s)}"), allowed=ANY)
head_("query-brackets", lambda s, n: target(f"/?user[{quote(n)}]={enc(s)}"), allowed=ANY)
head_("query-brackets-encoded", lambda s, n: target(f"/?user%5B{quote(n)}%5D%5B%5D={enc(s)}"), allowed=ANY)
head_("query-dots", lambda s, n: target(f"/?user.{quote(n)}={enc(s)}"), allowed=ANY)
head_("query-twice-encoded", lambda s, n: target(f"/?{quote(n)}={quote(enc(s), '')}"), allowed=ANY)
head_(
    "query-all-encoded", lambda s, n: target(f"/?{quote(n)}=" + "".join(f"%{b:02x}" for b in s.text.encode())), allowed=ANY
)
head_("query-repeated", lambda s, n: target(f"/?{quote(n)}=x&{quote(n)}={enc(s)}"), allowed=ANY)
head_("query-second-mark", lambda s, n: target(f"/?a=1?{quote(n)}={enc(s)}"), allowed=ANY)
head_("query-json", lambda s, n: target("/?filter=" + quote(dumps({"user": "ann", n: s.text}), "")), allowed=ANY)
head_("query-url", lambda s, n: target("/?next=" + quote(f"https://a.example/cb?{quote(n)}={enc(s)}", "")), allowed=ANY)
head_("query-fragment", lambda s, n: target(f"/cb#access_token={enc(s)}"), allowed=ANY)
head_("query-graphql", lambda s, n: target("/graphql?query=%7Ba%7D&variables=" + quote(dumps({n: s.text}), "")), allowed=ANY)
head_("query-base64-json", lambda s, n: target("/?state=" + quote(b64(dumps({"user": "ann", n: s.text})), "")), allowed=ANY)
head_("query-other-name", lambda s, n: target(f"/search?q={enc(s)}&page=1"), named=False, allowed=ANY)
head_("query-other-name-inside", lambda s, n: target(f"/search?q=key%20{enc(s)}%20here"), named=False, allowed=ANY)
head_("query-without-name", lambda s, n: target(f"/search?{enc(s)}"), named=False, allowed=ANY)
head_("query-base64", lambda s, n: target(f"/search?q={quote(b64(s.text), '')}"), named=False, allowed=ANY)
head_(
    "query-base64url",
    lambda s, n: target(f"/s?q={base64.urlsafe_b64encode(s.text.encode()).decode().rstrip('=')}"),
    named=False,
    allowed=ANY,
)
head_("path", lambda s, n: target(f"/v1/reset/{enc(s)}/confirm?a=1"), named=False, allowed=ANY, shown=True)
head_("path-last", lambda s, n: target(f"/v1/reset/{enc(s)}"), named=False, allowed=ANY, shown=True)
head_("path-inside", lambda s, n: target(f"/file:{enc(s)},a/sendMessage"), named=False, allowed=ANY, shown=True)
head_("path-parameter", lambda s, n: target(f"/v1/me;{quote(n)}={enc(s)}/x"), allowed=ANY)
head_("target-absolute", lambda s, n: target(f"http://api.example/x?{quote(n)}={enc(s)}"), allowed=ANY)
head_("target-user", lambda s, n: target(f"http://ann:{enc(s)}@api.example/x"), allowed=ANY)
head_("target-user-alone", lambda s, n: target(f"http://{enc(s)}@api.example/x"), allowed=ANY)
head_("target-user-raw", lambda s, n: target(f"http://ann:{s.text}@api.example/x"), allowed=USER)

# ---- start lines, trailers, other messages ----

head_("reason-phrase", lambda s, n: response("X-A", "b", f"401 bad credential {s.text} given"), named=False)
head_("reason-phrase-query", lambda s, n: response("X-A", "b", f"400 cannot open /x?{quote(n)}={enc(s)}"), allowed=ANY)
head_(
    "interim",
    lambda s, n: [
        (CLIENT, PLAIN_REQUEST),
        (
            SERVER,
            f"HTTP/1.1 103 Early Hints\r\nLink: </x?{quote(n)}={enc(s)}>\r\nAuthorization: Bearer {s.text}\r\n\r\n".encode(),
        ),
        (SERVER, PLAIN_ANSWER),
    ],
    allowed=TOKEN,
)
_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n2;token=%s\r\n{}\r\n0\r\n"
head_(
    "trailer",
    lambda s, n: [(CLIENT, PLAIN_REQUEST), (SERVER, _CHUNKS % b"x" + f"Authorization: Bearer {s.text}\r\n\r\n".encode())],
    allowed=TOKEN,
)
head_(
    "chunk-extension", lambda s, n: [(CLIENT, PLAIN_REQUEST), (SERVER, _CHUNKS % s.text.encode() + b"\r\n")], allowed=TOKEN
)
head_("no-answer", lambda s, n: [(CLIENT, asked(method="GET", target=f"/?{quote(n)}={enc(s)}"))], allowed=ANY)
head_(
    "next-of-connection", lambda s, n: [*target("/first"), *target(f"/?{quote(n)}={enc(s)}"), *target("/third")], allowed=ANY
)
head_(
    "pipelined",
    lambda s, n: [
        (CLIENT, asked(method="GET", target="/a") + request("X-Api-Key", s.text)[0][1] + asked(method="GET", target="/b")),
        (SERVER, PLAIN_ANSWER * 3),
    ],
)
head_(
    "http-1.0",
    lambda s, n: [(CLIENT, f"GET /?{quote(n)}={enc(s)} HTTP/1.0\r\n\r\n".encode()), (SERVER, b"HTTP/1.0 200 OK\r\n\r\nok")],
    allowed=ANY,
)
head_("bad-line", lambda s, n: request("X-A", f"b\r\nno colon {s.text}\r\nX-B: c"), named=False)
