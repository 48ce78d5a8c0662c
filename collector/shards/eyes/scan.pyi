"""Types of scan.pyx."""

from _typeshed import ReadableBuffer

def fields(line: ReadableBuffer) -> dict[str, bytes] | None: ...
