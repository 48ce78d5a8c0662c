"""Redaction: what values of a record are replaced by before it is made (docs/policy.md, docs/decisions/0031)."""
