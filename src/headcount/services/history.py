"""History queries: in threads, a limited number at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from headcount.errors import ReplacedError, StoreError, TooManyQueriesError
from headcount.history.manifest import Manifest
from headcount.history.reader import HistoryView, SegmentReader
from headcount.history.tail import WaitingMessages, tables
from headcount.services.history_tail import HistoryTail

_log = logging.getLogger(__name__)

T = TypeVar("T")
#: Erasures that may replace segments under a query, one after the other.
ATTEMPTS = 3


class HistoryQueries:
    """Run at most `limit` queries at the same time; further ones are rejected, not queued."""

    def __init__(self, limit: int, reader: SegmentReader, tail: HistoryTail | None = None) -> None:
        """Create threads for `limit` queries; without a tail, only rows in segments are answered."""
        self._tail = tail
        self._marks = Manifest()  # of an earlier query: from there on, messages may not be in a segment
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
        waiting = WaitingMessages()
        try:
            if self._tail is not None:
                waiting = await self._tail.read(self._marks)
        except BaseException:
            self._running -= 1
            raise
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._answer, query, waiting)
        future.add_done_callback(self._done)  # also if no caller awaits the result any more
        return await asyncio.shield(future)

    def may_have_counts(self) -> bool:
        """Return whether counts are stored, or the history cannot be read now."""
        try:
            return any(each.dataset == "counts" for each in self.reader.view().manifest.segments)
        except StoreError as error:
            _log.warning("continuing without the history: %s", error)
            return True

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

    def _answer(self, query: Callable[[HistoryView], T], waiting: WaitingMessages) -> T:
        for _ in range(ATTEMPTS - 1):
            with suppress(ReplacedError):
                return query(self._view(waiting))
        return query(self._view(waiting))

    def _view(self, waiting: WaitingMessages) -> HistoryView:
        """Read the manifest after the messages: each row is in a segment, in a message, or in both."""
        view = self.reader.view()
        self._marks = view.manifest
        return replace(view, tail=tables(view.manifest, waiting, time.time()))

    def _done(self, _: object) -> None:
        self._running -= 1
