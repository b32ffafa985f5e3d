"""A whole chaos test: start, load with faults, settle, stop, read, compare."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from headcount.errors import LogError
from headcount.lab.chaos.chaos_system import ChaosSystem
from headcount.lab.chaos.comparison import (
    Comparison,
    Evidence,
    compare,
    compare_acknowledged,
    compare_stored_events,
)
from headcount.lab.chaos.erasures import erase_all, plan_erasures
from headcount.lab.chaos.fault_injection import AppliedFault, apply_all, old_hours
from headcount.lab.chaos.fault_schedule import Fault, schedule
from headcount.lab.chaos.independent_reader import (
    PartitionLog,
    read_day_keys,
    read_events,
    read_history,
    read_log,
    read_site_versions,
    read_stored_events,
)
from headcount.lab.chaos.mqtt_senders import SendCounters, ignore_disconnects, send
from headcount.lab.chaos.observer import Observations, observe
from headcount.lab.chaos.recovery import Gap, gaps, recovery_s
from headcount.lab.chaos.short_holds import short_hold_scenario, short_hold_versions
from headcount.lab.chaos.small_disk import small_disk
from headcount.lab.chaos.traffic import CONNECTIONS, ScheduledMessage, traffic
from headcount.lab.waiting import wait_until
from headcount.messages.topics import HISTORY_FLUSH_SUBJECT
from headcount.messaging.connection import Connection
from headcount.services.stored_rows import wait_stored
from headcount.worker.leases import LEASE_TTL_S

PARTITIONS = (4, 8, 16)
#: The id of the site that is added and removed during a run.
SECOND_SITE = "second"
#: Time that senders may take for queued messages after the load, and that the system may take to settle.
DRAIN_S, SETTLE_S = 60.0, 60.0
#: Between two requests to the history writers to store their rows: by themselves they do so once a minute.
FLUSH_INTERVAL_S = 0.3
#: Published results are stored within a second; the rest is for busy machines.
STORED_S = 3.0


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """The parameters of a chaos test."""

    seed: int
    seconds: float
    workers: int
    keep: Path | None = None  # a folder that is kept


@dataclass(frozen=True, slots=True)
class ChaosProgress:
    """The progress of a chaos test."""

    text: str
    share: float  # of the whole, 0 to 1
    fault: Fault | None = None  # that has just started


@dataclass(slots=True)
class ChaosResult:
    """The result of a chaos test."""

    plan: ChaosPlan
    partitions: int
    start_s: int
    end_s: float
    faults: list[AppliedFault]
    comparison: Comparison
    observed: Observations
    gaps: list[Gap]
    log: list[PartitionLog]
    owners: dict[tuple[int, int], int]  # (partition, epoch) → worker
    sent: SendCounters
    hours_dropped: bool
    ended: dict[str, list[int]] = field(default_factory=dict)  # role → unexpected exit codes
    folder: Path | None = None

    @property
    def is_exact(self) -> bool:
        """Whether there is no difference and no acknowledged fix is lost."""
        return not self.comparison.different and not self.comparison.lost and self.hours_dropped

    def lost_after(self) -> dict[str, list[float]]:
        """Last fault before the PUBACK of a lost fix → seconds between them."""
        found: dict[str, list[float]] = {}
        for number in self.comparison.lost:
            acked_s = self.sent.acknowledged[number]
            before = [one for one in self.faults if one.from_s <= acked_s and not one.skipped]
            name = f"{before[-1].fault.kind} at {before[-1].fault.at_s:g} s" if before else "the start"
            from_s = before[-1].from_s if before else self.start_s
            found.setdefault(name, []).append(acked_s - from_s)
        return found

    def recoveries(self) -> dict[str, list[float]]:
        """Kind of fault → seconds until all partitions published fresh counts again, for each fault."""
        happened = [applied for applied in self.faults if not applied.skipped]
        found: dict[str, list[float]] = {}
        for index, applied in enumerate(happened):
            next_s = happened[index + 1].from_s if index + 1 < len(happened) else math.inf
            cost_s = recovery_s(applied.fault, applied.from_s, next_s, self.gaps)
            found.setdefault(applied.fault.kind, []).append(cost_s)
        return found


async def run_chaos_test(plan: ChaosPlan, show: Callable[[ChaosProgress], None]) -> ChaosResult:
    """Run a chaos test: the load, about 15 s to start and settle, and the comparison.

    Raises:
        HeadcountError: the system does not start, or does not respond at the end.
    """
    asyncio.get_running_loop().set_exception_handler(ignore_disconnects)
    scenario = short_hold_scenario(plan.seed)
    partitions = Random(f"partitions {plan.seed}").choice(PARTITIONS)
    faults = schedule(plan.seed, plan.seconds, plan.workers, LEASE_TTL_S)
    floods_s = [fault.at_s for fault in faults if fault.kind == "duplicates"]
    messages = traffic(plan.seed, scenario, plan.seconds, floods_s)
    second = short_hold_scenario(plan.seed, SECOND_SITE)
    # from the start to the end: what is sent before it is added and after it is removed counts nowhere
    messages += traffic(plan.seed + 1, second, plan.seconds, floods_s, first=len(messages))
    messages.sort(key=lambda message: message.at_s)
    async with _folder(plan.keep) as folder:
        data = folder / "data"
        site = folder / "site.geojson"
        site.write_text(json.dumps(scenario.geojson))
        with small_disk(data) as no_disk:
            show(ChaosProgress("starting", 0.0))
            changes = sum(fault.kind == "site change" for fault in faults)
            versions = short_hold_versions(plan.seed, changes)
            async with ChaosSystem(
                folder, data, site, partitions, plan.workers, versions, second.geojson
            ) as system:
                run = _ChaosRun(plan, system, scenario.geojson, faults, messages, show)
                return await run.run(no_disk)


@contextlib.asynccontextmanager
async def _folder(keep: Path | None) -> AsyncIterator[Path]:
    if keep is not None:
        await asyncio.to_thread(keep.mkdir, parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="headcount-prove-", ignore_cleanup_errors=True) as name:
        yield Path(name)


class _ChaosRun:
    """The stages of a run."""

    def __init__(
        self,
        plan: ChaosPlan,
        system: ChaosSystem,
        geojson: dict[str, Any],
        faults: list[Fault],
        messages: list[ScheduledMessage],
        show: Callable[[ChaosProgress], None],
    ) -> None:
        self._plan = plan
        self._system = system
        self._geojson = geojson
        self._faults = faults
        self._messages = messages
        self._show_progress = show
        self._site = geojson["features"][0]["properties"]["id"]
        self._counters = SendCounters()
        self._start_s = 0
        self._total_s = plan.seconds * 1.2 + 15

    async def run(self, no_disk: str) -> ChaosResult:
        async with self._system.connect() as connection:
            observed = await observe(connection, self._site)
            await self._wait(lambda: observed.oldest(self._partitions) > 0, "the first counts")
            self._start_s = math.ceil(time.time())
            applied = await self._run_load(connection, no_disk)
            settled_s = await self._settle(observed)
            end_s = time.time()
            return await self._collect(connection, observed, applied, settled_s, end_s)

    @property
    def _partitions(self) -> int:
        return self._system.settings.partitions

    def _report(self, text: str, share: float, fault: Fault | None = None) -> None:
        self._show_progress(ChaosProgress(text, min(share, 1.0), fault))

    async def _run_load(self, connection: Connection, no_disk: str) -> list[AppliedFault]:
        async with asyncio.TaskGroup() as group:
            injecting = group.create_task(
                apply_all(
                    self._system,
                    self._faults,
                    self._start_s,
                    no_disk,
                    lambda fault: self._report(fault.kind, self._share(), fault),
                ),
                name="faults",
            )
            showing = group.create_task(self._show_sent(), name="show")
            flushing = group.create_task(_flush_history(connection), name="flush")
            erasing = erase_all(
                connection,
                plan_erasures(self._plan.seed, self._plan.seconds),
                self._site,
                self._partitions,
                self._start_s,
            )
            async with asyncio.timeout(self._plan.seconds + DRAIN_S):
                await asyncio.gather(*self._senders(), erasing)
            await injecting
            showing.cancel()
            flushing.cancel()
        return injecting.result()

    def _senders(self) -> list[Any]:
        port = self._system.settings.mqtt_port
        return [
            send(
                [message for message in self._messages if message.connection == number],
                port,
                self._start_s,
                self._counters,
                number,
            )
            for number in range(CONNECTIONS)
        ]

    def _share(self) -> float:
        return (time.time() - self._start_s) / self._total_s

    async def _show_sent(self) -> None:
        while True:
            self._report(f"{self._counters.messages} messages sent", self._share())
            await asyncio.sleep(0.5)

    async def _settle(self, observed: Observations) -> float:
        """Wait until all messages are counted and stored; return the instant up to which that holds."""
        self._report("settling", self._share())
        until_s = time.time() + 0.5
        await self._wait(lambda: observed.oldest(self._partitions) > until_s, "fresh counts at the end")
        settled_s = min(observed.newest.values())
        await asyncio.sleep(STORED_S)
        return settled_s

    async def _wait(self, condition: Callable[[], bool], what: str) -> None:
        hint = f" (seed {self._plan.seed}); the logs are in {self._system.folder}"
        await wait_until(condition, what, SETTLE_S, hint)

    async def _collect(
        self,
        connection: Connection,
        observed: Observations,
        applied: list[AppliedFault],
        settled_s: float,
        end_s: float,
    ) -> ChaosResult:
        system = self._system
        self._report("stopping the workers", self._share())
        for worker in system.workers.values():
            await worker.stop()
        dropped = await self._has_retention_worked(applied)
        await wait_stored(connection, SETTLE_S)
        for history in system.histories.values():
            await history.stop()
        self._report("reading", self._share())
        log = await read_log(connection.client, self._partitions)
        events = await read_events(connection.client)
        fixes, recorded = await asyncio.to_thread(read_history, system.data)
        evidence = Evidence(
            self._geojson,
            await read_day_keys(connection.client),
            settled_s,
            log,
            observed.reports,
            events,
            fixes,
            recorded,
            self._counters.acknowledged,
            stored_events=await asyncio.to_thread(read_stored_events, system.data),
        )
        sites = await read_site_versions(connection.client)
        before = self._share()
        self._report("comparing", before)
        comparison = await asyncio.to_thread(
            _compare_sites,
            evidence,
            sites,
            lambda share: self._report("comparing", before + share * (1 - before)),
        )
        return ChaosResult(
            self._plan,
            self._partitions,
            self._start_s,
            end_s,
            applied,
            comparison,
            observed,
            gaps(
                [report for report in observed.reports if report.site == self._site],
                self._partitions,
                self._start_s,
                end_s,
            ),
            log,
            _owners(system),
            self._counters,
            dropped,
            {role.name: role.ended for role in system.roles() if role.ended},
            self._plan.keep,
        )

    async def _has_retention_worked(self, applied: list[AppliedFault]) -> bool:
        """Whether retention has deleted data older than a day, and nothing else.

        It runs once a minute and when the writer starts, so a shorter test restarts the writer.
        """
        injected = [one for one in applied if one.fault.kind == "old hours"]
        correct = True
        for one in injected:
            data = self._system.data
            if old_hours(data, one.from_s)[0]:
                for history in self._system.histories.values():
                    await history.stop()
                    await history.start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    while old_hours(data, one.from_s)[0]:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            correct &= old_hours(data, one.from_s) == (False, True)
        return correct


def _compare_sites(
    evidence: Evidence,
    sites: dict[str, list[tuple[float, dict[str, Any] | None]]],
    show: Callable[[float], None],
) -> Comparison:
    """Compare each site, and what is of all of them."""
    found = Comparison()
    compare_acknowledged(found, evidence)
    compare_stored_events(found, evidence)
    for number, (site, versions) in enumerate(sites.items()):
        part = compare(
            evidence.of_site(site, versions),
            lambda share, at=number: show((at + share) / len(sites)),  # type: ignore[misc]
        )
        found.add(part)
    for report in evidence.reports:
        if report.site not in sites:
            found.differs("count", report.at, f"no such site: {report.site}")
    return found


def _owners(system: ChaosSystem) -> dict[tuple[int, int], int]:
    """The worker of each partition and epoch, from the workers' logs."""
    found: dict[tuple[int, int], int] = {}
    for number, role in system.workers.items():
        text = role.log.read_text(errors="replace") if role.log.exists() else ""
        for partition, epoch in re.findall(r" counts partition (\d+) \(epoch (\d+)\)", text):
            found[int(partition), int(epoch)] = number
    return found


async def _flush_history(connection: Connection) -> None:
    """Have the history writers store their rows often, so that faults hit them while they do."""
    while True:
        with contextlib.suppress(LogError):
            await connection.publish(HISTORY_FLUSH_SUBJECT)
        await asyncio.sleep(FLUSH_INTERVAL_S)
