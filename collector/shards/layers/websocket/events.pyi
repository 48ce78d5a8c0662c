"""events.pyx is for Cython only."""
