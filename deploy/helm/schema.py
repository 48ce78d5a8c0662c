"""Write what comes from declarations into the chart's values.schema.json: the variables of `env` (collector/config.py), the
policy (collector/policy/schema.py), and what values.yaml has a value for. The rest of that file is written by hand.

    python deploy/helm/schema.py [--check]     --check: changes nothing; exit code 1 when the file is not as it would be
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from collector import config
from collector.config_setting import Setting
from collector.config_values import FORMS
from collector.policy import schema as policy

FILE = Path(__file__).parent / "ebpf-api-collector" / "values.schema.json"

# What other values of the chart say, what the chart mounts, and secrets, which belong into a Secret and not into values.
ELSEWHERE = {
    "COLLECTOR_KUBERNETES",
    "COLLECTOR_ALL_NAMESPACES",
    "COLLECTOR_HOST_PROCESSES",
    "COLLECTOR_FILTERS",
    "COLLECTOR_RESPONSE_BODIES",
    "COLLECTOR_REAL_IP_HEADER",
    "COLLECTOR_TRUSTED_CIDRS",
    "COLLECTOR_POLICY",
    "NODE_NAME",
    "POD_NAME",
    "AKTO_KAFKA_BROKER_MAL",
    "AKTO_KAFKA_BROKER_URL",
    "COLLECTOR_KAFKA_TOPIC",
    "COLLECTOR_KAFKA_TLS",
    "COLLECTOR_KAFKA_TLS_CA_FILE",
    "COLLECTOR_KAFKA_TLS_CERT_FILE",
    "COLLECTOR_KAFKA_TLS_KEY_FILE",
    "COLLECTOR_KAFKA_TLS_SKIP_VERIFY",
    "COLLECTOR_KAFKA_SASL",
    "IS_AUTH_IMPLEMENTED",
    "COLLECTOR_KAFKA_USERNAME",
    "COLLECTOR_KAFKA_USERNAME_FILE",
    "COLLECTOR_KAFKA_PASSWORD_FILE",
    "COLLECTOR_SPOOL_DIR",
    "COLLECTOR_SPOOL_BYTES",
    "COLLECTOR_HEALTH_ADDRESS",
    "COLLECTOR_RUNTIME_DIR",
    "COLLECTOR_PROGRAM_CACHE",
}

_WORD = "one of "  # how FORMS begins where it lists the words
_FURTHER_WORDS = {"AKTO_LOG_LEVEL": ("DBEUG",)}  # as Akto's documentation spells it
_LISTS = ("names", "numbers", "paths", "networks", "addresses")  # separated by commas: a list of YAML will do


def _values(setting: Setting[Any]) -> dict[str, Any]:
    """The schema of one variable."""
    if setting.type == "boolean":
        return {"type": "boolean"}
    if setting.type in ("integer", "number"):
        bounds = {"minimum": setting.low, "maximum": setting.high}
        return {"type": setting.type, **{key: bound for key, bound in bounds.items() if bound is not None}}
    if setting.type == "word" and setting.form.startswith(_WORD):
        return {"enum": [*setting.form.removeprefix(_WORD).split(", "), *_FURTHER_WORDS.get(setting.name, ())]}
    if setting.type == "JSON":
        return {"type": ["array", "string"]}
    if setting.type in _LISTS:
        item = "integer" if setting.type == "numbers" else "string"
        return {"type": ["array", "string", *(["integer"] if item == "integer" else [])], "items": {"type": item}}
    return {"type": "string"}


def _env() -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for setting in config.SETTINGS:
        if setting.secret:
            continue
        akto = (
            not setting.ours and FORMS[setting.parse][0] == "text"
        )  # only the name is known, or it is compared with a text
        found = {"type": ["boolean", "number", "string"]} if akto else _values(setting)
        for name in (setting.name, *setting.aliases):
            if not ELSEWHERE & {setting.name, name}:
                properties[name] = {"description": setting.description, **found}
    return {"type": "object", "additionalProperties": False, "properties": dict(sorted(properties.items()))}


def _require(schema: dict[str, Any], values: dict[str, Any]) -> None:
    """What templates cannot do without must be there: maps with names of their own, and what is not empty by itself.
    `--set config.agent=null` takes it away, and they would fail at that with words that help nobody. Lists and maps with
    names of others may be taken away: that is how one is rid of what stands in them.
    """
    properties = schema.get("properties", {})
    required = []
    for name, value in values.items():
        if name in properties and "properties" in properties[name]:
            _require(properties[name], value)
            required.append(name)
        elif name in properties and not isinstance(value, dict | list) and value not in ("", None):
            required.append(name)
    if required:
        schema["required"] = required


def text() -> str:
    """The whole file as it should be."""
    document = json.loads(FILE.read_text())
    _require(document, yaml.safe_load((FILE.parent / "values.yaml").read_text()))
    found = {key: value for key, value in policy.SCHEMA.items() if key not in ("$schema", "title")}
    document["definitions"]["env"] = _env()
    document["definitions"]["policy"] = found
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """See the module."""
    wanted = text()
    if "--check" in sys.argv:
        return int(FILE.read_text() != wanted)
    FILE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
