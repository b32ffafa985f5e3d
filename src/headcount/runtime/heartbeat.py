"""A sign of life in a file, for the health check of a container: the same for every role.

The file's age shows whether the event loop runs; its text is the address of the role's health check, if
it has one. `headcount.runtime.health` reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from headcount.runtime.health import BEAT_S

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def beating(file: Path | None, url: str = "") -> AsyncIterator[Callable[[str], None]]:
    """Inside, the file is touched each second; without one nothing is done.

    Yields a function that reports why the role is not healthy although it runs.

    Args:
        file: to touch.
        url: answers 200 while the role is healthy; "" where it has no such address.
    """
    if file is None:
        yield lambda _problem: None
        return
    task = asyncio.create_task(_beat(file, url), name="heartbeat")
    try:
        yield partial(_report, file)
    finally:
        task.cancel()


def _report(path: Path, problem: str) -> None:
    with contextlib.suppress(OSError):  # _beat warns
        path.write_text(problem)


async def _beat(path: Path, url: str) -> None:
    try:
        await asyncio.to_thread(path.write_text, url)
        while True:
            await asyncio.sleep(BEAT_S)
            os.utime(path)
    except OSError as error:
        _log.warning("%s cannot be written, the health check will fail: %s", path, error)
