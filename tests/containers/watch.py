"""Sends messages to a cluster under test and records its counts, while its containers break."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client

from containers.stack import Stack, until
from headcount.errors import LogError
from headcount.lab.chaos.comparison import Comparison, Evidence, compare
from headcount.lab.chaos.independent_reader import read_day_keys, read_events, read_history, read_log
from headcount.lab.chaos.mqtt_senders import SendCounters, ignore_disconnects, send
from headcount.lab.chaos.observer import Observations, ObservedCounts, observe
from headcount.lab.chaos.traffic import CONNECTIONS, ScheduledMessage
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection
from headcount.services.stored_rows import wait_stored

RETRY_S = 0.2
LINK_S = 3.0
SETTLE_S, STORED_S = 180.0, 3.0


async def connect(stack: Stack) -> Client:
    """A client of the core, where it is now; it doesn't come back after a break.

    Raises:
        OSError, nats.errors.Error: the core can't be reached.
    """
    address = await asyncio.to_thread(lambda: stack.address(stack.one("core")))
    return await nats.connect(
        f"nats://{address}:4222",
        user=INTERNAL,
        password=await asyncio.to_thread(lambda: stack.secret),
        name="headcount test",
        connect_timeout=2,
        allow_reconnect=False,
        ping_interval=1,
        max_outstanding_pings=2,
        error_cb=_ignore,
    )


async def _ignore(_: Exception) -> None:
    """The core is killed on purpose."""


class Watch:
    """Load on the cluster and an ear to its counts, in a thread of their own, as a context manager."""

    def __init__(self, stack: Stack, says: list[ScheduledMessage]) -> None:
        """Send what `says` through the proxy from `start_s` on."""
        self.sent = SendCounters()
        self.start_s = 0
        self._stack, self._says = stack, says
        self._heard: list[Observations] = []
        self._problem: BaseException | None = None
        self._ready, self._end, self._loaded = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._ready.set()
        self._thread.join()
        if self._problem is not None and kind is None:
            raise self._problem

    def begin(self) -> None:
        """Start the load now."""
        self.start_s = math.ceil(time.time())
        self._ready.set()

    def finish(self, seconds: float) -> None:
        """Wait until all of the load has been sent.

        Raises:
            AssertionError: not within `seconds`.
        """
        assert self._loaded.wait(seconds), f"{self.sent.messages} of {len(self._says)} sent"

    @property
    def reports(self) -> list[ObservedCounts]:
        """All counts so far, in the order in which they came."""
        return [report for heard in list(self._heard) for report in list(heard.reports)]

    def oldest(self, partitions: int) -> float:
        """The last instant (Unix seconds) whose counts all partitions have published."""
        newest: dict[int, float] = {}
        for heard in list(self._heard):
            for partition, at in list(heard.newest.items()):
                newest[partition] = max(at, newest.get(partition, 0.0))
        return min((newest.get(number, 0.0) for number in range(partitions)), default=0.0)

    def waits(self, least_s: float) -> list[tuple[float, float]]:
        """When a connection's message was due and acknowledged, for waits of at least `least_s` seconds."""
        acked = self.sent.acknowledged
        found: list[tuple[float, float]] = []
        for connection in range(CONNECTIONS):
            free_s = float(self.start_s)  # the message before it has been acknowledged
            for say in self._says:
                if say.connection != connection or say.number not in acked or not say.qos:
                    continue
                due_s = max(self.start_s + say.at_s, free_s)
                free_s = max(acked[say.number], due_s)
                if free_s - due_s >= least_s:
                    found.append((due_s, free_s))
        return found

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except BaseException as error:  # noqa: BLE001 - raised by __exit__
            self._problem = error
        finally:
            self._loaded.set()

    async def _watch(self) -> None:
        asyncio.get_running_loop().set_exception_handler(ignore_disconnects)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(), name="listen")
            await asyncio.to_thread(self._ready.wait)
            if not self._end.is_set():
                sending = [group.create_task(self._send(n), name=f"send {n}") for n in range(CONNECTIONS)]
                while not self._end.is_set() and not all(task.done() for task in sending):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                self._loaded.set()
                await asyncio.to_thread(self._end.wait)
                for task in sending:
                    task.cancel()
            listening.cancel()

    async def _send(self, number: int) -> None:
        says = [say for say in self._says if say.connection == number]
        await send(says, self._stack.mqtt_port, self.start_s, self.sent, number)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, LogError, nats.errors.Error):
                client = await connect(self._stack)
                try:
                    self._heard.append(await observe(Connection(client)))
                    while client.is_connected:  # noqa: ASYNC110
                        await asyncio.sleep(RETRY_S)
                finally:
                    await client.close()
            await asyncio.sleep(RETRY_S)


def judge(stack: Stack, watch: Watch, geojson: dict[str, Any], partitions: int, folder: Path) -> Comparison:
    """Let it settle, stop what writes, and compare all published counts with the oracle over the log."""
    until_s = time.time() + 0.5
    took_s = until(lambda: watch.oldest(partitions) > until_s, "fresh counts at the end", SETTLE_S)
    print(f"counts were live {took_s:.1f} s after the last message")
    settled_s = watch.oldest(partitions)
    time.sleep(STORED_S)
    for container in [*stack.all("scale"), *stack.all("count"), *stack.scaled("count")]:
        stack.stopped(container)
    evidence = asyncio.run(_evidence(stack, watch, geojson, partitions, settled_s, folder))
    began_s = time.monotonic()
    comparison = compare(evidence)
    print(f"compared in {time.monotonic() - began_s:.1f} s")
    return comparison


async def _evidence(
    stack: Stack, watch: Watch, geojson: dict[str, Any], partitions: int, settled_s: float, folder: Path
) -> Evidence:
    client = await connect(stack)
    try:
        await wait_stored(Connection(client), SETTLE_S)  # what is missing will be a difference
        writer = stack.one("history")
        await asyncio.to_thread(stack.stopped, writer)
        await asyncio.to_thread(stack.fetch, writer, "/data/history", folder)
        fixes, recorded = await asyncio.to_thread(read_history, folder)
        log, events = await read_log(client, partitions), await read_events(client)
        keys = await read_day_keys(client)
    finally:
        await client.close()
    return Evidence(
        geojson,
        keys,
        settled_s,
        log,
        watch.reports,
        events,
        fixes,
        recorded,
        watch.sent.acknowledged,
    )
