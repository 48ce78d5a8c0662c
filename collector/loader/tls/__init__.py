"""Which processes use TLS, with which library, and whether the collector sees inside: the report of blind spots."""
