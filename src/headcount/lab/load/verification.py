"""What a day's run left, against the rules: nothing acknowledged is lost, nothing that was said is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from headcount.adapters.device_aliases import AliasResolver
from headcount.adapters.translator import DURABLE
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import HeadcountError, LogError
from headcount.history.writer import CONSUMER
from headcount.lab.chaos.comparison import Comparison, Evidence, compare
from headcount.lab.chaos.independent_reader import (
    PartitionLog,
    read_day_keys,
    read_events,
    read_history,
    read_log,
)
from headcount.lab.chaos.observer import Observations
from headcount.lab.load.compose_stack import ComposeStack
from headcount.lab.load.up_system import UpSystem
from headcount.messages.topics import FIX_STREAM, FOREIGN_STREAM, HISTORY_STREAM, Kind
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import consumer_info, stream_info

SETTLE_S = 60.0
#: What was told is stored within a second; some more for a busy machine.
STORED_S = 3.0

FixKey = tuple[str, str, int]  # kind, device, event time in milliseconds


class StoredBytes(NamedTuple):
    """What a run left on disk."""

    fixes: int
    log_bytes: int
    history_bytes: int


@dataclass(slots=True)
class Verification:
    """What came of the comparison."""

    comparison: Comparison
    acknowledged: int
    lost: list[FixKey]  # acknowledged, but not in the log
    stored: StoredBytes

    @property
    def is_correct(self) -> bool:
        """Whether nothing is lost and nothing wrong."""
        return not self.lost and not self.comparison.different


def read_fix_keys(files: Iterable[Path]) -> set[FixKey]:
    """The fixes that senders wrote down as acknowledged."""
    found: set[FixKey] = set()
    for file in files:
        for line in file.read_text(encoding="ascii").splitlines():
            kind, device, t_ms = line.split()
            found.add((kind, device, int(t_ms)))
    return found


def lost(acknowledged: set[FixKey], log: Iterable[PartitionLog], names: AliasResolver) -> list[FixKey]:
    """What was acknowledged and isn't in the log, under its own name or the one that an older flow gets."""
    there = {
        (row.kind, row.device, round(row.fix.t * 1000))
        for partition in log
        for row in partition.rows
        if isinstance(row.fix.t, int | float)
    }
    return sorted(
        (kind, device, t_ms)
        for kind, device, t_ms in acknowledged - there
        if (*names.iotp(device, cast("Kind", kind)), t_ms) not in there
    )


async def verify_day(
    system: UpSystem | ComposeStack,
    connection: Connection,
    heard: Observations,
    geojson: dict[str, Any],
    acknowledged: set[FixKey],
    tell: Callable[[str], None],
) -> Verification:
    """Wait until all is counted and stored, read log, events and history, and compare; nobody sends any more.

    Raises:
        HeadcountError: the system doesn't come to rest.
    """
    tell("settling")
    await _drained(connection, FOREIGN_STREAM, DURABLE)
    until_s = time.time() + 0.5
    await _until(lambda: heard.oldest(system.partitions) > until_s, "fresh counts at the end")
    settled_s = min(heard.newest.values())
    await asyncio.sleep(STORED_S)
    tell("reading the log")
    await _drained(connection, HISTORY_STREAM, CONSUMER, unwritten=True)
    data = await system.written_history()
    log = await read_log(connection.client, system.partitions)
    events = await read_events(connection.client)
    fixes, recorded = await asyncio.to_thread(read_history, data)
    reports = [report for report in heard.reports if report.at <= settled_s]
    recorded = [row for row in recorded if row.at <= settled_s]
    keys = await read_day_keys(connection.client)
    evidence = Evidence(geojson, keys, settled_s, log, reports, events, fixes, recorded, {})
    tell("comparing")
    comparison = await asyncio.to_thread(compare, evidence)
    stored = await _stored(connection, system.partitions, data, sum(len(partition.rows) for partition in log))
    return Verification(
        comparison,
        len(acknowledged),
        lost(acknowledged, log, AliasResolver(system.secret, RegistryCache())),
        stored,
    )


async def _stored(connection: Connection, partitions: int, data: Path, fixes: int) -> StoredBytes:
    """Bytes of the log, the workers' ticks included, and of the history."""
    streams = [
        await stream_info(connection, FIX_STREAM.format(partition=number)) for number in range(partitions)
    ]
    files = (data / "history").rglob("*.parquet")
    return StoredBytes(
        fixes, sum(info.state.bytes for info in streams), sum(file.stat().st_size for file in files)
    )


async def _drained(connection: Connection, stream: str, consumer: str, *, unwritten: bool = False) -> None:
    """Wait until a consumer has fetched all that is there and, unless `unwritten`, acknowledged it."""

    async def left() -> int:
        try:
            info = await consumer_info(connection, stream, consumer)
        except LogError:
            return 1
        return info.num_pending + (0 if unwritten else info.num_ack_pending)

    with contextlib.suppress(TimeoutError):  # what is missing will be a difference
        async with asyncio.timeout(SETTLE_S):
            while await left():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)


async def _until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(SETTLE_S):
            while not condition():  # noqa: ASYNC110 - others fill what we look at
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise HeadcountError(f"{what}: not within {SETTLE_S:.0f} s") from None
