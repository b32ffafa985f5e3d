"""Slots of live streams: in all, for anonymous callers together, and for each caller."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from headcount.api.schemas.problems import TOO_MANY_STREAMS, ProblemError

#: Shares of all streams: of anonymous callers, so that some stay free for others, and of one token, person or
#: address, which may be a whole campus.
ANONYMOUS_SHARE, CALLER_SHARE = 0.8, 0.25


class StreamSlots:
    """The open streams of one API. Programs on this machine have all slots where they are operators."""

    def __init__(self, limit: int) -> None:
        """Allow this many streams."""
        self._limit = limit
        self._anonymous_limit = max(1, round(limit * ANONYMOUS_SHARE))
        self._caller_limit = max(1, round(limit * CALLER_SHARE))
        self._open: Counter[str] = Counter()
        self._anonymous = 0

    @contextlib.contextmanager
    def occupied(self, by: str, key: str, subject: str) -> Iterator[None]:
        """Occupy a slot for a caller: how, and as who they were authenticated (see `Identity`).

        Raises:
            ProblemError: `too-many-streams`.
        """
        anonymous = by == "anonymous"
        if by != "machine" and self._open[key] >= self._caller_limit:
            who = "your address" if anonymous else subject
            _refuse(f"{self._caller_limit} live streams of {who} are open")
        if self._open.total() >= self._limit:
            _refuse(f"{self._limit} live streams are open")
        if anonymous and self._anonymous >= self._anonymous_limit:
            _refuse(
                f"{self._anonymous} live streams without a login are open, the rest is for callers with one"
            )
        self._open[key] += 1
        self._anonymous += anonymous
        try:
            yield
        finally:
            self._anonymous -= anonymous
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


def _refuse(reason: str) -> None:
    detail = f"{reason}. Try again later, or poll /counts."
    raise ProblemError(TOO_MANY_STREAMS, detail, headers={"retry-after": "10"})
