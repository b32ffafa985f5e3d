"""The role `bridge`: messages of a source into the log.

    source ──▶ headcount/{site}/{kind}/{device}/{fix,status} ──▶ FIX_<p>  ──▶ acknowledged at the source
           └─▶ topics of decoders                            ──▶ FOREIGN  ──┘
           └─▶ all others: ignored, and counted by reason

If the process ends before a batch is acknowledged, the source delivers it again, and the counting rules judge
repeated fixes as `duplicate`. So nothing is lost, and nothing is counted twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from headcount.bridge.routing import FOREIGN, LOG, Router
from headcount.bridge.source import Source, SourceMessage
from headcount.decoders.formats import Format
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.reports import BRIDGE_REPORT_SUBJECT, BridgeReport
from headcount.messaging.appending import append_in_order
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.jetstream import NewMessage
from headcount.messaging.kv import KvBucket
from headcount.messaging.leader_election import BRIDGE_LEADER_KEY, LeaderElection
from headcount.messaging.streams import MAX_DEVICE_MESSAGE_BYTES, UNIT_BUCKET, opened_log
from headcount.runtime.tasks import background, wait_any

_log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 1.0
#: A bridge that was killed is replaced after this.
LEASE_S = 10.0
_CAMPAIGN_INTERVAL_S = 1.0


@dataclass(slots=True)
class BridgeStats:
    """Numbers of messages since the start, and the state."""

    active: bool = False
    copied: Counter[str] = field(default_factory=lambda: Counter({LOG: 0, FOREIGN: 0}))
    ignored: Counter[str] = field(default_factory=Counter)


async def run(
    core: Endpoint,
    name: str,
    source: Source,
    stop: asyncio.Event,
    *,
    formats: Sequence[Format],
    accounts: bool,
    report: Callable[[str], None] = lambda _problem: None,
) -> None:
    """Copy until `stop` is set.

    Args:
        core: the NATS servers.
        name: of the bridge; of those with the same name one is active.
        source: where messages come from.
        stop: ends the bridge.
        formats: those that the role `adapters` decodes.
        accounts: whether devices have accounts.
        report: receives why the bridge is not healthy, or "".

    Raises:
        StopRequestedError: `stop` was set while waiting for the core.
    """
    process = f"{os.getpid()}-{secrets.token_hex(4)}"
    registry, stats = RegistryCache(), BridgeStats()
    async with opened_log(core, f"headcount bridge {name}", stop) as connection:
        router = Router(registry, formats, MAX_DEVICE_MESSAGE_BYTES, accounts=accounts)
        bridge = _Bridge(connection, source, router, stats)
        election = LeaderElection(
            KvBucket(connection, UNIT_BUCKET), process, LEASE_S, key=BRIDGE_LEADER_KEY.format(name=name)
        )
        async with (
            background(registry.run(connection), "registry"),
            background(_report(connection, source, stats, process, name, report), "metrics"),
        ):
            # before the registry is read, a device that is blocked would pass
            await wait_any(registry.ready, stop)
            if source.exclusive:
                await _copy_while_leading(bridge, election, stop)
            else:
                await bridge.copy(stop)


@dataclass(frozen=True, slots=True)
class _Bridge:
    connection: Connection
    source: Source
    router: Router
    stats: BridgeStats

    async def copy(self, stop: asyncio.Event) -> None:
        """Copy batch after batch until `stop` is set."""
        self.stats.active = True
        try:
            async with contextlib.aclosing(self.source.batches(stop)) as batches:
                async for batch in batches:
                    if not await self._copy_batch(batch, stop):
                        return
                    await self.source.acknowledge()
        finally:
            self.stats.active = False

    async def _copy_batch(self, batch: list[SourceMessage], stop: asyncio.Event) -> bool:
        """Store a batch; False: stopped before that."""
        appended: list[NewMessage] = []
        copied: Counter[str] = Counter()
        ignored: Counter[str] = Counter()
        for message in batch:
            if message.ignored:
                ignored[message.ignored] += 1
                continue
            subject, what = self.router.route(message.topic, message.payload)
            if not subject:
                ignored[what] += 1
                continue
            copied[what] += 1
            appended.append(NewMessage(subject, message.payload))
        if not await append_in_order(self.connection, appended, stop):
            return False
        self.stats.copied.update(copied)
        self.stats.ignored.update(ignored)
        return True


async def _copy_while_leading(bridge: _Bridge, election: LeaderElection, stop: asyncio.Event) -> None:
    """Copy whenever this process holds the lease, until `stop` is set."""
    while not stop.is_set():
        lost = asyncio.Event()
        if await _campaign(election):
            async with background(_hold(election, lost, stop), "lease"):
                await bridge.copy(lost)
        await wait_any(stop, timeout_s=_CAMPAIGN_INTERVAL_S)
    with contextlib.suppress(LogError):
        await election.resign()


async def _hold(election: LeaderElection, lost: asyncio.Event, stop: asyncio.Event) -> None:
    """Renew the lease; set `lost` when it may have another holder, or at `stop`."""
    while not stop.is_set() and (await _campaign(election) or election.is_certain):
        await wait_any(stop, timeout_s=_CAMPAIGN_INTERVAL_S)
    lost.set()
    if not stop.is_set():
        _log.warning("the lease of this bridge was lost; another one may be active")


async def _campaign(election: LeaderElection) -> bool:
    try:
        return await election.campaign()
    except LogError as error:
        _log.debug("cannot renew the lease: %s", error)
        return False


async def _report(
    connection: Connection,
    source: Source,
    stats: BridgeStats,
    process: str,
    name: str,
    report: Callable[[str], None],
) -> None:
    logged: str | None = None
    while True:
        problem = source.problem if stats.active else ""
        if problem != logged:
            report(problem)
            logged = problem
        if connection.is_connected:
            connected = stats.active and not source.problem
            body = BridgeReport(
                process, name, stats.active, connected, dict(stats.copied), dict(stats.ignored)
            )
            with contextlib.suppress(LogError):
                await connection.publish(
                    BRIDGE_REPORT_SUBJECT.format(process=process), msgspec.json.encode(body)
                )
        await asyncio.sleep(REPORT_INTERVAL_S)
