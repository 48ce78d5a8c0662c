"""handshake.pyx is for Cython only."""
