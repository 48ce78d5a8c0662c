"""Which exchanges of an endpoint are recorded, and how many were not (docs/decisions/0033)."""
