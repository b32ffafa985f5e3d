"""The API's connection to the core, which receives counts and reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from headcount.api.api_settings import ApiSettings
from headcount.api.live_counts import CHECK_INTERVAL_S
from headcount.api.live_sites import LiveSites
from headcount.errors import LogError
from headcount.messages.reports import REPORT_SUBJECTS
from headcount.messages.topics import COUNT_STREAM, COUNT_SUBJECTS
from headcount.messaging.connection import Connection, Message, connected
from headcount.messaging.jetstream import direct_scan
from headcount.messaging.site_versions import SiteFollower
from headcount.runtime.retry import retry
from headcount.runtime.tasks import cancel_all

#: A server that disappears without closing the connection is noticed within three of these.
PING_INTERVAL_S = 2
_REQUEST_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class CoreConnection:
    """A connection to the core that is restored whenever it is lost; everything else continues without it."""

    def __init__(
        self,
        settings: ApiSettings,
        connection: Connection,
        sites: SiteFollower,
        live: LiveSites,
        on_metrics: Callable[[str, bytes], None],
    ) -> None:
        """Keep `sites` current, deliver counts to `live`, and reports to `on_metrics(subject, payload)`."""
        self._settings = settings
        self._sites = sites
        self._live = live
        self._on_metrics = on_metrics
        self.connection = connection
        self._read_last = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the core is connected now."""
        return self.connection.is_connected

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[CoreConnection]:
        """Run the loops of the connection, whether the core is available or not."""
        await self.connection.subscribe(COUNT_SUBJECTS, self._take_counts)
        await self.connection.subscribe(REPORT_SUBJECTS, self._take_metrics)
        async with (
            connected(
                self._settings.core,
                "headcount api",
                wait=False,
                connection=self.connection,
                ping_interval_s=PING_INTERVAL_S,
                on_connect=self._on_connect,
                on_disconnect=self._on_disconnect,
            ),
            asyncio.TaskGroup() as group,
        ):
            loops = (
                group.create_task(self._read_last_counts(), name="api: last counts"),
                group.create_task(self._check_overdue(), name="api: overdue"),
                group.create_task(self._sites.run(self._on_new_site), name="api: sites"),
            )
            try:
                yield self
            finally:
                await cancel_all(loops)

    async def _take_counts(self, message: Message) -> None:
        self._live.take(message.data)

    async def _take_metrics(self, message: Message) -> None:
        self._on_metrics(message.subject, message.data)

    async def _check_overdue(self) -> None:
        while True:
            self._live.check_overdue()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def _read_last_counts(self) -> None:
        """After each connect, read what the partitions published last, until the core returns it."""
        while True:
            await self._read_last.wait()
            self._read_last.clear()
            await retry(self._read, (LogError,), "cannot read the last counts yet")

    async def _read(self) -> None:
        last = direct_scan(self.connection, COUNT_STREAM, COUNT_SUBJECTS, timeout_s=_REQUEST_TIMEOUT_S)
        async for message in last:
            self._live.take(message.data)

    def _on_new_site(self) -> None:
        self._live.on_new_versions()
        self._read_last.set()  # counts of a version that was not known

    def _on_connect(self) -> None:
        _log.info("connected to the core at %s", self._settings.core)
        self._sites.wake()
        self._read_last.set()

    def _on_disconnect(self) -> None:
        _log.warning("lost the connection to the core; serving the last counts until it is back")
