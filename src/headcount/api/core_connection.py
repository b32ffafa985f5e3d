"""The API's connection to the broker: it hears counts and workers' numbers, and asks workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.api.api_settings import ApiSettings
from headcount.api.live_counts import CHECK_S, LiveCounts
from headcount.messages.topics import COUNT_STREAM, COUNT_SUBJECT

METRICS_SUBJECT = "metrics.>"  # metrics.count.<worker>, metrics.adapters.<id>
#: Between attempts to connect, and to read the last counts while the broker isn't ready for it.
RETRY_S = 0.5
_NO_MESSAGE = 10037  # JetStream's error code for "no message found"

_log = logging.getLogger(__name__)


class CoreConnection:
    """One connection to the broker, made anew as often as needed; without it nothing else stops."""

    def __init__(
        self, settings: ApiSettings, live: LiveCounts, on_metrics: Callable[[str, bytes], None]
    ) -> None:
        """Deliver counts to `live`, and workers' numbers to `on_metrics(subject, payload)`."""
        self._settings = settings
        self._live = live
        self._on_metrics = on_metrics
        self._client = Client()
        self._read_last = asyncio.Event()
        self._last_error = ""

    @property
    def client(self) -> Client:
        """The connection itself; another one after it was given up for good."""
        return self._client

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._client.is_connected

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[CoreConnection]:
        """Run the loops of the connection; inside, it may or may not be connected."""
        async with asyncio.TaskGroup() as group:
            loops = (
                group.create_task(self._keep_connected(), name="api: connect"),
                group.create_task(self._keep_read(), name="api: last counts"),
                group.create_task(self._keep_checking(), name="api: overdue"),
            )
            try:
                yield self
            finally:
                for loop in loops:
                    loop.cancel()
                with contextlib.suppress(nats.errors.Error, OSError):
                    await self._client.close()

    async def _keep_connected(self) -> None:
        """Connect, and should the client ever give up for good, connect anew."""
        while True:
            closed = asyncio.Event()
            await self._connect(closed)
            await self._client.subscribe("count.*", cb=self._take_counts)
            await self._client.subscribe(METRICS_SUBJECT, cb=self._take_metrics)
            self._read_last.set()
            _log.info("connected to the broker at %s", self._settings.broker_url)
            await closed.wait()
            await asyncio.sleep(RETRY_S)

    async def _connect(self, closed: asyncio.Event) -> None:
        """Return when connected; nats-py itself tries again and again, and says so to `_on_error`."""

        async def on_closed() -> None:
            closed.set()

        self._client = Client()
        await self._client.connect(
            self._settings.broker_url.split(","),
            user=self._settings.user,
            password=self._settings.password,
            name="headcount api",
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_S,  # type: ignore[arg-type]  # it only sleeps that long
            connect_timeout=2,
            ping_interval=2,  # a broker that is gone without a word is noticed in 6 s
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
            closed_cb=on_closed,
        )

    async def _take_counts(self, message: Msg) -> None:
        self._live.take(message.data)

    async def _take_metrics(self, message: Msg) -> None:
        self._on_metrics(message.subject, message.data)

    async def _keep_checking(self) -> None:
        while True:
            self._live.check_overdue()
            await asyncio.sleep(CHECK_S)

    async def _keep_read(self) -> None:
        """After each connect, read what the partitions said last, until the broker gives it."""
        while True:
            await self._read_last.wait()
            self._read_last.clear()
            try:
                await self._read()
            except (nats.errors.Error, TimeoutError) as error:
                _log.debug("the last counts can't be read yet: %s", error)
                self._read_last.set()
                await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        log = self._client.jetstream(timeout=2)
        for partition in range(self._settings.partitions):
            try:
                last = await log.get_last_msg(COUNT_STREAM, COUNT_SUBJECT.format(partition=partition))
            except nats.js.errors.APIError as error:
                if error.err_code == _NO_MESSAGE:
                    continue
                raise
            if last.data is not None:
                self._live.take(last.data)

    async def _on_error(self, error: Exception) -> None:
        if str(error) != self._last_error:
            self._last_error = str(error)
            _log.warning("broker at %s: %s", self._settings.broker_url, error or repr(error))

    async def _on_disconnect(self) -> None:
        if self._client.is_closed:  # by us: the API stops
            return
        _log.warning("the broker is gone; serving the last numbers until it is back")

    async def _on_reconnect(self) -> None:
        self._last_error = ""
        _log.info("the broker is back")
        self._read_last.set()
