"""History queries: in threads, a limited number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from headcount.errors import ReplacedError, TooManyQueriesError
from headcount.history.reader import HistoryView, SegmentReader

T = TypeVar("T")
#: Erasures that may replace segments under a query, one after the other.
ATTEMPTS = 3


class HistoryQueries:
    """Run at most `limit` queries at the same time; further ones are rejected, not queued."""

    def __init__(self, limit: int, reader: SegmentReader) -> None:
        """Create threads for `limit` queries."""
        self.reader = reader
        self._limit = limit
        self._running = 0
        self._threads = ThreadPoolExecutor(limit, "history query")

    async def run(self, query: Callable[[HistoryView], T]) -> T:
        """Return the result of a blocking query.

        Raises:
            TooManyQueriesError: `limit` queries are running.
            QueryError: the query is not valid.
            DataFolderError, StoreError: the history cannot be read.
        """
        if self._running >= self._limit:
            raise TooManyQueriesError(self._limit)
        self._running += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._answer, query)
        future.add_done_callback(self._done)  # also if no caller awaits the result any more
        return await asyncio.shield(future)

    def has_counts(self) -> bool:
        """Return whether counts are stored."""
        return any(each.dataset == "counts" for each in self.reader.view().manifest.segments)

    def close(self) -> None:
        """Cancel waiting queries; running ones are abandoned."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def damaged(self) -> int:
        """The number of segments whose rows are missing in answers.

        Raises:
            DataFolderError, StoreError: the history cannot be read.
        """
        manifest = self.reader.view().manifest
        return len(manifest.damaged) + len(self.reader.damaged & {each.name for each in manifest.segments})

    def _answer(self, query: Callable[[HistoryView], T]) -> T:
        for _ in range(ATTEMPTS - 1):
            with suppress(ReplacedError):
                return query(self.reader.view())
        return query(self.reader.view())

    def _done(self, _: object) -> None:
        self._running -= 1
