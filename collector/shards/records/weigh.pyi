"""Types of weigh.pyx."""

from collections.abc import Callable, Iterable

class Shape:
    def __init__(
        self,
        ask: Callable[[], Iterable[tuple[int, bool, int, Shape | None]]],
        is_any: bool = False,
        opaque: bool = False,
    ) -> None: ...
    @property
    def is_any(self) -> bool: ...
    @property
    def opaque(self) -> bool: ...

class Scale:
    def __init__(self, named: Callable[[bytes], Shape | None]) -> None: ...
    def weigh(self, shape: Shape, message: bytes, most: int) -> tuple[bool, int]: ...
