"""inflate.pyx is for Cython only."""
