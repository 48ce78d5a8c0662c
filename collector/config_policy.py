"""The environment variables of the policy, a part of collector.config.Config.

What they name is read by policy/source.py.
"""

from __future__ import annotations

from collector.config_setting import Setting
from collector.config_values import parse_text

POLICY = "Policy"


class PolicyConfig:
    """See the module."""

    COLLECTOR_POLICY = Setting(
        parse_text,
        "off",
        POLICY,
        "What is redacted, recorded and sampled (docs/policy.md): `off`, `secrets`, `strict`, or the path of a YAML file, "
        "which is read again within two seconds when it changes, and at SIGHUP. One that cannot be used refuses to start, "
        "and later leaves the policy in force as it is.",
    )
    COLLECTOR_REDACTION_KEY = Setting(
        parse_text,
        "",
        POLICY,
        "Of at least 16 bytes. Redacted values are replaced by hashes with this key, so that equal ones can be told equal.",
        secret=True,
        shown_default="none",
    )
    COLLECTOR_REDACTION_KEY_FILE = Setting(
        parse_text,
        "",
        POLICY,
        "A file that holds the key instead; a line break at its end is no part of it. It is read again as the policy is.",
        shown_default="none",
    )
