"""A whole proof: start, load, break, settle, stop, read, compare."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from headcount.errors import HeadcountError, LogError
from headcount.history.writer import CONSUMER
from headcount.lab.chaos.chaos_system import ChaosSystem
from headcount.lab.chaos.comparison import Comparison, Evidence, compare
from headcount.lab.chaos.erasures import forget_all, plan
from headcount.lab.chaos.fault_injection import AppliedFault, apply_all, old_hours
from headcount.lab.chaos.fault_schedule import Fault, schedule
from headcount.lab.chaos.independent_reader import (
    PartitionLog,
    read_day_keys,
    read_events,
    read_history,
    read_log,
)
from headcount.lab.chaos.mqtt_senders import SendCounters, overlook_breaks, send
from headcount.lab.chaos.observer import Observations, listen
from headcount.lab.chaos.recovery import Gap, gaps, recovery_s
from headcount.lab.chaos.short_holds import short_hold_scenario
from headcount.lab.chaos.small_disk import small_disk
from headcount.lab.chaos.traffic import CONNECTIONS, ScheduledMessage, load
from headcount.messages.topics import HISTORY_STREAM
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import consumer_info
from headcount.worker.leases import TTL_S

PARTITIONS = (4, 8, 16)
#: After the load's end senders may need so long for what piled up, and the system to settle.
DRAIN_S, SETTLE_S = 60.0, 60.0
#: What was told is stored within a second; some more for a busy machine.
STORED_S = 3.0


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """A proof to be made."""

    seed: int
    seconds: float
    workers: int
    keep: Path | None = None  # a folder that stays


@dataclass(frozen=True, slots=True)
class ChaosProgress:
    """How far it is."""

    text: str
    share: float  # of the whole, 0 to 1
    fault: Fault | None = None  # has just come


@dataclass(slots=True)
class ChaosResult:
    """What came of it."""

    plan: ChaosPlan
    partitions: int
    start_s: int
    end_s: float
    faults: list[AppliedFault]
    comparison: Comparison
    heard: Observations
    gaps: list[Gap]
    log: list[PartitionLog]
    owners: dict[tuple[int, int], int]  # (partition, epoch) → the worker that counted it
    sent: SendCounters
    hours_dropped: bool
    ended: dict[str, list[int]] = field(default_factory=dict)  # role → exit codes nobody had asked for
    folder: Path | None = None

    @property
    def is_exact(self) -> bool:
        """Whether nothing differed and nothing that was acknowledged is lost."""
        return not self.comparison.different and not self.comparison.lost and self.hours_dropped

    def lost_after(self) -> dict[str, list[float]]:
        """Last fault before the PUBACK of a fix that is lost → how many seconds after it that came."""
        found: dict[str, list[float]] = {}
        for number in self.comparison.lost:
            acked_s = self.sent.acknowledged[number]
            before = [one for one in self.faults if one.from_s <= acked_s and not one.skipped]
            name = f"{before[-1].fault.kind} at {before[-1].fault.at_s:g} s" if before else "the start"
            from_s = before[-1].from_s if before else self.start_s
            found.setdefault(name, []).append(acked_s - from_s)
        return found

    def recoveries(self) -> dict[str, list[float]]:
        """Kind of fault → seconds until all partitions told fresh counts again, for each that happened."""
        happened = [applied for applied in self.faults if not applied.skipped]
        found: dict[str, list[float]] = {}
        for index, applied in enumerate(happened):
            next_s = happened[index + 1].from_s if index + 1 < len(happened) else math.inf
            cost_s = recovery_s(applied.fault, applied.from_s, next_s, self.gaps)
            found.setdefault(applied.fault.kind, []).append(cost_s)
        return found


def median(values: list[float]) -> float:
    """The median of some seconds."""
    return statistics.median(values)


async def run_chaos_test(plan: ChaosPlan, tell: Callable[[ChaosProgress], None]) -> ChaosResult:
    """Make a proof; it takes the plan's time, about 15 s to start and settle, and the comparison.

    Raises:
        HeadcountError: the system doesn't start, or doesn't answer any more at the end.
    """
    asyncio.get_running_loop().set_exception_handler(overlook_breaks)
    scene = short_hold_scenario(plan.seed)
    partitions = Random(f"partitions {plan.seed}").choice(PARTITIONS)
    faults = schedule(plan.seed, plan.seconds, plan.workers, TTL_S)
    floods_s = [fault.at_s for fault in faults if fault.kind == "duplicates"]
    says = load(plan.seed, scene, plan.seconds, floods_s)
    async with _folder(plan.keep) as folder:
        data = folder / "data"
        site = folder / "site.geojson"
        site.write_text(json.dumps(scene.geojson))
        with small_disk(data) as no_disk:
            tell(ChaosProgress("starting", 0.0))
            async with ChaosSystem(folder, data, site, partitions, plan.workers) as system:
                run = _ChaosRun(plan, system, scene.geojson, faults, says, tell)
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
    """The stages, in their order."""

    def __init__(
        self,
        plan: ChaosPlan,
        system: ChaosSystem,
        geojson: dict[str, Any],
        faults: list[Fault],
        says: list[ScheduledMessage],
        tell: Callable[[ChaosProgress], None],
    ) -> None:
        self._plan = plan
        self._system = system
        self._geojson = geojson
        self._faults = faults
        self._says = says
        self._tell = tell
        self._site = geojson["features"][0]["properties"]["id"]
        self._sent = SendCounters()
        self._start_s = 0
        self._whole_s = plan.seconds * 1.2 + 15

    async def run(self, no_disk: str) -> ChaosResult:
        async with self._system.connect() as connection:
            heard = await listen(connection)
            await self._wait(lambda: heard.oldest(self._partitions) > 0, "the first counts", SETTLE_S)
            self._start_s = math.ceil(time.time())
            applied = await self._under_fire(connection, no_disk)
            settled_s = await self._settle(heard)
            end_s = time.time()
            return await self._judge(connection, heard, applied, settled_s, end_s)

    @property
    def _partitions(self) -> int:
        return self._system.settings.partitions

    def _say(self, text: str, share: float, fault: Fault | None = None) -> None:
        self._tell(ChaosProgress(text, min(share, 1.0), fault))

    async def _under_fire(self, connection: Connection, no_disk: str) -> list[AppliedFault]:
        async with asyncio.TaskGroup() as group:
            happening = group.create_task(
                apply_all(
                    self._system,
                    self._faults,
                    self._start_s,
                    no_disk,
                    lambda fault: self._say(fault.kind, self._passed(), fault),
                ),
                name="faults",
            )
            showing = group.create_task(self._show(), name="show")
            forgetting = forget_all(
                connection,
                plan(self._plan.seed, self._plan.seconds),
                self._site,
                self._partitions,
                self._start_s,
            )
            async with asyncio.timeout(self._plan.seconds + DRAIN_S):
                await asyncio.gather(*self._senders(), forgetting)
            await happening
            showing.cancel()
        return happening.result()

    def _senders(self) -> list[Any]:
        port = self._system.settings.mqtt_port
        return [
            send(
                [say for say in self._says if say.connection == number],
                self._site,
                port,
                self._start_s,
                self._sent,
                number,
            )
            for number in range(CONNECTIONS)
        ]

    def _passed(self) -> float:
        return (time.time() - self._start_s) / self._whole_s

    async def _show(self) -> None:
        while True:
            self._say(f"{self._sent.messages} messages sent", self._passed())
            await asyncio.sleep(0.5)

    async def _settle(self, heard: Observations) -> float:
        """Wait until all that was sent is counted and stored; the instant up to which that is so."""
        self._say("settling", self._passed())
        until_s = time.time() + 0.5
        await self._wait(
            lambda: heard.oldest(self._partitions) > until_s, "fresh counts at the end", SETTLE_S
        )
        settled_s = min(heard.newest.values())
        await asyncio.sleep(STORED_S)
        return settled_s

    async def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - others fill what we look at
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise HeadcountError(
                f"{what}: not within {seconds:.0f} s (seed {self._plan.seed}); "
                f"what the roles say is in {self._system.folder}"
            ) from None

    async def _judge(
        self,
        connection: Connection,
        heard: Observations,
        applied: list[AppliedFault],
        settled_s: float,
        end_s: float,
    ) -> ChaosResult:
        system = self._system
        self._say("stopping the workers", self._passed())
        for worker in system.workers.values():
            await worker.stop()
        dropped = await self._old_hours_gone(applied)
        await self._history_is_read(connection)
        await system.history.stop()
        self._say("reading", self._passed())
        log = await read_log(connection.client, self._partitions)
        events = await read_events(connection.client)
        fixes, recorded = await asyncio.to_thread(read_history, system.data)
        evidence = Evidence(
            self._geojson,
            await read_day_keys(connection.client),
            settled_s,
            log,
            heard.reports,
            events,
            fixes,
            recorded,
            self._sent.acknowledged,
        )
        before = self._passed()
        self._say("comparing", before)
        comparison = await asyncio.to_thread(
            compare, evidence, lambda share: self._say("comparing", before + share * (1 - before))
        )
        return ChaosResult(
            self._plan,
            self._partitions,
            self._start_s,
            end_s,
            applied,
            comparison,
            heard,
            gaps(heard.reports, self._partitions, self._start_s, end_s),
            log,
            _owners(system),
            self._sent,
            dropped,
            {role.name: role.ended for role in system.roles() if role.ended},
            self._plan.keep,
        )

    async def _old_hours_gone(self, applied: list[AppliedFault]) -> bool:
        """Whether retention took what is over a day old, and nothing else.

        It looks once a minute, and when the writer starts: a run that was shorter starts it again.
        """
        placed = [one for one in applied if one.fault.kind == "old hours"]
        right = True
        for one in placed:
            gone, kept = old_hours(self._system.data, one.from_s)
            if any(path.exists() for path in gone):
                await self._system.history.stop()
                await self._system.history.start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    while any(path.exists() for path in gone):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            right &= not any(path.exists() for path in gone) and all(path.exists() for path in kept)
        return right

    async def _history_is_read(self, connection: Connection) -> None:
        """Wait until the writer of the history has fetched everything that is there for it."""

        async def pending() -> int:
            with contextlib.suppress(LogError):  # the consumer is created again after each break
                return (await consumer_info(connection, HISTORY_STREAM, CONSUMER, timeout_s=2.0)).num_pending
            return 1

        with contextlib.suppress(TimeoutError):  # what is missing will be a difference
            async with asyncio.timeout(SETTLE_S):
                while await pending():  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        await asyncio.sleep(1)


def _owners(system: ChaosSystem) -> dict[tuple[int, int], int]:
    """Which worker counted which partition under which epoch: it says so in its log."""
    found: dict[tuple[int, int], int] = {}
    for number, role in system.workers.items():
        text = role.log.read_text(errors="replace") if role.log.exists() else ""
        for partition, epoch in re.findall(r" counts partition (\d+) \(epoch (\d+)\)", text):
            found[int(partition), int(epoch)] = number
    return found
