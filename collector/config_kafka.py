"""The environment variables of TLS and SASL, a part of collector.config.Config.

What goes together is said by sink/kafka/security.py.
"""

from __future__ import annotations

from collector.config_setting import Setting
from collector.config_values import parse_bool, parse_mechanism, parse_text

KAFKA = "Kafka: TLS and SASL"


class KafkaConfig:
    """See the module."""

    COLLECTOR_KAFKA_TLS = Setting(
        parse_bool, False, KAFKA, "Whether connections to the brokers are TLS, 1.2 or later.", aliases=("USE_TLS",)
    )
    COLLECTOR_KAFKA_TLS_CA_FILE = Setting(
        parse_text,
        "",
        KAFKA,
        "Certificates (PEM) by one of which the brokers' must be signed. Each is trusted, also when it is no root.",
        aliases=("TLS_CA_CERT_PATH",),
        shown_default="the system's",
    )
    COLLECTOR_KAFKA_TLS_CERT_FILE = Setting(
        parse_text, "", KAFKA, "Our own certificate (PEM) and what it was signed with, for mutual TLS.", shown_default="none"
    )
    COLLECTOR_KAFKA_TLS_KEY_FILE = Setting(
        parse_text,
        "",
        KAFKA,
        "The private key (PEM) of our certificate.",
        shown_default="the file of COLLECTOR_KAFKA_TLS_CERT_FILE",
    )
    COLLECTOR_KAFKA_TLS_KEY_PASSWORD = Setting(
        parse_text, "", KAFKA, "The password that the private key is encrypted with.", secret=True, shown_default="none"
    )
    COLLECTOR_KAFKA_TLS_KEY_PASSWORD_FILE = Setting(
        parse_text, "", KAFKA, "A file that holds this password instead.", shown_default="none"
    )
    COLLECTOR_KAFKA_TLS_SKIP_VERIFY = Setting(
        parse_bool,
        False,
        KAFKA,
        "`true`: the brokers' certificates are not verified, neither by whom they are signed nor for which name. Anybody on "
        "the way can pass for a broker then. (In Akto's collector this is the default.)",
        aliases=("INSECURE_SKIP_VERIFY",),
    )
    COLLECTOR_KAFKA_SASL = Setting(
        parse_mechanism,
        "",
        KAFKA,
        "How we log in at the brokers: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or `none`.",
        shown_default="PLAIN when IS_AUTH_IMPLEMENTED is true, else none",
    )
    IS_AUTH_IMPLEMENTED = Setting(parse_bool, False, KAFKA, "`true`: SASL PLAIN, unless COLLECTOR_KAFKA_SASL is set.")
    COLLECTOR_KAFKA_USERNAME = Setting(
        parse_text, "", KAFKA, "User name for SASL.", aliases=("KAFKA_USERNAME",), shown_default="none"
    )
    COLLECTOR_KAFKA_USERNAME_FILE = Setting(
        parse_text, "", KAFKA, "A file that holds the user name instead.", shown_default="none"
    )
    COLLECTOR_KAFKA_PASSWORD = Setting(
        parse_text, "", KAFKA, "Password for SASL.", aliases=("KAFKA_PASSWORD",), secret=True, shown_default="none"
    )
    COLLECTOR_KAFKA_PASSWORD_FILE = Setting(
        parse_text,
        "",
        KAFKA,
        "A file that holds the password instead; a line break at its end is no part of it. This file and all those above "
        "are read again within seconds when they change, and at SIGHUP: new connections use what they hold then.",
        shown_default="none",
    )
