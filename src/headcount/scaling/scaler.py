"""The role `scale`: observe, decide, act, publish; nothing while the core is unreachable."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

import msgspec

from headcount.errors import LogError, ScalingError, SettingsError
from headcount.messages.reports import REPORT_SUBJECTS, SCALER_REPORT_SUBJECT
from headcount.messages.topics import KICK_SUBJECT
from headcount.messages.units import BrokerUnit, KickRequest, ScalingDecision, ScalingState, ScalingTarget
from headcount.messaging.connection import Connection, Endpoint, Message, connected
from headcount.messaging.kv import KvBucket
from headcount.messaging.leader_election import LeaderElection
from headcount.messaging.streams import UNIT_BUCKET
from headcount.messaging.units import Units
from headcount.runtime.supervisor import STOP_S
from headcount.runtime.tasks import cancel_all
from headcount.scaling import rebalance
from headcount.scaling.demand import (
    LearnedCapacity,
    ScalingSignals,
    observe_brokers,
    observe_workers,
    policy_of,
    rules_of,
    worker_capacity,
)
from headcount.scaling.drivers import UNIT_ROLES, Driver, FleetUnit, UnitRole
from headcount.scaling.drivers.none import NoDriver
from headcount.scaling.drivers.process import ProcessDriver
from headcount.scaling.forecast import LoadForecaster, LoadProfile
from headcount.scaling.policy import PolicyState, decide
from headcount.scaling.signals import ReportCollector
from headcount.settings.formats import split
from headcount.settings.model import settings_of
from headcount.settings.scaling import ScaleSettings

_log = logging.getLogger(__name__)

PROFILE_KEY = "scaling.profile"
MAX_DECISIONS = 50
KICK_TIMEOUT_S = 1.0
RESIGN_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment to scale: its core, and the settings of a new unit."""

    name: str  # of this scaler
    log: Endpoint
    data: Path
    environment: Mapping[str, str]  # of its units
    drain_s: float
    stop_s: float = STOP_S
    zone: tzinfo = UTC  # of the site, for the load profile


def open_driver(settings: ScaleSettings, deployment: Deployment) -> Driver:
    """The configured driver.

    Raises:
        SettingsError: it needs a package that is not installed.
    """
    own = {setting.variable for setting in settings_of(ScaleSettings).values()}
    environment = {name: value for name, value in deployment.environment.items() if name not in own}
    if settings.driver == "none":
        return NoDriver()
    if settings.driver == "process":
        return ProcessDriver(deployment.data, environment, deployment.drain_s, stop_s=deployment.stop_s)
    try:
        module: Any = importlib.import_module("headcount.scaling.drivers.docker")
    except ImportError as error:
        raise SettingsError(
            "--driver docker", f"the package docker is missing ({error}): pip install 'headcount[docker]'"
        ) from error
    options = module.ContainerOptions(
        host=settings.docker_host,
        deployment=settings.deployment,
        image=settings.image,
        # ours only, not the rest of this machine's environment
        environment={name: value for name, value in environment.items() if name.startswith("HEADCOUNT_")},
        network=settings.network,
        binds=split(settings.mounts),
        user=settings.user,
        memory_bytes=settings.memory_mb << 20,
        cores={"broker": settings.broker_cores, "count": settings.worker_cores},
        pids=settings.pids,
        drain_s=deployment.drain_s,
    )
    driver: Driver = module.DockerDriver(options)
    return driver


async def run(settings: ScaleSettings, deployment: Deployment, stop: asyncio.Event) -> None:
    """Scale until `stop` is set.

    Raises:
        SettingsError: the driver is not available.
        ScalingError: the platform does not answer.
    """
    async with open_driver(settings, deployment) as driver:
        await run_with(settings, deployment, driver, stop)


async def run_with(
    settings: ScaleSettings, deployment: Deployment, driver: Driver, stop: asyncio.Event
) -> None:
    """Scale with an open driver until `stop` is set."""

    async def scale() -> None:
        async with connected(deployment.log, "headcount scale") as connection:
            await Scaler(settings, deployment, driver, connection).run()

    async with asyncio.TaskGroup() as group:
        work = group.create_task(scale(), name="scale")
        await stop.wait()
        await cancel_all([work])


@dataclass(slots=True)
class _RoleFleet:
    """The units of one role, the wanted number, and the policy's state."""

    wanted: int | None = None  # None = nothing was decided yet
    state: PolicyState = field(default_factory=PolicyState)
    units: list[FleetUnit] = field(default_factory=list)
    reporting: deque[tuple[float, int]] = field(default_factory=deque)  # (at, units that reported)

    def max_reporting(self, now: int, at_s: float, within_s: float) -> int:
        """The highest number of units that reported at the same time, recently; `now` report now."""
        self.reporting.append((at_s, now))
        while at_s - self.reporting[0][0] > within_s:
            self.reporting.popleft()
        return max(number for _, number in self.reporting)

    @property
    def running(self) -> list[FleetUnit]:
        """The units that are not leaving."""
        return [unit for unit in self.units if not unit.leaving]


class Scaler:
    """Decides every period while it is the leader."""

    def __init__(
        self, settings: ScaleSettings, deployment: Deployment, driver: Driver, connection: Connection
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._connection = connection
        self._bucket = KvBucket(connection, UNIT_BUCKET)
        self._units = Units(connection)
        self._name = f"{deployment.name}-{secrets.token_hex(3)}"
        self._election = LeaderElection(self._bucket, self._name, max(3 * settings.interval_s, 6.0))
        self._reports = ReportCollector()
        self._fleets: dict[UnitRole, _RoleFleet] = {role: _RoleFleet() for role in UNIT_ROLES}
        self._rebalance = rebalance.RebalanceState()
        self._capacity = LearnedCapacity()
        self._learned_s = time.monotonic()
        self._forecaster = LoadForecaster(deployment.zone, settings.day_s, settings.forecast_lead_s)
        self._decisions: deque[ScalingDecision] = deque(maxlen=MAX_DECISIONS)
        self._leading = False
        self._problems: dict[str, str] = {}
        self._last_report_s: dict[str, float] = {}  # of each of our brokers

    async def run(self) -> None:
        """Scale until cancelled, or until the connection is closed; then resign as leader."""
        await self._connection.subscribe(REPORT_SUBJECTS, self._receive)
        try:
            while True:
                began_s = time.monotonic()
                await self._try_step()
                await asyncio.sleep(max(self._settings.interval_s - (time.monotonic() - began_s), 0.1))
        finally:
            with contextlib.suppress(LogError, TimeoutError):
                async with asyncio.timeout(RESIGN_TIMEOUT_S):
                    await self._election.resign()

    async def _receive(self, message: Message) -> None:
        self._reports.receive(message.subject, message.data, time.monotonic())

    async def _try_step(self) -> None:
        """One step; a problem is logged once, and the next step tries again."""
        try:
            await self._step()
        except LogError as error:
            self._last_report_s.clear()  # no report can arrive now: start counting again afterwards
            self._log_once("core", f"the core is unreachable, changing nothing: {error}")
        except ScalingError as error:
            self._log_once("driver", f"{error}; trying again")
        else:
            if self._problems.pop("core", ""):
                _log.info("the core is reachable again")
            self._problems.pop("driver", "")

    def _log_once(self, about: str, text: str) -> None:
        if self._problems.get(about) != text:
            self._problems[about] = text
            _log.warning("%s", text)

    async def _step(self) -> None:
        if not await self._election.campaign():
            if self._leading:
                self._fleets = {role: _RoleFleet() for role in UNIT_ROLES}
            self._last_report_s.clear()
            self._leading = False
            return
        if not self._leading:
            self._leading = True
            await self._restore()
        for role, fleet in self._fleets.items():
            fleet.units = await self._driver.units(role)
        alive = (await self._units.table()).alive()
        # an earlier scaler may have requested it
        draining = {name for name, unit in alive.items() if unit.state == "draining"}
        self._fleets["broker"].units = [
            dataclasses.replace(unit, leaving=unit.leaving or unit.name in draining)
            for unit in self._fleets["broker"].units
        ]
        now_s, at_s = time.time(), time.monotonic()
        signals = self._signals(alive, now_s, at_s)
        try:
            for role in UNIT_ROLES:
                self._decide(role, signals, now_s, at_s)
            if self._election.is_certain and not self._settings.dry_run and self._driver.kind != "none":
                await self._replace_unresponsive(alive, at_s)
                for role in UNIT_ROLES:
                    await self._act(role, alive)
            if self._settings.rebalance and self._election.is_certain:
                await self._rebalance_brokers(alive, at_s)
        finally:
            await self._publish(signals, now_s)
        await self._record(signals, now_s)

    # --- observing -----------------------------------------------------------------------------------
    def _signals(self, alive: dict[str, BrokerUnit], now_s: float, at_s: float) -> ScalingSignals:
        workers = self._reports.workers(at_s)
        over_s, self._learned_s = at_s - self._learned_s, at_s
        self._capacity = self._capacity.learn(workers.counted_per_s, workers.cores, workers.reporting, over_s)
        return ScalingSignals(
            workers=workers,
            brokers=self._reports.brokers(at_s, alive),
            adapters_per_s=self._reports.adapters_per_s(at_s),
            capacity=worker_capacity(self._settings, self._capacity.per_cpu_s),
            forecast=self._forecaster.forecast(now_s) if self._settings.forecast else {},
        )

    # --- deciding --------------------------------------------------------------------------------------
    def _decide(self, role: UnitRole, signals: ScalingSignals, now_s: float, at_s: float) -> None:
        fleet, policy = self._fleets[role], policy_of(self._settings, role)
        reporting = _reporting(role, signals)
        if fleet.wanted is None:
            unmanaged = self._driver.kind == "none" or self._settings.dry_run
            fleet.wanted = reporting if unmanaged else len(fleet.running)
        expected = len(fleet.running)
        if self._driver.kind == "none":  # another system may start fewer units than are wanted
            expected = min(fleet.wanted, fleet.max_reporting(reporting, at_s, policy.down_window_s))
        complete = reporting >= expected
        if role == "broker" and self._driver.kind != "none":
            complete = {unit.name for unit in fleet.running} <= signals.brokers.reporting
        observation = (observe_workers if role == "count" else observe_brokers)(
            self._settings, signals, at_s, complete=complete
        )
        result, fleet.state = decide(policy, fleet.state, fleet.wanted, observation)
        if result.wanted == fleet.wanted:
            _log.debug("%s: unchanged at %d: %s", role, fleet.wanted, result.reason)
            return
        decision = ScalingDecision(
            at=now_s,
            role=role,
            before=fleet.wanted,
            after=result.wanted,
            reason=result.reason,
            dry=self._settings.dry_run,
        )
        fleet.wanted = result.wanted
        self._decisions.append(decision)
        _log.info(
            "%s: %d → %d%s: %s",
            role,
            decision.before,
            decision.after,
            " (dry run)" if decision.dry else "",
            decision.reason,
        )

    # --- acting ----------------------------------------------------------------------------------------
    async def _act(self, role: UnitRole, alive: dict[str, BrokerUnit]) -> None:
        """Start or remove units until the wanted number runs."""
        fleet = self._fleets[role]
        wanted, running = fleet.wanted or 0, fleet.running
        for _ in range(wanted - len(running)):
            name = await self._driver.add(role)
            _log.info("started %s", name)
        for unit in _removal_order(running, alive)[: max(len(running) - wanted, 0)]:
            await self._driver.remove(role, unit.name)
            _log.info("removing %s", unit.name)

    async def _replace_unresponsive(self, alive: dict[str, BrokerUnit], at_s: float) -> None:
        """Remove a broker that runs but does not report; the next step starts another."""
        running = {unit.name for unit in self._fleets["broker"].running}
        last = self._last_report_s
        self._last_report_s = {name: at_s if name in alive else last.get(name, at_s) for name in running}
        for name, last_s in self._last_report_s.items():
            if at_s - last_s > self._settings.heartbeat_timeout_s:
                _log.warning("%s has not reported for %.0f s; replacing it", name, at_s - last_s)
                await self._driver.remove("broker", name)
                return  # one at a time

    async def _rebalance_brokers(self, alive: dict[str, BrokerUnit], at_s: float) -> None:
        """Have full brokers disconnect devices, as planned."""
        leaving = {unit.name for unit in self._fleets["broker"].units if unit.leaving}
        brokers = {
            name: rebalance.BrokerLoad(unit.connections, unit.state == "draining" or name in leaving)
            for name, unit in alive.items()
        }
        before = self._rebalance
        kicks, self._rebalance = rebalance.plan_kicks(
            rules_of(self._settings), before, at_s, brokers, self._settings.interval_s
        )
        if before.active != self._rebalance.active:
            _log.info("rebalance %s: %s", "starts" if self._rebalance.active else "ends", kicks.reason)
        if self._settings.dry_run:
            return
        await asyncio.gather(*(self._kick(name, devices) for name, devices in kicks.by_broker.items()))

    async def _kick(self, name: str, devices: int) -> None:
        request = msgspec.json.encode(KickRequest(devices, self._settings.interval_s))
        try:
            await self._connection.request(KICK_SUBJECT.format(name=name), request, timeout_s=KICK_TIMEOUT_S)
        except LogError as error:
            _log.warning("%s did not answer the request to disconnect %d devices: %r", name, devices, error)

    # --- publishing and storing --------------------------------------------------------------------------
    async def _publish(self, signals: ScalingSignals, now_s: float) -> None:
        targets = []
        for role, fleet in self._fleets.items():
            policy = policy_of(self._settings, role)
            actual = _reporting(role, signals) if self._driver.kind == "none" else len(fleet.running)
            targets.append(ScalingTarget(role, fleet.wanted or 0, actual, policy.min_units, policy.max_units))
        state = ScalingState(
            name=self._name,
            at=now_s,
            driver=self._driver.kind,
            dry_run=self._settings.dry_run,
            targets=targets,
            signals=signals.published(),
            decisions=list(self._decisions),
        )
        await self._units.publish_scaling(state)
        subject = SCALER_REPORT_SUBJECT.format(name=self._name)
        await self._connection.publish(subject, msgspec.json.encode(state))

    async def _restore(self) -> None:
        """Read what the previous leader stored: the profile and its decisions."""
        if entry := await self._bucket.get(PROFILE_KEY):
            try:
                self._forecaster.profile = msgspec.json.decode(entry.value, type=LoadProfile)
            except msgspec.MsgspecError as error:
                _log.warning("cannot read %s; the load profile starts empty: %s", PROFILE_KEY, error)
        found = await self._units.scaling()
        if found is not None and not self._decisions:
            self._decisions.extend(found[0].decisions)

    async def _record(self, signals: ScalingSignals, now_s: float) -> None:
        if self._forecaster.record(signals.loads(), now_s):
            await self._bucket.put(PROFILE_KEY, msgspec.json.encode(self._forecaster.profile))


def _reporting(role: UnitRole, signals: ScalingSignals) -> int:
    """The number of units of a role that report."""
    return signals.workers.reporting if role == "count" else len(signals.brokers.reporting)


def _removal_order(running: list[FleetUnit], alive: dict[str, BrokerUnit]) -> list[FleetUnit]:
    """Units with the fewest connections first, then the youngest, so that as few devices as possible move."""

    def cost(unit: FleetUnit) -> tuple[int, int]:
        known = alive.get(unit.name)
        return known.connections if known is not None else 0, -unit.number

    return sorted(running, key=cost)
