"""Types of codings.pyx."""

from typing import final

ENDED: int
CUT: int
LONGER: int
BROKEN: int
OVER: int

@final
class Inflater:
    def undo(
        self, data: bytes, window_bits: int, limit: int, allowance: int, members: bool
    ) -> tuple[bytes, int, int, int]: ...

def zstd_frames(data: bytes, allowance: int) -> tuple[int, int, int]: ...
