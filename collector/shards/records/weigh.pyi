"""Types of weigh.pyx."""

from collections.abc import Callable, Iterable

class Shape:
    def __init__(
        self,
        ask: Callable[[], Iterable[tuple[int, bool, int, Shape | None]]],
        name: str,
        opaque: bool = False,
    ) -> None: ...

class Scale:
    def __init__(self, named: Callable[[bytes], Shape | None]) -> None: ...
    def weigh(self, shape: Shape, message: bytes, most: int) -> tuple[bool, int]: ...
