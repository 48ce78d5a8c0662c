"""What leaves the node: redaction, rules, sampling (docs/policy.md)."""
