"""The supervisor: starts programs, starts them again when they end, and stops them.

async with Supervised("count", start) as child:    # started
...                                            # restarted with growing pauses
# SIGTERM, then SIGKILL after `stop_s`
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Self

from headcount.errors import HeadcountError
from headcount.runtime.processes import ChildProcess, ending
from headcount.runtime.retry import Backoff
from headcount.runtime.tasks import cancel_all

_log = logging.getLogger(__name__)

#: Seconds that a process may take to stop before it is killed.
STOP_S = 10.0

Start = Callable[[], Awaitable[ChildProcess]]
Ready = Callable[[ChildProcess], Awaitable[None]]


class Supervised:
    """A program that runs, as an async context manager, until the body ends.

    When it ends by itself it is started again, after 0.2 s at first and 10 s at most; `restarts`
    counts that. `ready` is true while the running process has passed its check.
    """

    def __init__(
        self,
        name: str,
        start: Start,
        *,
        check: Ready | None = None,
        stop_s: Sequence[float] = (STOP_S,),
        backoff: Backoff | None = None,
        on_exit: Callable[[int], None] | None = None,
    ) -> None:
        """Supervise what `start` starts.

        Args:
            name: what log lines call it.
            start: starts one process.
            check: returns when that process is ready; what it raises counts as a failed start.
            stop_s: how long to wait after each SIGTERM; then it is killed.
            backoff: the pauses between starts.
            on_exit: receives the exit code of each process that ended by itself.
        """
        self.name = name
        self.ready = False
        self.restarts = 0
        self.process: ChildProcess | None = None
        self._start = start
        self._check = check
        self._stop_s = stop_s
        self._backoff = backoff or Backoff()
        self._on_exit = on_exit
        self._former: list[ChildProcess] = []  # replaced, and allowed to end by themselves
        self._replacing = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while there is no process."""
        return self.process.pid if self.process is not None and self.process.running else None

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._end()
            raise
        self._watching = asyncio.create_task(self._watch(), name=f"supervise {self.name}")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def stop(self, stop_s: Sequence[float] | None = None, *, quiet_s: float = 0.0) -> None:
        """Stop it for good; with `stop_s` in place of its own: `()` kills it."""
        if self._watching is not None:
            await cancel_all({self._watching})
        await self._end(stop_s, quiet_s=quiet_s)

    async def replace(self, start: Start) -> ChildProcess | None:
        """Start a second process beside the running one and, once ready, let it take that one's place.

        The former process is not stopped: that is up to the new one. Returns it; None, and nothing
        happens, when there is no running process.
        """
        async with self._replacing:
            former = self.process
            if former is None or not former.running:
                return None
            new = await start()
            try:
                await self._checked(new)
            except BaseException:
                await new.stop()
                raise
            self.process = new
            self._former = [*(process for process in self._former if process.running), former]
        return former

    async def _begin(self) -> None:
        self.ready = False
        self._backoff.begin()
        self.process = await self._start()
        await self._checked(self.process)

    async def _checked(self, process: ChildProcess) -> None:
        if self._check is not None:
            await self._check(process)
        self.ready = True

    async def _watch(self) -> None:
        while True:
            process = self.process
            if process is None:
                return
            code = await process.wait()
            async with self._replacing:
                if process is not self.process:
                    _log.info("%s: process %d, replaced, has ended", self.name, process.pid)
                    continue
            self.ready = False
            if self._on_exit is not None:
                self._on_exit(code)
            await self._restart(ending(code))

    async def _restart(self, reason: str) -> None:
        while True:
            pause_s = self._backoff.pause_s()
            _log.warning("%s ended (%s); starting it again in %.1f s", self.name, reason, pause_s)
            await asyncio.sleep(pause_s)
            self.restarts += 1
            try:
                return await self._begin()
            except (HeadcountError, OSError) as error:
                _log.error("%s does not start: %s", self.name, error)
                reason = "not started"
                if self.process is not None:
                    await self.process.stop(*self._stop_s)

    async def _end(self, stop_s: Sequence[float] | None = None, *, quiet_s: float = 0.0) -> None:
        self.ready = False
        patience_s = self._stop_s if stop_s is None else stop_s
        processes = [*self._former, *([] if self.process is None else [self.process])]
        await asyncio.gather(*(process.stop(*patience_s, quiet_s=quiet_s) for process in processes))


@contextlib.asynccontextmanager
async def all_running(children: Iterable[Supervised]) -> AsyncIterator[None]:
    """Start all of them, and stop them side by side: each may take its time."""
    programs = list(children)
    try:
        for child in programs:
            await child.__aenter__()
        yield
    finally:
        await asyncio.gather(*(child.stop() for child in programs))
