"""The pause before another attempt: exponential back-off with full jitter."""

from __future__ import annotations

FIRST_RETRY_S, MAX_RETRY_S = 1.0, 60.0
#: Attempts after which the pause does not grow any more, whatever their number.
_MAX_DOUBLINGS = 10


def retry_delay_s(attempt: int, share: float, retry_after_s: float = 0.0) -> float:
    """Seconds to wait after a failure.

    Args:
        attempt: number of failures in a row before this one.
        share: random number, 0 <= share < 1, a new one for each attempt.
        retry_after_s: what the server asks for, in addition to which the device waits.
    """
    limit_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempt, _MAX_DOUBLINGS))
    return retry_after_s + share * limit_s
