"""Types of folding.pyx."""

from _typeshed import ReadableBuffer

def folded(path: ReadableBuffer, most: int = 192) -> bytes: ...
