"""Bodies that hold a secret: each a function of (secret, name of its field) to (media type, text or bytes)."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from tests.secrets.kinds import Secret

quote = urllib.parse.quote
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
BOUNDARY = "----Boundary7MA4YWxkTrZu0gW"


@dataclass(frozen=True, slots=True)
class Document:
    """``named``: a name says that it is a secret; otherwise only those that are told by their form must be found."""

    name: str
    make: Callable[[Secret, str], tuple[str, str | bytes]]
    named: bool
    ascii: bool  # it cannot hold other secrets
    line: bool  # nor those of several lines

    def fits(self, secret: Secret) -> bool:
        return (not self.ascii or secret.text.isascii()) and (not self.line or not {"\n", "\r"} & set(secret.text))

    def due(self, secret: Secret, policy: str) -> bool:
        """Must the policy take it out?"""
        if policy == "strict":
            return self.name not in _SHOWN
        return self.named or secret.form


DOCUMENTS: dict[str, Document] = {}
_SHOWN = ("json-as-name",)  # strict keeps names
Body = Callable[[Secret, str], tuple[str, str | bytes]]


def document(*, named: bool = True, ascii: bool = False, line: bool = False) -> Callable[[Body], Body]:
    def add(make: Body) -> Body:
        name = make.__name__.strip("_").replace("_", "-")
        assert name not in DOCUMENTS
        DOCUMENTS[name] = Document(name, make, named, ascii, line)
        return make

    return add


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json(name: str, make: Callable[[Secret, str], str], named: bool = True, kind: str = JSON) -> None:
    DOCUMENTS[name] = Document(name, lambda s, n: (kind, make(s, n)), named, False, False)


def escaped(text: str) -> str:
    """Every character of a JSON string as its escape."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))


def some_escaped(text: str) -> str:
    """Every third character of a JSON string as its escape."""
    return "".join(escaped(c) if i % 3 == 1 else dumps(c)[1:-1] for i, c in enumerate(text))


def _nested(value: object, depth: int) -> object:
    for level in range(depth):
        value = {"child": value, "n": level} if level % 2 else [level, value, None]
    return value


def _in_strings(value: object, levels: int) -> object:
    for _ in range(levels):
        value = {"event": "login", "payload": dumps(value)}
    return value


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


_ROWS = [{"id": i, "text": "lorem ipsum" * 9} for i in range(200)]

# ---- JSON ----

_json("json", lambda s, n: dumps({"user": "ann", n: s.text, "remember": True}))
_json("json-first", lambda s, n: dumps({n: s.text}))
_json("json-blanks", lambda s, n: f'\r\n\t{{ "user" : "ann" ,\n\t"{n}"  \n:\t {dumps(s.text)} \n}}\n')
_json("json-nested", lambda s, n: dumps(_nested({n: s.text}, 12)))
_json("json-deep", lambda s, n: dumps(_nested({n: s.text}, 400)))
_json("json-deeper-than-any-parser", lambda s, n: "[" * 6000 + dumps({n: s.text}) + "]" * 6000)
_json("json-behind-much", lambda s, n: dumps({"rows": _ROWS, n: s.text}))
_json("json-before-much", lambda s, n: dumps({n: s.text, "rows": _ROWS}))
_json("json-array-of-them", lambda s, n: dumps({n: ["other value 1", s.text, "other value 2"]}))
_json("json-object-of-them", lambda s, n: dumps({n: {"value": s.text, "more": [{"again": s.text}]}}))
_json("json-rows", lambda s, n: dumps([{"id": i, n: s.text if i == 2 else ""} for i in range(5)]))
_json("json-escaped-name", lambda s, n: '{"' + escaped(n) + '": ' + dumps(s.text) + "}")
_json("json-half-escaped-name", lambda s, n: '{"' + some_escaped(n) + '": ' + dumps(s.text) + "}")
_json("json-escaped-value", lambda s, n: f"{{{dumps(n)}: " + '"' + escaped(s.text) + '"}')
_json("json-half-escaped-value", lambda s, n: f"{{{dumps(n)}: " + '"' + some_escaped(s.text) + '"}')
_json("json-slashes", lambda s, n: dumps({n: s.text}).replace("/", "\\/"))
_json("json-twice", lambda s, n: f'{{{dumps(n)}: "x", "a": 1, {dumps(n)}: {dumps(s.text)}}}')
_json("json-in-json", lambda s, n: dumps(_in_strings({n: s.text}, 1)))
_json("json-in-json-twice", lambda s, n: dumps(_in_strings({n: s.text}, 2)))
_json("json-in-json-five-times", lambda s, n: dumps(_in_strings({n: s.text}, 5)))
_json("json-in-a-secret-name", lambda s, n: dumps({n: dumps({"value": s.text, "n": 1})}))
_json("json-as-string", lambda s, n: dumps(dumps({n: s.text})))
_json("json-with-mark", lambda s, n: "\ufeff" + dumps({n: s.text}))
_json("json-two-texts", lambda s, n: dumps({"a": 1}) + dumps({n: s.text}))
_json("json-behind-a-guard", lambda s, n: ")]}',\n" + dumps({n: s.text}))
_json("json-callback", lambda s, n: f"callback123({dumps({n: s.text})});", kind="application/javascript")
_json(
    "json-lines",
    lambda s, n: "".join(dumps(row) + "\n" for row in ({"a": 1}, {n: s.text}, {"b": 2})),
    kind="application/x-ndjson",
)
_json(
    "json-sequence",
    lambda s, n: "\x1e" + dumps({"a": 1}) + "\n\x1e" + dumps({n: s.text}) + "\n",
    kind="application/json-seq",
)
_json("json-of-api", lambda s, n: dumps({"data": {"attributes": {n: s.text}}}), kind="application/vnd.api+json")
_json("json-with-charset", lambda s, n: dumps({n: s.text}), kind="application/json; charset=utf-8")
_json("json-as-text", lambda s, n: dumps({n: s.text}), kind="text/plain")
_json("json-as-html", lambda s, n: dumps({n: s.text}), kind="text/html; charset=utf-8")
_json("json-as-javascript", lambda s, n: dumps({n: s.text}), kind="text/javascript")
_json("json-as-nothing", lambda s, n: dumps({n: s.text}), kind="")
_json("json-as-form", lambda s, n: dumps({n: s.text}), kind=FORM)  # what curl -d sends
_json("json-broken-behind", lambda s, n: dumps({n: s.text, "a": 1})[:-1])
_json("json-broken-before", lambda s, n: '{"a": tru, ' + dumps({n: s.text})[1:])
_json("json-with-commas", lambda s, n: '{"a": [1,2,], ' + dumps({n: s.text})[1:-1] + ",}")
_json("json-with-comments", lambda s, n: '{ // "\n /* " */ ' + dumps({n: s.text})[1:])
_json("json-with-nan", lambda s, n: '{"a": NaN, "b": -Infinity, ' + dumps({n: s.text})[1:])
_json("json-with-raw-controls", lambda s, n: '{"a": "x\ty\x01", ' + dumps({n: s.text})[1:])
_json("json-value-alone", lambda s, n: dumps(s.text), named=False)
_json("json-other-name", lambda s, n: dumps({"comment": s.text}), named=False)
_json("json-behind-an-escape", lambda s, n: dumps({"message": f"log in:\n{s.text}\tand\n"}), named=False)
_json("json-in-a-sentence", lambda s, n: dumps({"message": f"Use {s.text} to log in, please."}), named=False)
_json("json-as-name", lambda s, n: dumps({"by_key": {s.text: 1}}), named=False)
_json("json-in-array", lambda s, n: dumps(["a", [s.text], 1]), named=False)
_json("json-url-encoded", lambda s, n: dumps({"link": "https://a.example/?q=" + quote(s.text, "")}), named=False)
_json("json-url-encoded-twice", lambda s, n: dumps({"next": quote(quote(s.text, ""), "")}), named=False)
_json("json-base64", lambda s, n: dumps({"data": b64(s.text)}), named=False)
_json("json-base64-in-text", lambda s, n: dumps({"data": b64(f"it is {s.text}!")}), named=False)
_json("json-base64url", lambda s, n: dumps({"d": b64(s.text).translate({43: "-", 47: "_", 61: None})}), named=False)
_json("json-base64-json", lambda s, n: dumps({"data": b64(dumps({"user": "ann", n: s.text}))}))
_json(
    "json-data-url",
    lambda s, n: dumps({"u": "data:text/plain;base64," + b64(s.text)}),
    named=False,
)
_json("json-query-in-string", lambda s, n: dumps({"redirect": f"https://a.example/cb?{quote(n)}={quote(s.text, '')}&a=1"}))
_json("json-form-in-string", lambda s, n: dumps({"body": f"a=1&{quote(n)}={quote(s.text, '')}"}))


@document(ascii=True)
def json_base64_whole(s: Secret, n: str) -> tuple[str, bytes]:
    return "text/plain", base64.b64encode(dumps({"user": "ann", n: s.text}).encode())


@document()
def event_stream(s: Secret, n: str) -> tuple[str, str]:
    return "text/event-stream", f"event: login\nid: 7\ndata: {dumps({n: s.text})}\n\ndata: {{}}\n\n"


@document(named=False, line=True)
def event_stream_text(s: Secret, n: str) -> tuple[str, str]:
    return "text/event-stream", f": comment\ndata: key {s.text}\n\n"


# ---- forms ----


@document()
def form(s: Secret, n: str) -> tuple[str, str]:
    return FORM, f"user=ann&{quote(n)}={quote(s.text, '')}&remember=1"


@document()
def form_plus(s: Secret, n: str) -> tuple[str, str]:
    return FORM, urllib.parse.urlencode({"user": "ann b", n: s.text})


@document()
def form_all_encoded(s: Secret, n: str) -> tuple[str, str]:
    every = ["".join(f"%{byte:02x}" for byte in text.encode()) for text in (n, s.text)]
    return FORM, f"user=ann&{every[0]}={every[1]}"


@document()
def form_twice_encoded(s: Secret, n: str) -> tuple[str, str]:
    return FORM, f"a=1&{quote(n)}={quote(quote(s.text, ''), '')}"


@document()
def form_nested_name(s: Secret, n: str) -> tuple[str, str]:
    return FORM, f"user%5Bname%5D=ann&user%5B{quote(n)}%5D={quote(s.text, '')}"


@document()
def form_brackets(s: Secret, n: str) -> tuple[str, str]:
    return FORM, f"user[{quote(n)}][]={quote(s.text, '')}"


@document()
def form_of_json(s: Secret, n: str) -> tuple[str, str]:
    return FORM, "payload=" + quote(dumps({"type": "login", n: s.text}), "")


@document()
def form_without_type(s: Secret, n: str) -> tuple[str, str]:
    return "", f"user=ann&{quote(n)}={quote(s.text, '')}"


@document(named=False)
def form_other_name(s: Secret, n: str) -> tuple[str, str]:
    return FORM, f"comment={quote(s.text, '')}&b=2"


# ---- multipart ----


def multipart(*parts: tuple[str, str], boundary: str = BOUNDARY, end: bool = True, line: str = "\r\n") -> str:
    out = "".join(f"--{boundary}{line}{headers}{line}{line}{text}{line}" for headers, text in parts)
    return out + (f"--{boundary}--{line}" if end else "")


_DATA = 'Content-Disposition: form-data; name="%s"'
_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@document()
def multipart_field(s: Secret, n: str) -> tuple[str, str]:
    return _TYPE, multipart((_DATA % "user", "ann"), (_DATA % n, s.text), (_DATA % "a", "1"))


@document()
def multipart_field_first(s: Secret, n: str) -> tuple[str, str]:
    return _TYPE, multipart((_DATA % n, s.text))


@document()
def multipart_bare_name(s: Secret, n: str) -> tuple[str, str]:
    return f'multipart/form-data; boundary="{BOUNDARY}"', multipart((f"content-disposition:form-data;name={n}", s.text))


@document()
def multipart_unended(s: Secret, n: str) -> tuple[str, str]:
    return _TYPE, multipart((_DATA % "user", "ann"), (_DATA % n, s.text), end=False)


@document()
def multipart_lf(s: Secret, n: str) -> tuple[str, str]:
    return _TYPE, multipart((_DATA % "user", "ann"), (_DATA % n, s.text), line="\n")


@document()
def multipart_without_boundary(s: Secret, n: str) -> tuple[str, str]:
    return "multipart/form-data", multipart((_DATA % "user", "ann"), (_DATA % n, s.text))


@document()
def multipart_json_part(s: Secret, n: str) -> tuple[str, str]:
    headers = _DATA % "metadata" + "\r\nContent-Type: application/json"
    return _TYPE, multipart((headers, dumps({"user": "ann", n: s.text})), (_DATA % "a", "1"))


@document()
def multipart_secret_file(s: Secret, n: str) -> tuple[str, str]:
    return _TYPE, multipart((_DATA % n + '; filename="upload.txt"\r\nContent-Type: text/plain', s.text))


@document(named=False)
def multipart_file(s: Secret, n: str) -> tuple[str, str]:
    return _TYPE, multipart((_DATA % "file" + '; filename="notes.txt"\r\nContent-Type: text/plain', f"see {s.text} there"))


@document(named=False, line=True)
def multipart_filename(s: Secret, n: str) -> tuple[str, str]:
    return _TYPE, multipart((_DATA % "file" + f'; filename="{s.text}"', "text"))


@document(named=False)
def multipart_mixed(s: Secret, n: str) -> tuple[str, str]:
    return "multipart/mixed; boundary=x", multipart(("Content-Type: text/plain", f"it is {s.text} "), boundary="x")


@document()
def multipart_base64(s: Secret, n: str) -> tuple[str, str]:
    headers = _DATA % n + "\r\nContent-Transfer-Encoding: base64"
    return _TYPE, multipart((headers, b64(s.text)))


# ---- XML ----


def _element(n: str) -> str:
    return n.replace("[", "_").replace("]", "_")


@document()
def xml(s: Secret, n: str) -> tuple[str, str]:
    n = _element(n)
    return "application/xml", f'<?xml version="1.0"?>\n<login><user>ann</user><{n}>{html.escape(s.text)}</{n}></login>'


@document()
def xml_attribute(s: Secret, n: str) -> tuple[str, str]:
    return "text/xml", f'<login user="ann" {_element(n)}="{html.escape(s.text)}" remember="1"/>'


@document()
def xml_attribute_of_element(s: Secret, n: str) -> tuple[str, str]:
    n = _element(n)
    return "text/xml", f'<a:{n} xmlns:a="urn:a" a:type="text"\n> {html.escape(s.text)}\n</a:{n} >'


@document()
def soap(s: Secret, n: str) -> tuple[str, str]:
    return "text/xml; charset=utf-8", (
        '<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Header><wsse:Security>'
        f'<wsse:UsernameToken><wsse:Username>ann</wsse:Username><wsse:{_element(n)} Type="#Text">{html.escape(s.text)}'
        f"</wsse:{_element(n)}></wsse:UsernameToken></wsse:Security></soap:Header><soap:Body/></soap:Envelope>"
    )


@document()
def xml_cdata(s: Secret, n: str) -> tuple[str, str]:
    n = _element(n)
    return "application/soap+xml", f"<login><{n}><![CDATA[{s.text.replace(']]>', '')}]]></{n}></login>"


@document()
def xml_references(s: Secret, n: str) -> tuple[str, str]:
    n = _element(n)
    return "application/xml", f"<login><{n}>{''.join(f'&#x{ord(c):x};' for c in s.text)}</{n}></login>"


@document(named=False)
def xml_other_name(s: Secret, n: str) -> tuple[str, str]:
    return "application/xml", f"<note><to>ann</to><text>{html.escape(s.text)}</text></note>"


# ---- GraphQL ----


@document()
def graphql_variables(s: Secret, n: str) -> tuple[str, str]:
    query = "mutation Login($user: String!, $p: String!) { login(user: $user, password: $p) { id } }"
    return JSON, dumps({"operationName": "Login", "query": query, "variables": {"input": {"user": "ann", n: s.text}}})


@document(line=True)
def graphql_literal(s: Secret, n: str) -> tuple[str, str]:
    return JSON, dumps({"query": f'mutation {{ login(user: "ann", password: {dumps(s.text)}, remember: true) {{ id }} }}'})


@document(line=True)
def graphql_object_literal(s: Secret, n: str) -> tuple[str, str]:
    return JSON, dumps({"query": f'mutation {{ login(input: {{user: "ann", accessToken : {dumps(s.text)} }}) {{ id }} }}'})


@document()
def graphql_block_string(s: Secret, n: str) -> tuple[str, str]:
    return JSON, dumps({"query": f'mutation {{ login(user: "ann", password: """{s.text}""") {{ id }} }}'})


@document(line=True)
def graphql_text(s: Secret, n: str) -> tuple[str, str]:
    return "application/graphql", f'mutation {{ login(user: "ann", password: {dumps(s.text)}) {{ id }} }}'


@document()
def graphql_batch(s: Secret, n: str) -> tuple[str, str]:
    return JSON, dumps([{"query": "{ a }"}, {"query": "query Q($x: S) { b }", "variables": {n: s.text}}])


# ---- text ----


@document(named=False)
def text(s: Secret, n: str) -> tuple[str, str]:
    return "text/plain", f"Dear Ann,\nthis is it: {s.text}\nRegards"


@document(named=False)
def text_alone(s: Secret, n: str) -> tuple[str, str]:
    return "text/plain; charset=utf-8", s.text


@document(named=False, line=True)
def text_of_columns(s: Secret, n: str) -> tuple[str, str]:
    return "text/csv", f"id,name,value\n1,ann,{s.text}\n2,bob,x\n"


@document(named=False)
def web_page(s: Secret, n: str) -> tuple[str, str]:
    return "text/html", f"<html><body><p>Your key is <b>{html.escape(s.text)}</b>.</p></body></html>"


@document(named=False)
def text_url_encoded(s: Secret, n: str) -> tuple[str, str]:
    return "text/plain", quote(s.text, "")


@document(named=False)
def text_base64(s: Secret, n: str) -> tuple[str, bytes]:
    return "text/plain", base64.b64encode(s.text.encode())


@document(named=False)
def text_base64_inside(s: Secret, n: str) -> tuple[str, str]:
    return "text/plain", "x: " + b64(f"ab {s.text} c") + " y"


@document(named=False, ascii=True)
def binary(s: Secret, n: str) -> tuple[str, bytes]:
    return "application/x-thing", b"\xff\xfe\0\x81" + s.text.encode() + b"\xff\x80\0"


@document()
def json_with_bad_bytes(s: Secret, n: str) -> tuple[str, bytes]:
    return JSON, b'{"a": "\xff\xfe", ' + dumps({n: s.text})[1:].encode()
