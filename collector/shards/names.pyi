"""names.pyx has no names for Python: its functions are for Cython (names.pxd)."""
