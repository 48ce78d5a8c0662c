"""An eBPF collector of HTTP API traffic: one agent per Linux node, one JSON record per exchange."""

__version__ = "0.1.0"
