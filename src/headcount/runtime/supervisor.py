"""Starting and stopping: signals, and child processes that are watched and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

_log = logging.getLogger(__name__)

#: A child that doesn't end by itself is killed after this.
STOP_S = 1.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
#: A child that ran so long is started again without a pause.
STEADY_S = 30.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def stop_on_signals(stop: asyncio.Event) -> None:
    """Let Ctrl-C and SIGTERM set `stop`; a second one ends the program at once."""
    loop = asyncio.get_running_loop()

    def ask() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)


def dies_with_parent() -> Callable[[], None] | None:
    """What a child does first, so that it is told to stop when we are gone, however that came (Linux)."""
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was too late already
            os._exit(1)

    return ask


def cpu_s_of(pid: int) -> float:
    """Processor time of another process so far, in seconds; 0 where the system doesn't say (no /proc)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once isn't always enough: nats-py swallows a cancellation that comes while it writes.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


class Child:
    """A program that is started again, with growing pauses, whenever it ends by itself."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], stop_s: float = STOP_S
    ) -> None:
        """Run `command` as `name`, see `watch`; told to end, it is killed after `stop_s`."""
        self.name = name
        self._stop_s = stop_s
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def watch(self) -> None:
        """Keep it running until cancelled, then stop it."""
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                started_s = time.monotonic()
                # a process group of its own: the terminal's Ctrl-C is for us, who stop it in order
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, env=self._environment, process_group=0, preexec_fn=dies_with_parent()
                )
                code = await self._process.wait()
                ran_s = time.monotonic() - started_s
                pause_s = FIRST_PAUSE_S if ran_s > STEADY_S else min(2 * pause_s, LONGEST_PAUSE_S)
                _log.warning(
                    "%s ended with %d after %.1f s; again in %.1f s", self.name, code, ran_s, pause_s
                )
                await asyncio.sleep(pause_s)
        finally:
            await self._stop()

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(self._stop_s):
                    await process.wait()
            except TimeoutError:
                _log.warning("%s didn't stop in %.1f s and is killed", self.name, self._stop_s)
                process.kill()
                await process.wait()
