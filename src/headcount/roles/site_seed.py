"""One site for all roles of a deployment.

The core keeps the digest of the deployment's site in memory: that of the first role that starts, until
`headcount site reload` replaces it. A role with another site waits for a while, and ends. A role whose site is replaced ends, and
what supervises it starts it again with the file as it is then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from headcount.errors import LogError, SettingsError, SiteChangedError
from headcount.messaging.connection import connected
from headcount.messaging.site_record import SiteRecord, SiteRecords
from headcount.roles import Run
from headcount.roles.endpoints import core_endpoint
from headcount.roles.site import site_summary
from headcount.runtime.retry import retry
from headcount.runtime.tasks import StopRequestedError, background, unless_stopped
from headcount.settings.deployment import Settings

POLL_S = 1.0
#: A role with another site ends after this.
REFUSED_S = 30.0
START_POLL_S = 0.1
#: The API serves the map and the history without a core: it waits no longer than this for the deployment's site.
API_WAITS_S = 5.0

_log = logging.getLogger(__name__)


async def run_with_site(
    role: str, run: Run, settings: Settings, stop: asyncio.Event, report: Callable[[str], None]
) -> None:
    """Run a role while its site is the deployment's; `report` receives the reason why it waits.

    Raises:
        SiteError: the file is not usable.
        SettingsError: the file is not the deployment's site, and remains so for `REFUSED_S`.
        SiteChangedError: the role must start again, because the deployment's site or the file has changed.
        StopRequestedError: `stop` was set while it waited.
    """
    version, summary = _version(settings.site), site_summary(settings)
    site = SiteRecord(summary.id, summary.digest)
    async with connected(core_endpoint(settings), f"headcount {role}: site", stop, wait=False) as connection:
        read = partial(SiteRecords(connection).get_or_set, site)
        found = await _first_record(read, stop, API_WAITS_S if role == "api" else None)
        if found not in (None, site):
            problem = (
                f"{settings.site} is not the site that this deployment runs with. This role waits: restore the "
                "file, or run `headcount site reload` to change the site of all roles"
            )
            _log.error("%s", problem)
            report(problem)
            another = _until(read, lambda now: now != found or _version(settings.site) != version)
            try:
                async with asyncio.timeout(REFUSED_S):
                    await unless_stopped(another, stop)
            except TimeoutError:
                raise SettingsError(
                    "site", "is not that of the deployment; this role does not start"
                ) from None
            raise SiteChangedError
        ended, changed = asyncio.Event(), asyncio.Event()

        async def watch() -> None:
            watching = _until(read, lambda now: now != site)
            with contextlib.suppress(StopRequestedError):
                await unless_stopped(watching, stop)
                changed.set()
            ended.set()

        async with background(watch(), "site"):
            await run(settings, ended)
        if changed.is_set():
            raise SiteChangedError


async def _first_record(
    read: Callable[[], Awaitable[SiteRecord]], stop: asyncio.Event, within_s: float | None
) -> SiteRecord | None:
    """The deployment's site as soon as the core answers; None where it does not in time."""
    waiting = retry(read, (LogError,), "waiting for the core", pause_s=START_POLL_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await unless_stopped(waiting, stop)
    _log.warning("the core does not answer; starting without it")
    return None


async def _until(read: Callable[[], Awaitable[SiteRecord]], condition: Callable[[SiteRecord], bool]) -> None:
    """Poll the deployment's site until it meets a condition; while the core does not answer, nothing changes."""
    while True:
        with contextlib.suppress(LogError):
            if condition(await read()):
                return
        await asyncio.sleep(POLL_S)


def _version(path: Path) -> tuple[int, int, int]:
    """Inode, size and time of a file; they differ once it has been changed or replaced."""
    try:
        status = path.stat()
    except OSError:  # replaced just now
        return (0, 0, 0)
    return status.st_ino, status.st_size, status.st_mtime_ns
