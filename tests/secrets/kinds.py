"""Secrets of all kinds, random from a seed: what must never be found in anything that the collector writes.

A secret is told by its form (a JWT, the key of a cloud, a private key, a card number), or only by the name of the field that
holds it (a password).
"""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

RUN = 8  # so many characters of a secret in a row give it away
DIGITS, UPPER, ALNUM = string.digits, string.ascii_uppercase, string.ascii_letters + string.digits
LOWER_HEX, URL_SAFE, BASE64 = "0123456789abcdef", ALNUM + "-_", ALNUM + "+/"
BASE32 = UPPER + "234567"


@dataclass(frozen=True, slots=True)
class Secret:
    """``cores`` are its random parts. ``form``: it is a secret whatever the field is called."""

    kind: str
    text: str
    cores: tuple[str, ...]
    form: bool


def chars(rng: Random, alphabet: str, n: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(n))


Made = tuple[str, tuple[str, ...]]
_FORMS: dict[str, Callable[[Random], Made]] = {}
_NAMED: dict[str, Callable[[Random], Made]] = {}


# ---- keys with a prefix ----

_PREFIXED = {
    "aws-akia": ("AKIA", BASE32, 16),
    "aws-asia": ("ASIA", BASE32, 16),
    "google-api": ("AIza", URL_SAFE, 35),
    "google-oauth": ("ya29.a0A", URL_SAFE, 120),
    "google-client-secret": ("GOCSPX-", URL_SAFE, 28),
    "github-ghp": ("ghp_", ALNUM, 36),
    "github-gho": ("gho_", ALNUM, 36),
    "github-ghu": ("ghu_", ALNUM, 36),
    "github-ghs": ("ghs_", ALNUM, 36),
    "github-ghr": ("ghr_", ALNUM, 36),
    "gitlab": ("glpat-", URL_SAFE, 20),
    "slack-app": ("xapp-1-A0", UPPER + DIGITS, 60),
    "stripe-sk": ("sk_live_", ALNUM, 24),
    "stripe-sk-long": ("sk_live_51", ALNUM, 97),
    "stripe-rk": ("rk_live_", ALNUM, 24),
    "stripe-test": ("sk_test_", ALNUM, 24),
    "stripe-webhook": ("whsec_", ALNUM, 32),
    "openai": ("sk-", ALNUM, 48),
    "openai-project": ("sk-proj-", URL_SAFE, 74),
    "anthropic": ("sk-ant-api03-", URL_SAFE, 93),
    "npm": ("npm_", ALNUM, 36),
    "vault": ("hvs.", URL_SAFE, 92),
    "vault-batch": ("hvb.", URL_SAFE, 140),
    "twilio-key": ("SK", LOWER_HEX, 32),
    "digitalocean": ("dop_v1_", LOWER_HEX, 64),
    "shopify": ("shpat_", LOWER_HEX, 32),
    "shopify-shared": ("shpss_", LOWER_HEX, 32),
    "pypi": ("pypi-AgEIcHlwaS5vcmc", URL_SAFE, 80),
    "hugging-face": ("hf_", ALNUM, 34),
}


def _prefixed(prefix: str, alphabet: str, n: int) -> Callable[[Random], Made]:
    def make(rng: Random) -> Made:
        core = chars(rng, alphabet, n - 1) + rng.choice(LOWER_HEX)  # no `-` or `_` at the end
        if alphabet == BASE32:
            core = chars(rng, alphabet, n)
        return prefix + core, (core,)

    return make


for _name, _what in _PREFIXED.items():
    _FORMS[_name] = _prefixed(*_what)


def _parts(kind: str, pattern: Callable[[Random], tuple[str, ...]], between: str) -> None:
    def make(rng: Random) -> Made:
        parts = pattern(rng)
        return between.join(parts), tuple(part for part in parts if len(part) >= 2 * RUN)

    _FORMS[kind] = make


_parts("github-pat", lambda r: ("github_pat", chars(r, ALNUM, 22), chars(r, ALNUM, 59)), "_")
_parts("slack-bot", lambda r: ("xoxb", chars(r, DIGITS, 12), chars(r, DIGITS, 13), chars(r, ALNUM, 24)), "-")
_parts("slack-user", lambda r: ("xoxp", *(chars(r, DIGITS, 12) for _ in range(3)), chars(r, LOWER_HEX, 32)), "-")
_parts("sendgrid", lambda r: ("SG", chars(r, URL_SAFE, 22), chars(r, URL_SAFE, 42) + "a"), ".")
_parts("telegram", lambda r: (r.choice("123456789") + chars(r, DIGITS, 9), "AA" + chars(r, URL_SAFE, 32) + "x"), ":")


def _form(make: Callable[[Random], Made]) -> Callable[[Random], Made]:
    _FORMS[make.__name__.replace("_", "-")] = make
    return make


def _named(make: Callable[[Random], Made]) -> Callable[[Random], Made]:
    _NAMED[make.__name__.replace("_", "-")] = make
    return make


# ---- tokens ----


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _json_part(**members: object) -> str:
    return _b64url(json.dumps(members, separators=(",", ":")).encode())


@_form
def jwt(rng: Random) -> Made:
    signature = chars(rng, URL_SAFE, 42) + "A"
    claims = _json_part(sub=chars(rng, DIGITS, 10), name=chars(rng, ALNUM, 20), iat=1_795_000_000)
    return f"{_json_part(alg='HS256', typ='JWT')}.{claims}.{signature}", (signature, claims[38:62])


@_form
def jwt_rs256(rng: Random) -> Made:
    signature = chars(rng, URL_SAFE, 341) + "A"
    claims = _json_part(iss="https://id.example", sub=chars(rng, ALNUM, 24), scope="a b")
    return f"{_json_part(alg='RS256', kid=chars(rng, LOWER_HEX, 16))}.{claims}.{signature}", (signature,)


@_form
def jwt_unsigned(rng: Random) -> Made:
    sub = chars(rng, ALNUM, 40)
    claims = _json_part(sub=sub)
    return f"{_json_part(alg='none')}.{claims}.", (claims[12:],)


@_form
def jwe(rng: Random) -> Made:
    sizes = (342, 16, 100, 22)
    parts = [chars(rng, URL_SAFE, n - 1) + "A" for n in sizes]
    return ".".join([_json_part(alg="RSA-OAEP", enc="A256GCM"), *parts]), (parts[0], parts[2], parts[3])


@_form
def azure_connection(rng: Random) -> Made:
    key = chars(rng, BASE64, 86)
    text = f"DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={key}==;EndpointSuffix=core.windows.net"
    return text, (key,)


@_form
def azure_bus(rng: Random) -> Made:
    key = chars(rng, BASE64, 43)
    text = f"Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={key}="
    return text, (key,)


@_form
def azure_signature(rng: Random) -> Made:
    signature = chars(rng, ALNUM, 43)
    return f"https://shop.blob.core.windows.net/c/b?sv=2024-11-04&se=2027-01-01&sr=b&sp=r&sig={signature}%3D", (signature,)


@_form
def url_with_password(rng: Random) -> Made:
    password = chars(rng, ALNUM, 18)
    return f"postgresql://shop:{password}@db.internal:5432/orders", (password,)


# ---- private keys ----


def _pem(label: str, bytes_: int, breaks: str = "\n", head: str = "") -> Callable[[Random], Made]:
    def make(rng: Random) -> Made:
        body = base64.b64encode(rng.randbytes(bytes_)).decode()
        lines = [body[i : i + 64] for i in range(0, len(body), 64)]
        text = breaks.join([f"-----BEGIN {label}-----", *([head, ""] if head else []), *lines, f"-----END {label}-----"])
        return text + breaks, tuple(line for line in lines if len(line) > 2 * RUN)

    return make


_FORMS["pem-pkcs1"] = _pem("RSA PRIVATE KEY", 300)
_FORMS["pem-pkcs1-encrypted"] = _pem("RSA PRIVATE KEY", 300, head="Proc-Type: 4,ENCRYPTED")
_FORMS["pem-pkcs8"] = _pem("PRIVATE KEY", 138)
_FORMS["pem-pkcs8-crlf"] = _pem("PRIVATE KEY", 138, "\r\n")
_FORMS["pem-pkcs8-encrypted"] = _pem("ENCRYPTED PRIVATE KEY", 160)
_FORMS["pem-ec"] = _pem("EC PRIVATE KEY", 121)
_FORMS["pem-openssh"] = _pem("OPENSSH PRIVATE KEY", 260)
_FORMS["pem-escaped"] = _pem("PRIVATE KEY", 138, "\\n")  # as .env files and JSON in JSON have it
_FORMS["pem-one-line"] = _pem("PRIVATE KEY", 138, " ")
_FORMS["pgp"] = _pem("PGP PRIVATE KEY BLOCK", 200, head="Version: GnuPG v2")


# ---- card numbers (ISO/IEC 7812-1) and IBANs (ISO 13616-1) ----


def luhn(digits: str) -> str:
    """The check digit."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        n = int(digit) * (2 if i % 2 == 0 else 1)
        total += n - 9 if n > 9 else n
    return str(-total % 10)


CARDS = {
    "visa": ("4", 16),
    "visa-19": ("4", 19),
    "mastercard": ("5{1-5}", 16),
    "mastercard-2": ("222{3-9}", 16),
    "amex": ("37", 15),
    "discover": ("6011", 16),
    "discover-65": ("65", 16),
    "diners": ("36", 14),
    "jcb": ("35{3-8}", 16),
    "unionpay": ("62", 16),
    "unionpay-19": ("62", 19),
    "maestro": ("6759", 16),
}


def card_number(rng: Random, prefix: str, n: int) -> str:
    before, _, span = prefix.partition("{")
    if span:
        before += str(rng.randint(int(span[0]), int(span[2])))
    digits = before + chars(rng, DIGITS, n - 1 - len(before))
    return digits + luhn(digits)


def grouped(digits: str, between: str) -> str:
    """As it stands on the card."""
    sizes = {15: (4, 6, 5), 14: (4, 6, 4)}.get(len(digits), (4,) * 5)
    out, at = [], 0
    for size in sizes:
        out.append(digits[at : at + size])
        at += size
    return between.join(part for part in out if part)


def _card(prefix: str, n: int, between: str | None) -> Callable[[Random], Made]:
    def make(rng: Random) -> Made:
        digits = card_number(rng, prefix, n)
        text = digits if between is None else grouped(digits, between)
        return text, (text,)

    return make


for _name, (_prefix, _n) in CARDS.items():
    _FORMS[f"card-{_name}"] = _card(_prefix, _n, None)
    if _n in (14, 15, 16):
        _FORMS[f"card-{_name}-blanks"] = _card(_prefix, _n, " ")
        _FORMS[f"card-{_name}-dashes"] = _card(_prefix, _n, "-")

IBANS = {
    "DE": "n18",
    "GB": "a4n14",
    "FR": "n10c11n2",
    "NO": "n11",
    "NL": "a4n10",
    "MT": "a4n5c18",
    "CH": "n5c12",
    "ES": "n20",
}


def iban(rng: Random, country: str) -> str:
    account, pattern = "", IBANS[country]
    at = 0
    while at < len(pattern):
        end = at + 1
        while end < len(pattern) and pattern[end].isdigit():
            end += 1
        account += chars(rng, {"n": DIGITS, "a": UPPER, "c": UPPER + DIGITS}[pattern[at]], int(pattern[at + 1 : end]))
        at = end
    number = "".join(str(int(c, 36)) for c in account + country + "00")
    return f"{country}{98 - int(number) % 97:02}{account}"


def _iban(country: str, between: str) -> Callable[[Random], Made]:
    def make(rng: Random) -> Made:
        text = iban(rng, country)
        text = between.join(text[i : i + 4] for i in range(0, len(text), 4)) if between else text
        return text, (text,)

    return make


for _country in IBANS:
    _FORMS[f"iban-{_country.lower()}"] = _iban(_country, "")
    _FORMS[f"iban-{_country.lower()}-blanks"] = _iban(_country, " ")


# ---- what only a name tells ----


@_named
def password(rng: Random) -> Made:
    text = chars(rng, ALNUM + "!#$*.^_~", 14)
    return text, (text,)


@_named
def password_to_escape(rng: Random) -> Made:
    text = "".join(chars(rng, ALNUM, 2) + c for c in rng.sample("\"\\&=%+ ;,'<>?/{}[]:@", 8))
    return text, (text,)


@_named
def passphrase(rng: Random) -> Made:
    text = " ".join(chars(rng, string.ascii_lowercase, 5) for _ in range(4))
    return text, (text,)


@_named
def password_latin(rng: Random) -> Made:
    text = chars(rng, "äöüßéèñçøå" + ALNUM, 16)
    return text, (text,)


@_named
def password_cyrillic(rng: Random) -> Made:
    text = chars(rng, "абвгдежзийклмнопрстуфхцчшщъыьэюя", 14)
    return text, (text,)


@_named
def password_wide(rng: Random) -> Made:
    text = chars(rng, "密码安全验证登录用户名数据😀🔑🗝", 12)
    return text, (text,)


@_named
def password_of_digits(rng: Random) -> Made:
    text = "9" + chars(rng, DIGITS, 8) + "7"
    return text, (text,)


@_named
def token_hex(rng: Random) -> Made:
    text = chars(rng, LOWER_HEX, 32)
    return text, (text,)


@_named
def token_base64(rng: Random) -> Made:
    text = base64.b64encode(rng.randbytes(32)).decode()
    return text, (text,)


@_named
def token_uuid(rng: Random) -> Made:
    text = "-".join(chars(rng, LOWER_HEX, n) for n in (8, 4, 4, 4, 12))
    return text, (text,)


@_named
def aws_secret(rng: Random) -> Made:
    text = chars(rng, BASE64, 40)
    return text, (text,)


@_named
def one_time_code(rng: Random) -> Made:
    text = rng.choice("123456789") + chars(rng, DIGITS, 7)
    return text, (text,)


KINDS = {**_FORMS, **_NAMED}
# one of each family, for what is tried at every byte
FEW = (
    *(
        "jwt",
        "aws-akia",
        "github-ghp",
        "stripe-sk",
        "pem-pkcs8",
        "card-visa",
        "card-amex-blanks",
        "iban-de",
        "iban-gb-blanks",
    ),
    *("password", "token-hex", "password-to-escape"),
)


def make(kind: str, seed: object) -> Secret:
    """A secret; another seed makes another one of the kind."""
    text, cores = KINDS[kind](Random(f"{kind}/{seed}"))
    return Secret(kind, text, cores, kind in _FORMS)
