"""What follows when a destination did not take a batch.

| the error | the sink runs | the sink is to stop |
|---|---|---|
| not retriable | give up | give up |
| retriable | again after its ``retry_seconds`` | the same, ``attempts_at_end`` times in a row; then give up |
"""

from __future__ import annotations

from collector.errors import DestinationError


def delay(error: DestinationError, failures_at_end: int) -> float | None:
    """Seconds until the next attempt, or None to give the destination up.

    ``failures_at_end`` is the number of attempts that failed in a row since the sink was told to stop, this one
    included; 0 while it runs.
    """
    if not error.retriable:
        return None
    if error.attempts_at_end is not None and failures_at_end > error.attempts_at_end:
        return None
    return error.retry_seconds
