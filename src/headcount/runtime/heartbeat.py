"""A sign of life in a file, for the health check of a container: the same for every role.

The file's age says whether the event loop runs; its text is the address that says more, if the role
has one. `headcount.runtime.health` reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from headcount.runtime.health import BEAT_S, PULSE

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def beating(url: str = "") -> AsyncIterator[None]:
    """Inside, the file named by HEADCOUNT_PULSE is touched each second; without that name nothing is done.

    `url` answers 200 while the role is healthy; "" where it has no such address.
    """
    name = os.environ.get(PULSE)
    if not name:
        yield
        return
    task = asyncio.create_task(_beat(Path(name), url), name="pulse")
    try:
        yield
    finally:
        task.cancel()


async def _beat(path: Path, url: str) -> None:
    try:
        await asyncio.to_thread(path.write_text, url)
        while True:
            await asyncio.sleep(BEAT_S)
            os.utime(path)
    except OSError as error:
        _log.warning("%s=%s can't be written, the health check will fail: %s", PULSE, path, error)
