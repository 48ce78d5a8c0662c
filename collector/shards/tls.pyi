"""tls.pyx has no names for Python: its functions are for Cython (tls.pxd)."""
