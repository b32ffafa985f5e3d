"""Measurements for `headcount cost`: sizes of the log and the history, CPU time, and results of a load test."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from headcount.errors import SettingsError
from headcount.history.hours import HOUR_S
from headcount.history.manifest import PAUSES, Manifest
from headcount.messages.reports import WORKER_REPORT_SUBJECT, WorkerReport
from headcount.messages.topics import FIX_STREAM
from headcount.messaging.connection import Connection, Message
from headcount.messaging.stream_files import LogRecords
from headcount.services.cost import DayUsage, DeploymentSizes, StoredSize

#: Workers report every second.
REPORTS_S = 2.5
#: The results of `headcount bench day` as numbers, in its folder.
DAY_RESULTS = "day.json"


def measured_sizes(data: Path, manifest: Manifest, cpu_s_per_million: float | None) -> DeploymentSizes:
    """The sizes of a data folder and of its history.

    Raises:
        OSError: a file of the log cannot be read.
    """
    log = _log(data)
    return DeploymentSizes(
        history={name: size for name in _datasets(manifest) if (size := stored_size(manifest, name)).hours},
        log_bytes_per_fix=log.bytes / log.fixes if log.fixes else None,
        log_bytes_per_hour=log.tick_bytes / log.hours if log.hours else 0.0,
        cpu_s_per_million=cpu_s_per_million,
    )


def stored_size(manifest: Manifest, dataset: str) -> StoredSize:
    """The size of a data set, and the hours in which it has rows; that of fixes with their pauses."""
    segments = manifest.of(dataset)
    copies = manifest.of(PAUSES) if dataset == "fixes" else []
    hours = {
        hour for each in segments for hour in range(int(each.from_s // HOUR_S), int(each.to_s // HOUR_S) + 1)
    }
    covered = float(len(hours))
    if segments and len(hours) == 1:  # a young history: the part of the hour
        covered = (
            max(max(each.to_s for each in segments) - min(each.from_s for each in segments), 60.0) / HOUR_S
        )
    return StoredSize(
        sum(each.bytes for each in (*segments, *copies)), sum(each.rows for each in segments), covered
    )


async def worker_cpu_s_per_million(connection: Connection) -> float | None:
    """CPU seconds that the counting workers of a deployment have used for a million fixes; None before the first fix."""
    reports: dict[str, WorkerReport] = {}

    async def receive(message: Message) -> None:
        report = msgspec.json.decode(message.data, type=WorkerReport)
        reports[report.worker] = report

    await connection.subscribe(WORKER_REPORT_SUBJECT.format(worker="*"), receive)
    await asyncio.sleep(REPORTS_S)
    fixes = sum(sum(of.values()) for each in reports.values() for of in each.verdicts.values())
    used_s = sum(each.cpu_s or 0.0 for each in reports.values())
    return used_s / fixes * 1e6 if fixes else None


def read_day(folder: Path) -> DayUsage:
    """The results of `headcount bench day`.

    Raises:
        SettingsError: the folder has none.
    """
    path = folder / DAY_RESULTS
    try:
        return msgspec.json.decode(path.read_bytes(), type=DayUsage)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError("bench", f"{path}: {error}; run headcount bench day --out {folder}") from error


def _datasets(manifest: Manifest) -> list[str]:
    return sorted({each.dataset for each in manifest.segments} - {PAUSES})


def _log(data: Path) -> LogRecords:
    """The newest file of each partition's log."""
    found = LogRecords()
    for folder in sorted(data.glob(f"jetstream/*/streams/{FIX_STREAM.format(partition='*')}/msgs")):
        blocks = [path for path in folder.glob("*.blk") if path.stem.isdecimal()]
        if blocks:
            found.add(max(blocks, key=lambda path: int(path.stem)))
    return found
