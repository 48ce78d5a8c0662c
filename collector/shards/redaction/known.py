"""What the built-in policies know: names of what is secret, and the beginnings of what has a form of its own.

Names are words with blanks between them, in lower case; they are found in the spellings of APIs: `api key` is api_key,
api-key, apiKey, API.KEY and apikey. A name of ENDINGS is one at the end of a longer name, too: userPassword, db_password.
Sources: the data sets of secret scanners (gitleaks, TruffleHog, GitHub's and GitLab's lists of token formats), OWASP's
Logging Cheat Sheet ("Data to exclude"), the clouds' documentation of their keys.
"""

from __future__ import annotations

import functools

PASSWORD, SECRET, TOKEN, API_KEY, SESSION = "password", "secret", "token", "api_key", "session"
CREDENTIAL, PRIVATE_KEY, OTP, PIN, CVV, CARD = "credential", "private_key", "otp", "pin", "cvv", "card"
IBAN, SSN, SIGNATURE, COOKIE, AUTHORIZATION = "iban", "ssn", "signature", "cookie", "authorization"
JWT, URL_PASSWORD = "jwt", "password"

# Kinds whose values may be numbers; of the others only texts are meant: {"token": 5} counts tokens.
NUMBERS = frozenset({PASSWORD, OTP, PIN, CVV, CARD, SSN, IBAN, SECRET})

# Kinds of which all that is in an object is secret. Of a session, a token or credentials it may be anything, as the name of
# a user: there it is `value` that is, and what has a name of its own.
WHOLE_OBJECTS = frozenset({PASSWORD, SECRET, API_KEY, PRIVATE_KEY, OTP, PIN, CVV, COOKIE})

# ---- names

ENDINGS: dict[str, tuple[str, ...]] = {
    PASSWORD: (
        "password", "passwd", "passwort", "passphrase", "passcode", "pass word", "pass phrase", "pass code", "pwd",
        "kennwort", "mot de passe", "motdepasse", "mot passe", "mdp", "contraseña", "contrasena", "contrasenya", "clave",
        "senha", "palavra passe", "parola", "wachtwoord", "lösenord", "losenord", "passord", "adgangskode", "salasana",
        "hasło", "haslo", "heslo", "geslo", "lozinka", "jelszó", "jelszo", "şifre", "sifre", "пароль", "лозинка", "密码",
        "密碼", "パスワード", "비밀번호", "mật khẩu", "mat khau", "kata sandi", "katasandi", "סיסמה", "كلمة المرور",
        "pass", "admin pass", "user pass", "root pass", "db pass", "login pass", "clave secreta",
        "password confirmation", "password confirm",
        "contraseña nueva", "password hash", "password again", "password repeat",
        "pswd", "psw", "passwrd", "user pw", "db pw", "password new", "password old", "new password hash",
        "password digest",
        "password text", "password input", "password field", "store pass", "password plain", "password 1",
        "password 2", "password1", "password2", "passwd1", "passwd2", "pwd1", "pwd2",
    ),
    SECRET: (
        "secret", "client secret", "secret key", "secretkey", "shared secret", "app secret", "consumer secret",
        "secret access key", "secret value", "webhook secret", "signing secret", "totp secret", "geheimnis", "secreto",
        "segredo", "секрет", "signing key", "encryption key", "master key", "hmac key", "aes key", "account key",
        "shared access key", "storage key", "connection string", "connection strings", "secret string", "secret binary",
        "secret key base", "secret text", "secret plain", "unseal key", "unseal keys", "recovery key", "seed phrase",
        "mnemonic",
        "recovery phrase", "sas key",
    ),
    TOKEN: (
        "token", "access token", "refresh token", "id token", "auth token", "bearer token", "csrf token", "xsrf token",
        "session token", "security token", "jeton", "ficha acceso", "токен", "bearer", "jwt", "assertion",
        "authenticity token", "id token hint", "token value", "csrf", "xsrf", "code verifier", "oauth verifier",
        "saml response", "sas token", "service ticket", "ticket granting ticket",
    ),
    API_KEY: (
        "api key", "apikey", "app key", "access key", "access key id", "auth key", "subscription key", "license key",
        "consumer key", "functions key", "api token", "openai key",
    ),
    SESSION: ("session id", "sessionid", "sess id", "sessid", "jsessionid", "phpsessid", "session key", "session cookie"),
    PRIVATE_KEY: ("private key", "privatekey", "priv key", "ssh key", "private keys", "private key pem",
                  "private key data",
                  "key pem"),
    CREDENTIAL: ("credential", "credentials", "auth data", "authorization code", "recovery code", "recovery codes",
                 "backup code", "backup codes", "security answer", "secret answer", "security code answer", "reset code",
                 "activation code", "confirmation code"),
    OTP: ("otp", "totp", "otp code", "mfa code", "2fa code", "sms code", "verification code", "auth code",
          "verify code", "one time password", "one time code", "two factor code", "totp code", "mfa token"),
    CVV: ("cvv", "cvv2", "cvc", "cvc2", "cvn", "card verification value", "card verification code", "security code",
          "card security code"),
    CARD: ("card number", "cardnumber", "card no", "credit card", "creditcard", "credit card number", "cc number",
           "ccnumber", "kreditkarte", "kartennummer", "numero tarjeta", "primary account number"),
    PIN: ("pin", "pin code", "pincode", "pin number", "new pin", "old pin"),
    SSN: ("ssn", "social security number", "social security no", "tax id number", "national id number",
          "passport number"),
    IBAN: ("iban",),
    SIGNATURE: ("x amz signature", "x goog signature", "hmac signature", "oauth signature"),
}  # fmt: skip

# The whole name, and no ending.
WHOLE: dict[str, tuple[str, ...]] = {
    PASSWORD: ("pw", "passwords", "passwds", "unicode pwd"),
    SECRET: ("secrets", "secret id"),
    API_KEY: ("apikeys", "api keys"),
    SIGNATURE: ("sig", "signature"),
    SESSION: ("sid", "session", "ssid token"),
    CREDENTIAL: ("nonce secret", "auth", "http auth", "registry auth"),
    TOKEN: ("device code", "access tokens", "refresh tokens", "next nonce"),
    CARD: ("pan", "ccnum", "cc num"),
    AUTHORIZATION: (
        "authorization",
        "proxy authorization",
        "x authorization",
        "x forwarded authorization",
        "x original authorization",
        "x auth",
    ),
    COOKIE: ("cookie", "set cookie", "cookies", "cookie2", "set cookie2"),
}

# Names that end like secrets and are none: cursors, counts, descriptions of secrets.
NOT_SECRET = (
    "next token", "page token", "next page token", "previous page token", "prev page token", "prev token",
    "continuation token", "sync token", "next sync token", "nextsynctoken", "starting token", "resume token",
    "delta token",
    "skip token", "marker token", "max token", "bos token", "eos token", "pad token", "unk token", "sep token",
    "cls token",
    "mask token", "stop token", "change token", "device token type", "watch token", "cancellation token",
    "idempotency token", "client request token", "public access key", "public key", "forgot password", "reset password",
    "change password", "update password", "has password", "no password", "require password", "requires password",
    "pagination token", "next pagination token", "access control allow credentials", "is bearer", "is pin",
    "is secret", "uses token", "has token", "has secret", "image pull secret",
)  # fmt: skip

# Beside the names above: of header fields (RFC 9110 section 11, and what products use).
HEADERS: dict[str, tuple[str, ...]] = {
    API_KEY: ("x api key", "x goog api key", "x functions key", "x master key", "x algolia api key", "dd api key",
              "dd application key", "x jfrog art api", "x lc key", "x honeycomb team", "x insert key", "x openai key",
              "x rapidapi key", "x auth key", "x typesense api key", "api key"),
    TOKEN: ("x auth token", "x access token", "x csrf token", "x xsrf token", "x amz security token", "private token",
            "x vault token", "x consul token", "x gitlab token", "x subject token", "x service token",
            "x aws ec2 metadata token"),
    SECRET: ("x amz server side encryption customer key", "x amz copy source server side encryption customer key",
             "x ms encryption key", "x goog encryption key", "x client secret", "x webhook secret",
             "x telegram bot api secret token"),
    CREDENTIAL: ("x registry auth", "x registry config", "x ha access"),
    SIGNATURE: ("x twilio signature", "x shopify hmac sha256", "x line signature", "svix signature", "webhook signature",
                "ok access sign", "cb access sign", "x zm signature", "paypal transmission sig", "x hub signature",
                "x hub signature 256", "stripe signature", "x slack signature", "x signature"),
    AUTHORIZATION: ("x amzn oidc data", "x amzn oidc accesstoken", "x goog iap jwt assertion",
                    "x ms token aad access token",
                    "authentication", "cf access jwt assertion"),
}  # fmt: skip

# ---- forms: (kind, beginning, what follows, how many of these at least). What follows: a regular expression's class.

PREFIXES: tuple[tuple[str, str, str, int], ...] = (
    ("aws_access_key", "AKIA", "A-Z0-9", 16),
    ("aws_access_key", "ASIA", "A-Z0-9", 16),
    ("google_api_key", "AIza", "A-Za-z0-9_-", 35),
    ("google_client_secret", "GOCSPX-", "A-Za-z0-9_-", 24),
    ("huggingface_token", "hf_", "A-Za-z0-9", 30),
    ("google_token", "ya29.", "A-Za-z0-9_.-", 20),
    ("github_token", "ghp_", "A-Za-z0-9", 36),
    ("github_token", "gho_", "A-Za-z0-9", 36),
    ("github_token", "ghu_", "A-Za-z0-9", 36),
    ("github_token", "ghs_", "A-Za-z0-9", 36),
    ("github_token", "ghr_", "A-Za-z0-9", 36),
    ("github_token", "github_pat_", "A-Za-z0-9_", 22),
    ("gitlab_token", "glpat-", "A-Za-z0-9_.-", 20),
    ("slack_token", "xoxb-", "A-Za-z0-9-", 16),
    ("slack_token", "xoxp-", "A-Za-z0-9-", 16),
    ("slack_token", "xoxa-", "A-Za-z0-9-", 16),
    ("slack_token", "xoxr-", "A-Za-z0-9-", 16),
    ("slack_token", "xoxs-", "A-Za-z0-9-", 16),
    ("slack_token", "xoxe-", "A-Za-z0-9-", 16),
    ("slack_token", "xapp-", "A-Za-z0-9-", 16),
    ("stripe_key", "sk_live_", "A-Za-z0-9", 16),
    ("stripe_key", "sk_test_", "A-Za-z0-9", 16),
    ("stripe_key", "rk_live_", "A-Za-z0-9", 16),
    ("stripe_key", "rk_test_", "A-Za-z0-9", 16),
    ("webhook_secret", "whsec_", "A-Za-z0-9+/=", 16),
    ("api_key", "sk-", "A-Za-z0-9_-", 32),
    ("npm_token", "npm_", "A-Za-z0-9", 36),
    ("sendgrid_key", "SG.", "A-Za-z0-9_.-", 60),
    ("vault_token", "hvs.", "A-Za-z0-9_-", 24),
    ("vault_token", "hvb.", "A-Za-z0-9_-", 24),
    ("digitalocean_token", "dop_v1_", "a-f0-9", 64),
    ("digitalocean_token", "doo_v1_", "a-f0-9", 64),
    ("digitalocean_token", "dor_v1_", "a-f0-9", 64),
    ("shopify_token", "shpat_", "A-Fa-f0-9", 32),
    ("shopify_token", "shpss_", "A-Fa-f0-9", 32),
    ("shopify_token", "shpca_", "A-Fa-f0-9", 32),
    ("shopify_token", "shppa_", "A-Fa-f0-9", 32),
    ("pypi_token", "pypi-AgEI", "A-Za-z0-9_-", 50),
    ("twilio_key", "SK", "a-f0-9", 32),
    ("gitlab_token", "glrt-", "A-Za-z0-9_.-", 20),
    ("gitlab_token", "gldt-", "A-Za-z0-9_.-", 20),
    ("slack_token", "xoxd-", "A-Za-z0-9%/+=-", 16),
    ("docker_token", "dckr_pat_", "A-Za-z0-9_-", 20),
    ("atlassian_token", "ATATT3x", "A-Za-z0-9_=-", 40),
    ("square_token", "sq0atp-", "A-Za-z0-9_-", 22),
    ("square_token", "sq0csp-", "A-Za-z0-9_-", 40),
    ("grafana_token", "glsa_", "A-Za-z0-9_", 32),
    ("newrelic_key", "NRAK-", "A-Z0-9", 24),
    ("linear_key", "lin_api_", "A-Za-z0-9", 32),
    ("notion_token", "ntn_", "A-Za-z0-9", 40),
    ("groq_key", "gsk_", "A-Za-z0-9", 40),
    ("figma_token", "figd_", "A-Za-z0-9_-", 36),
    ("databricks_token", "dapi", "a-f0-9", 32),
    ("mailgun_key", "key-", "a-f0-9", 32),
    ("sentry_token", "sntrys_", "A-Za-z0-9+/=_", 40),
    ("postman_key", "PMAK-", "a-f0-9-", 50),
    ("age_key", "AGE-SECRET-K", "A-Z0-9-", 40),
)

# Lengths of IBANs (ISO 13616, the registry of SWIFT).
IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)

# ---- the last four bytes of names, as names.pyx looks them up

_BEFORE = b"\"'\\_-. &?;[<:/{,(\n\t\r"  # what may stand before a short name
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"


@functools.cache
def endings(words: str) -> frozenset[bytes]:
    """The last four bytes that a name may have, in whatever spelling; each with the bit 0x20 that upper case lacks."""
    found = set()
    for case in {words, words.upper(), words.title()}:
        *before, last = [word.encode() for word in case.split(" ")]
        if len(last) >= 4:
            found.add(last[-4:])
        elif before:
            found.update((before[-1] + between + last)[-4:] for between in (b"_", b"-", b" ", b".", b""))
        elif len(last) == 3:  # by itself, or behind a word: not in the midst of one
            found.update(bytes([c]) + last for c in _BEFORE + (_LETTERS if last.title() == last else b""))
        else:
            found.update(bytes([c]) + mark + last for c in _BEFORE for mark in (b'"', b"'"))
    return frozenset(bytes(c | 0x20 for c in four) for four in found if len(four) == 4)
