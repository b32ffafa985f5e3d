"""The core: a NATS server with the streams of the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from headcount.broker import data_folder, nats_probe
from headcount.broker.nats_config import ACCOUNT
from headcount.broker.nats_process import READY_S, NatsServer
from headcount.broker.refusals import PUBLISH_INTERVAL_S
from headcount.errors import DataFolderError, LogError
from headcount.messages.topics import INTERNAL
from headcount.messaging.retained_topics import purge_retained
from headcount.messaging.stream_files import CONTENT, damaged_streams
from headcount.messaging.streams import MQTT_SESSIONS, STORE_BYTES, ensure_streams
from headcount.runtime.processes import ChildProcess
from headcount.runtime.supervisor import STOP_S
from headcount.runtime.tasks import background

LOG = logging.getLogger(__name__)

#: How the server's words about a stream that could not be written for want of room contain it.
NO_ROOM = "no space"


class Broker(NatsServer):
    """A running NATS server with the streams of the log, as an async context manager.

    Inside it, MQTT and JetStream answer. With `peers` it is one node of three: entering waits until two
    of them are up and this one has what the others have. When a full disk has made it give up a stream, it is started again as soon
    as there is room; meanwhile `problem` is the reason.

    Raises (on entering; nothing is left behind then):
        DataFolderError, PortTakenError, BrokerVersionError, BrokerError: see NatsServer.
        LogError: the folder's log was made with another number of partitions.
    """

    @property
    def ready_s(self) -> float:
        """A node that has no majority yet does no harm; restarted again and again it would."""
        return math.inf if self.config.peers else READY_S

    async def _prepare(self) -> None:
        await asyncio.to_thread(_check_streams, self.config.data)
        # Streams of an earlier release have clients' ids on the disk: no client may use them.
        if data_folder.has_log(self.config.data, ACCOUNT, MQTT_SESSIONS):
            process = await self._spawn(closed=True)
            try:
                await self._until_ready(process, closed=True)
            finally:
                await process.stop(STOP_S)

    async def _started(self, process: ChildProcess) -> None:
        # After every start: what was kept in memory went with the last server. Until this is done it lets
        # no MQTT client in, so a PUBACK always means that our streams are there.
        await self._until(process, self._make_streams)
        if self.config.peers:
            # A node's streams in memory are empty after a start, and until it has caught up its votes elect
            # no leader: a second node may be restarted only then.
            await self._until(process, self._check_caught_up)

    async def _check_caught_up(self) -> None:
        problem = await nats_probe.ask_health(self.config)
        if problem and NO_ROOM not in problem:
            raise ConnectionRefusedError(problem)

    async def _make_streams(self) -> None:
        async with nats_probe.connected(self.config) as connection:
            store_bytes = data_folder.disk_budget_bytes(self.config.data, STORE_BYTES)
            await ensure_streams(
                connection,
                self.config.partitions,
                store_bytes=store_bytes,
                replicas=self.config.replicas,
                plugin_subjects=self.config.plugin_subjects,
            )

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with super()._running(), background(self._publish_refusals(), "broker refusals"):
            yield

    async def _publish_refusals(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_INTERVAL_S)
            if self.refusals.changed:
                with contextlib.suppress(LogError, *nats_probe.NO_ANSWER):
                    async with nats_probe.connected(self.config) as connection:
                        await self.refusals.publish(connection, self.config.server_name)

    async def _poll(self) -> None:
        """Query the server's health; restart it when that can help.

        Retained messages of devices are removed on the way.
        """
        process = self._server.process
        problem = await nats_probe.ask_health(self.config)
        await purge_retained(partial(nats_probe.request, self.config, INTERNAL), self.config.plugin_subjects)
        lasting = problem is not None and problem == self.problem
        # a node that only lags behind the others catches up by itself
        helps = not self.config.peers or NO_ROOM in (problem or "")
        if problem and not lasting and helps:
            LOG.error("the NATS server can't store: %s. Messages sent to it now may be lost", problem)
        elif problem and not lasting:
            LOG.warning("this node is behind the others: %s", problem)
        self.problem = problem
        if lasting and helps and process and data_folder.has_room(self.config.data):
            LOG.warning("there is room in %s: restarting the NATS server", self.config.data)
            await process.stop(STOP_S)
            self.problem = None


def _check_streams(data: Path) -> None:
    """Check the files of the streams before a start, because the server drops what it cannot read.

    Raises:
        DataFolderError: a stream is damaged.
    """
    for folder, problem in damaged_streams(data):
        content = CONTENT.get(folder.name, "the log")
        raise DataFolderError(
            str(data),
            f"{content} ({folder.name}) is damaged: {problem}",
            f"Restore the folder `jetstream` from a backup; or move {folder} to another place to go on without "
            "its content. `headcount doctor` lists all problems of the folder.",
        )
