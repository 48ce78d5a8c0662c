"""bodies.pyx has no names for Python: its function is for Cython (bodies.pxd)."""
