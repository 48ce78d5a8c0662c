"""http09.pyx has no names for Python: its functions are for Cython (http09.pxd)."""
