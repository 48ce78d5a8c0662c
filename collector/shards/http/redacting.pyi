"""redacting.pyx has no names for Python: its functions are for Cython (redacting.pxd)."""
