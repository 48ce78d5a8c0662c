"""layer.pyx has no names for Python: its function is for Cython (layer.pxd)."""
