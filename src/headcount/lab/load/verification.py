"""Verifies the results of a day: no acknowledged fix is lost, and all published results follow the rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from headcount.adapters.translator import DURABLE
from headcount.decoders.device_aliases import AliasResolver
from headcount.devices.registry_cache import RegistryCache
from headcount.lab.chaos.comparison import Comparison, Evidence, compare
from headcount.lab.chaos.expected_counts import site_of
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
from headcount.lab.waiting import wait_consumed, wait_until
from headcount.messages.topics import FIX_STREAM, FOREIGN_STREAM, Kind
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import stream_info
from headcount.services.stored_rows import wait_stored

SETTLE_S = 60.0
#: Published results are stored within a second; the rest is for busy machines.
STORED_S = 3.0

FixKey = tuple[str, str, int]  # kind, device, event time in milliseconds


class StoredBytes(NamedTuple):
    """The data of a run on disk."""

    fixes: int
    log_bytes: int
    history_bytes: int


@dataclass(slots=True)
class Verification:
    """The result of the verification."""

    comparison: Comparison
    acknowledged: int
    lost: list[FixKey]  # acknowledged but not in the log
    stored: StoredBytes

    @property
    def is_correct(self) -> bool:
        """Whether no fix is lost and no result is wrong."""
        return not self.lost and not self.comparison.different


def read_fix_keys(files: Iterable[Path]) -> set[FixKey]:
    """Read the fixes that the sender processes recorded as acknowledged."""
    found: set[FixKey] = set()
    for file in files:
        for line in file.read_text(encoding="ascii").splitlines():
            kind, device, t_ms = line.split()
            found.add((kind, device, int(t_ms)))
    return found


def lost_fixes(acknowledged: set[FixKey], log: Iterable[PartitionLog], names: AliasResolver) -> list[FixKey]:
    """Acknowledged fixes that aren't in the log, under the device's id or its alias of an older flow."""
    logged = {
        (row.kind, row.device, round(row.fix.t * 1000))
        for partition in log
        for row in partition.rows
        if isinstance(row.fix.t, int | float)
    }
    return sorted(
        (kind, device, t_ms)
        for kind, device, t_ms in acknowledged - logged
        if (*names.derived("iotp", device, cast("Kind", kind))[1:], t_ms) not in logged
    )


async def verify_day(
    system: UpSystem | ComposeStack,
    connection: Connection,
    observed: Observations,
    geojson: dict[str, Any],
    acknowledged: set[FixKey],
    show: Callable[[str], None],
) -> Verification:
    """Wait until everything is counted and stored, read log, events and history, and compare.

    The senders have ended.

    Raises:
        HeadcountError: the system does not settle.
    """
    show("settling")
    await wait_consumed(connection, FOREIGN_STREAM, DURABLE, SETTLE_S, acknowledged=True)
    until_s = time.time() + 0.5
    await wait_until(
        lambda: observed.oldest(system.partitions) > until_s, "fresh counts at the end", SETTLE_S
    )
    settled_s = min(observed.newest.values())
    await asyncio.sleep(STORED_S)
    show("reading the log")
    await wait_stored(connection, SETTLE_S)
    data = await system.written_history()
    log = await read_log(connection.client, system.partitions)
    events = await read_events(connection.client)
    fixes, recorded = await asyncio.to_thread(read_history, data)
    reports = [report for report in observed.reports if report.at <= settled_s]
    recorded = [row for row in recorded if row.at <= settled_s]
    keys = await read_day_keys(connection.client)
    evidence = Evidence(geojson, keys, settled_s, log, reports, events, fixes, recorded, {})
    show("comparing")
    comparison = await asyncio.to_thread(compare, evidence)
    stored = await _stored(connection, system.partitions, data, sum(len(partition.rows) for partition in log))
    return Verification(
        comparison,
        len(acknowledged),
        lost_fixes(acknowledged, log, AliasResolver(system.secret, RegistryCache(), site_of(geojson))),
        stored,
    )


async def _stored(connection: Connection, partitions: int, data: Path, fixes: int) -> StoredBytes:
    """Bytes of the log, including ticks, and of the history."""
    streams = [
        await stream_info(connection, FIX_STREAM.format(partition=number)) for number in range(partitions)
    ]
    files = (data / "history").rglob("*.parquet")
    return StoredBytes(
        fixes, sum(info.state.bytes for info in streams), sum(file.stat().st_size for file in files)
    )
