"""Signal handlers: the only module that installs them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from headcount.runtime.processes import signal_all
from headcount.runtime.tasks import StopRequestedError, until_stopped


def stop_on_signals(stop: asyncio.Event) -> None:
    """Let Ctrl-C and SIGTERM set `stop`; a second one ends the program immediately.

    A second Ctrl-C also kills the processes that were started here; a second SIGTERM is passed on to them.
    """
    loop = asyncio.get_running_loop()

    def handle(passed_on: signal.Signals) -> None:
        if stop.is_set():
            signal_all(passed_on)
            os._exit(130)
        stop.set()

    loop.add_signal_handler(signal.SIGINT, handle, signal.SIGKILL)
    loop.add_signal_handler(signal.SIGTERM, handle, signal.SIGTERM)


@contextlib.contextmanager
def on_hangup(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` on each SIGHUP while the body runs."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, action)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def reload_program(pid_file: Path, program: str) -> bool:
    """Have a program read its files again (SIGHUP); False: its process id in the file is not one of it.

    Raises:
        PermissionError: it belongs to another user.
    """
    try:
        pid = int(pid_file.read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() != program:  # another one has its number now
            return False
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False
    return True


async def run_role(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a role with an event that Ctrl-C and SIGTERM set; it then ends by itself."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    with contextlib.suppress(StopRequestedError):
        await work(stop)


async def run_until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run work that has no end of its own; Ctrl-C and SIGTERM cancel it, so that it closes what it opened."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    await until_stopped(work, stop)
