"""Numbers and foreign text, for a terminal."""

from __future__ import annotations

_UNITS = ("", "K", "M", "G", "T", "P")


def shown(text: str) -> str:
    """Text of a record as it may stand on a terminal: what is not printable, or would turn the direction of writing, as its
    number. A record escapes control characters for JSON; here it has been parsed.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(ord(letter)) for letter in text)


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def size(number: float) -> str:
    """Bytes in at most five letters: 512, 1.5K, 12M."""
    step = 0
    while number >= 1000 and step < len(_UNITS) - 1:
        number /= 1024
        step += 1
    if step == 0:
        return f"{number:.0f}"
    return f"{number:.1f}{_UNITS[step]}" if number < 9.95 else f"{number:.0f}{_UNITS[step]}"


def duration(milliseconds: float) -> str:
    """In at most six letters: 0.41ms, 12.3ms, 1.24s, 12m."""
    if milliseconds < 999.5:
        digits = 2 if milliseconds < 9.995 else 1 if milliseconds < 99.95 else 0
        return f"{milliseconds:.{digits}f}ms"
    seconds = milliseconds / 1000
    if seconds < 99.95:
        return f"{seconds:.2f}s" if seconds < 9.995 else f"{seconds:.1f}s"
    return f"{seconds:.0f}s" if seconds < 999.5 else f"{seconds / 60:.0f}m"


def count(number: float) -> str:
    """A rate in at most six letters: 0.4, 12, 10012, 1.2M."""
    if number >= 1_000_000:
        return f"{number / 1e6:.1f}M"
    return f"{number:.1f}" if 0 < number < 9.95 else f"{number:.0f}"
