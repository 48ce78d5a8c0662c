"""parts.pyx is for Cython only."""
