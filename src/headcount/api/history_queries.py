"""Questions to the history: in threads, a few at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headcount.api.schemas.problems import TOO_MANY_QUERIES, UNREADABLE, ProblemError, invalid
from headcount.errors import DataFolderError, QueryError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Queries:
    """Runs at most `limit` queries at the same time; further ones are refused, not queued."""

    def __init__(self, limit: int) -> None:
        """Have threads for `limit` queries."""
        self._limit = limit
        self._running = 0
        self._threads = ThreadPoolExecutor(limit, "history query")

    async def run(self, query: Callable[[], T]) -> T:
        """The answer of a query that blocks.

        Raises:
            ProblemError: `too-many-queries`, `invalid-parameter` or `history-unreadable`.
        """
        if self._running >= self._limit:
            detail = f"{self._limit} history queries are running. Try again in a second."
            raise ProblemError(TOO_MANY_QUERIES, detail, headers={"retry-after": "1"})
        self._running += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, query)
        future.add_done_callback(self._done)  # also when nobody waits for the answer any more
        try:
            return await asyncio.shield(future)
        except QueryError as error:
            raise invalid(error.parameter, error.problem) from error
        except DataFolderError as error:
            _log.error("%s", error)
            raise ProblemError(UNREADABLE, UNREADABLE.meaning) from error

    def close(self) -> None:
        """Don't wait for running queries."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: object) -> None:
        self._running -= 1
