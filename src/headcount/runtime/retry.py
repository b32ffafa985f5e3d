"""Trying again: growing pauses, and loops that outlive errors.

`docs/decisions/` explains why this is no library.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")
Errors = tuple[type[Exception], ...]

_log = logging.getLogger(__name__)

#: The pause between attempts to use the core or another server that is away.
RETRY_S = 0.5


class Backoff:
    """Pauses that double with each failure, and begin small again after a steady time."""

    def __init__(
        self,
        first_s: float = 0.2,
        max_s: float = 10.0,
        steady_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Pause `first_s` after the first failure, `max_s` at most."""
        self._clock = clock
        self._first_s, self._max_s, self._steady_s = first_s, max_s, steady_s
        self._next_s = first_s
        self._since_s = clock()

    def begin(self) -> None:
        """Note that an attempt begins."""
        self._since_s = self._clock()

    def pause_s(self) -> float:
        """Seconds to pause before the next attempt; shortest when this one lasted `steady_s`."""
        pause_s = self._first_s if self._clock() - self._since_s > self._steady_s else self._next_s
        self._next_s = min(2 * pause_s, self._max_s)
        return pause_s


async def retry(
    work: Callable[[], Awaitable[T]],
    on: Errors,
    what: str,
    *,
    pause_s: float = RETRY_S,
    level: int = logging.DEBUG,
) -> T:
    """Call `work` until it returns; errors of the types `on` are logged, once each, and answered by a pause."""
    logged = ""
    while True:
        try:
            return await work()
        except on as error:
            if (text := str(error) or repr(error)) != logged:
                logged = text
                _log.log(level, "%s: %s; trying again", what, text)
        await asyncio.sleep(pause_s)


async def repeat(
    work: Callable[[], Awaitable[None]],
    on: Errors,
    what: str,
    *,
    pause_s: float = RETRY_S,
    level: int = logging.DEBUG,
) -> NoReturn:
    """`retry` for work that is to go on forever: it is called again after it returned, too."""
    while True:
        await retry(work, on, what, pause_s=pause_s, level=level)
        await asyncio.sleep(pause_s)
