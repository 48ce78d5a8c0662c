"""Values that are secret by name or by form, in texts of all kinds; and what only looks like them."""

from __future__ import annotations

import base64
import json

import pytest

from collector.policy.model import BUILTIN
from collector.shards.redaction import names
from collector.shards.redaction.redactor import Redactor

SECRETS = Redactor(BUILTIN["secrets"].redaction)
JWT = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
KEY = b"-----BEGIN RSA PRIVATE KEY-----\\nMIIEow\\n-----END RSA PRIVATE KEY-----"
CARD = b"4111111111111111"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("password", "password"),
        ("userPassword", "password"),
        ("DB_PASSWORD", "password"),
        ("new-password", "password"),
        ("Kennwort", "password"),
        ("mot_de_passe", "password"),
        ("contraseña", "password"),
        ("CONTRASEÑA", "password"),
        ("пароль", "password"),
        ("Пароль", "password"),
        ("密码", "password"),
        ("pwd", "password"),
        ("dbPwd", "password"),
        ("pw", "password"),
        ("access_token", "token"),
        ("refreshToken", "token"),
        ("x-api-key", "api_key"),
        ("apiKey", "api_key"),
        ("client_secret", "secret"),
        ("pin", "pin"),
        ("cardPin", "pin"),
        ("cvv", "cvv"),
        ("otp", "otp"),
        ("ssn", "ssn"),
        ("private_key", "private_key"),
    ],
)
def test_names(name: str, kind: str) -> None:
    found = names.find(SECRETS, name.encode())
    assert found is not None and found[0] == kind
    text = json.dumps({"a": 1, name: "hunter2", "b": "x"}, ensure_ascii=False).encode()
    assert json.loads(SECRETS.text(text)) == {"a": 1, name: f"[redacted:{kind}]", "b": "x"}


@pytest.mark.parametrize(
    "name",
    ["id", "shipping", "opinion", "compass", "nextPageToken", "page_token", "max_tokens", "monkey", "passenger", "tokenizer",
     "spin", "mapping", "passed", "secretary", "forgotPassword", "publicKey", "keyboard", "company"],
)  # fmt: skip
def test_names_of_nothing_secret(name: str) -> None:
    text = json.dumps({name: "hunter2"}).encode()
    assert SECRETS.text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"password": "a\\"b", "c": 1}', '{"password": "[redacted:password]", "c": 1}'),
        ('{"password" : null, "hasPassword": true}', '{"password" : null, "hasPassword": true}'),
        ('{"pin":1234,"token":5}', '{"pin":"[redacted:pin]","token":5}'),
        ('{"password":["a","b",["c"]],"d":"e"}',
         '{"password":["[redacted:password]","[redacted:password]",["[redacted:password]"]],"d":"e"}'),
        ('{"password":{"value":"a"},"value":"b"}', '{"password":{"value":"[redacted:password]"},"value":"b"}'),
        ('{"credentials":{"user":"u","password":"p"}}', '{"credentials":{"user":"u","password":"[redacted:password]"}}'),
        ('[{"name":"password","value":"x"},{"name":"city","value":"Paris"}]',
         '[{"name":"password","value":"[redacted:password]"},{"name":"city","value":"Paris"}]'),
        ('{"b":"{\\"password\\":\\"x\\",\\"pin\\":12,\\"c\\":\\"d\\"}"}',
         '{"b":"{\\"password\\":\\"[redacted:password]\\",\\"pin\\":\\"[redacted:pin]\\",\\"c\\":\\"d\\"}"}'),
        ('{"pass\\u0077ord":"x"}', '{"pass\\u0077ord":"[redacted:password]"}'),
        ('{"url":"https://u:secret1@h/p?access_token=abc&b=1#x"}',
         '{"url":"https://u:[redacted:password]@h/p?access_token=[redacted:token]&b=1#x"}'),
        ("<a><password>x &amp; y</password><b>c</b></a>", "<a><password>[redacted:password]</password><b>c</b></a>"),
        ('<w:Password Type="#Text">x</w:Password>', '<w:Password Type="#Text">[redacted:password]</w:Password>'),
        ("<p><password><![CDATA[x<y]]></password>", "<p><password><![CDATA[[redacted:password]]]></password>"),
        ('<u password="x" name="n"/>', '<u password="[redacted:password]" name="n"/>'),
        ('mutation { login(user: "u", password: "x y") { token } }',
         'mutation { login(user: "u", password: "[redacted:password]") { token } }'),
        ("level=info password=x,y user=u", "level=info password=[redacted:password] user=u"),
        ("Password: must be long", "Password: must be long"),
        ("password: hunter2", "password: [redacted:password]"),
        ('<i x="1" token="hunter2" key="secret" value="hunter2">',
         '<i x="1" token="[redacted:token]" key="secret" value="[redacted:secret]">'),
        ('{"password": {"old": "a", "n": [1, "b"]}, "c": "d"}',
         '{"password": {"old": "[redacted:password]", "n": ["[redacted:password]", "[redacted:password]"]}, "c": "d"}'),
        ('{"\\u043f\\u0430\\u0440\\u043e\\u043b\\u044c": "x"}',
         '{"\\u043f\\u0430\\u0440\\u043e\\u043b\\u044c": "[redacted:password]"}'),
        ("{'password': 'x', 'a': 'b'}", "{'password': '[redacted:password]', 'a': 'b'}"),
    ],
)  # fmt: skip
def test_texts(text: str, expected: str) -> None:
    assert SECRETS.text(text.encode()).decode() == expected
    assert SECRETS.text(expected.encode()).decode() == expected


FORMS = [
    (JWT, "jwt"),
    (CARD, "card"),
    (b"4111 1111 1111 1111", "card"),
    (b"3782-822463-10005", "card"),
    (b"5555-5555-5555-4444", "card"),
    (b"DE89370400440532013000", "iban"),
    (b"GB82 WEST 1234 5698 7654 32", "iban"),
    (KEY, "private_key"),
    (b"AKIAIOSFODNN7EXAMPLE", "aws_access_key"),
    (b"ghp_" + b"a1B2" * 9, "github_token"),
    (b"glpat-" + b"a1B2c" * 4, "gitlab_token"),
    (b"sk_live_" + b"a1B2" * 6, "stripe_key"),
    (b"xoxb-1234567890-abcdefghij", "slack_token"),
    (b"AIza" + b"a1B2c" * 7, "google_api_key"),
    (b"SG." + b"a" * 22 + b"." + b"b1" * 21 + b"c", "sendgrid_key"),
    (b"123456789:" + b"a1B2c" * 7, "telegram_token"),
    (b"SK" + b"0123456789abcdef" * 2, "twilio_key"),
]


@pytest.mark.parametrize(("form", "kind"), FORMS, ids=[kind for _form, kind in FORMS])
@pytest.mark.parametrize(
    "place", [b'{"a":"%s","b":2}', b'{"a":"see %s, and more"}', b"%s", b"x=1&y=%s", b"<a>%s</a>", b"text %s\n"]
)
def test_forms(form: bytes, kind: str, place: bytes) -> None:
    marked = b"[redacted:%s]" % kind.encode()
    for before in (b"", b" " * 57, b'"x": 12345, ' * 5):
        assert SECRETS.text(before + place % form) == before + place % marked


@pytest.mark.parametrize(("form", "kind"), FORMS, ids=[kind for _form, kind in FORMS])
def test_forms_in_other_texts(form: bytes, kind: str) -> None:
    plain = form.replace(b"\\n", b"\n")
    for inside in (
        base64.b64encode(b"value " + plain),
        base64.urlsafe_b64encode(plain + b"??>>").rstrip(b"="),
        base64.b64encode(base64.b64encode(plain)),
    ):
        text = b'{"a": "%s"}' % inside
        out = json.loads(SECRETS.text(text))["a"]
        for _ in range(2):
            out = base64.urlsafe_b64decode(out.replace("+", "-").replace("/", "_") + "==").decode()
            if "redacted" in out:
                break
        assert f"[redacted:{kind}]" in out
    encoded = b"".join(b"%%%02X" % c for c in plain)
    for inside in (encoded, encoded.replace(b"%", b"%25")):
        out = SECRETS.text(b"q=" + inside + b" x")
        assert b"redacted" in out and inside not in out
    escaped = "".join(f"\\u{c:04x}" for c in plain)
    assert json.loads(SECRETS.text(f'{{"a": "{escaped}"}}'.encode()))["a"] == f"[redacted:{kind}]"


@pytest.mark.parametrize(
    "text",
    [
        b'{"at": 1700000000000, "ns": 1700000000000000000, "id": "550e8400-e29b-41d4-a716-446655440000"}',
        b'{"card": "4111111111111112", "n": 12345678901234567890, "t": "2026-11-27T18:00:00.123456Z"}',
        b'{"text": "Basic authentication is required. Bearer of bad news"}',
        b'{"etag": "d41d8cd98f00b204e9800998ecf8427e", "b64": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQ"}',
        b'{"amount": 12.4111111111111111, "x": "a4111111111111111"}',
        b'{"ghp_": "sk-short", "x": "-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----"}',
        b'{"u": "https://host:8080/a:b@c", "v": "a\\u0026b\\/c"}',
    ],
)
def test_what_only_looks_like_a_form(text: bytes) -> None:
    assert SECRETS.text(text) == text


@pytest.mark.parametrize("name", ["token", "accessToken", "db_password", "old-password", "cvv", "userPass", "client_secret"])
@pytest.mark.parametrize("secret", ["x", "hunter2", "0123456789", "-a b-", "=%41"])
def test_parts_and_attributes(name: str, secret: str) -> None:
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: text/plain\r\n\r\n'
    rest = '\r\n--B\r\nContent-Disposition: form-data; name="city"\r\n\r\nParis\r\n--B--\r\n'
    out = SECRETS.text((head + secret + rest).encode()).decode()
    assert out.startswith(head + "[redacted:") and out.endswith("]" + rest)
    assert SECRETS.text(f'<a {name}="{secret}" b="c">'.encode()).decode().startswith(f'<a {name}="[redacted:')


def test_a_number_becomes_a_text() -> None:
    assert SECRETS.text(b'{"n": 4111111111111111, "l": [4111111111111111, 1]}') == (
        b'{"n": "[redacted:card]", "l": ["[redacted:card]", 1]}'
    )


@pytest.mark.parametrize(("form", "kind"), FORMS, ids=[kind for _form, kind in FORMS])
def test_what_is_cut_shows_no_long_part(form: bytes, kind: str) -> None:
    """At most some letters of it are left, which are not yet a form."""
    for at in range(len(form)):
        out = SECRETS.text(b'{"a": "' + form[:at], cut=True)
        shown = out.removeprefix(b'{"a": "')
        assert len(shown) < 20 or b"redacted" in shown or shown in KEY[:32], shown


def test_the_key_makes_equal_values_equal() -> None:
    one, two = (Redactor(BUILTIN["secrets"].redaction, key) for key in (b"a" * 16, b"b" * 16))
    texts = [b'{"password":"x"}', b'{"password":"x" }', b'{"password":"y"}']
    first, second, third = (json.loads(one.text(text))["password"] for text in texts)
    assert first == second != third and first.startswith("[redacted:password:") and len(first) == 36
    assert json.loads(two.text(texts[0]))["password"] != first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1&password=x y&b=2", "a=1&password=[redacted:password]&b=2"),
        ("user%5Bpassword%5D=x&c=4111+1111+1111+1111", "user%5Bpassword%5D=[redacted:password]&c=[redacted:card]"),
        ("user[password]=x;y,z&n=1", "user[password]=[redacted:password]&n=1"),
        ("d=%7B%22password%22%3A%22x%22%7D", "d=%7B%22password%22:%22[redacted:password]%22%7D"),
        ("flag&x=&=y", "flag&x=&=y"),
        ("next=https%3A%2F%2Fh%2F%3Ftoken%3Dabc", "next=https://h/%3Ftoken%3D[redacted:token]"),
    ],
)
def test_forms_and_queries(text: str, expected: str) -> None:
    assert SECRETS.form(text.encode()).decode() == expected
