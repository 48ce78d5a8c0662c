"""encode.pyx has no names for Python: its function is for Cython (encode.pxd)."""
