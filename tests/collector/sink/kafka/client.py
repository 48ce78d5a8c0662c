"""Settings of a client of the broker with TLS and SASL, as variables of the environment."""

from __future__ import annotations

from pathlib import Path

from collector import config
from collector.sink.kafka import security
from collector.sink.kafka.security import Security
from tests.live.kafka_broker import PASSWORDS, USER

Environment = dict[str, str]


def tls(keys: Path, client: str = "", ca: str = "ca") -> Environment:
    """TLS, with one of the certificates for clients unless it is ""."""
    out = {"COLLECTOR_KAFKA_TLS": "true", "COLLECTOR_KAFKA_TLS_CA_FILE": str(keys / f"{ca}.pem")}
    if client:
        out["COLLECTOR_KAFKA_TLS_CERT_FILE"] = str(keys / f"{client}.pem")
        out["COLLECTOR_KAFKA_TLS_KEY_FILE"] = str(keys / f"{client}.key")
    return out


def sasl(mechanism: str, password: str = "") -> Environment:
    """A login."""
    return {
        "COLLECTOR_KAFKA_SASL": mechanism,
        "COLLECTOR_KAFKA_USERNAME": USER,
        "COLLECTOR_KAFKA_PASSWORD": password or PASSWORDS[mechanism],
    }


def loaded(environment: Environment) -> config.Config:
    """Read and checked, as the command does it."""
    out = config.load({"AKTO_KAFKA_BROKER_MAL": "b:1", **environment})
    security.check(out)
    return out


def secured_by(environment: Environment) -> Security:
    """What the sink gets."""
    return Security(security.read(loaded(environment)))
