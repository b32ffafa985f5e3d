"""The role `scale`: look, decide, act, tell; nothing while the core is away."""

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
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.errors import LogError, ScalingError, SettingsError
from headcount.messages.topics import KICK_SUBJECT
from headcount.messages.units import BrokerUnit, Decision, KickRequest, ScalingState, ScalingTarget
from headcount.messaging.connection import Endpoint, connected
from headcount.messaging.kv import Bucket
from headcount.messaging.streams import UNIT_BUCKET
from headcount.messaging.units import Units
from headcount.runtime.supervisor import end
from headcount.scaling import forecast, rebalance
from headcount.scaling.capacity import Capacity
from headcount.scaling.demand import Signals, brokers_seen, worker_capacity, workers_seen
from headcount.scaling.drivers import ROLES, Driver, Role, Unit
from headcount.scaling.drivers.none import NoDriver
from headcount.scaling.drivers.process import ProcessDriver
from headcount.scaling.leader_election import Chair
from headcount.scaling.load_profile import Days
from headcount.scaling.policy import Memory, decide
from headcount.scaling.scale_settings import ENVIRONMENT, ScaleSettings
from headcount.scaling.signals import Heard

_log = logging.getLogger(__name__)

PROFILE_KEY = "scaling.profile"
METRICS_SUBJECT = "metrics.>"
TOLD_SUBJECT = "metrics.scale.{name}"
MOST_DECISIONS = 50
RETRY_S = 0.5
KICK_ANSWER_S = 1.0
LEAVE_S = 1.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is scaled: where its core is, and what a new unit gets."""

    name: str  # of this scaler
    log: Endpoint
    data: Path
    environment: Mapping[str, str]  # of its units
    drain_s: float
    zone: tzinfo = UTC  # of the site: its days are forecast


def open_driver(settings: ScaleSettings, deployment: Deployment) -> Driver:
    """The driver that was asked for.

    Raises:
        SettingsError: it needs a package that isn't there.
    """
    environment = {
        name: value for name, value in deployment.environment.items() if not name.startswith(ENVIRONMENT)
    }
    if settings.driver == "none":
        return NoDriver()
    if settings.driver == "process":
        return ProcessDriver(deployment.data, environment, deployment.drain_s)
    try:
        module: Any = importlib.import_module("headcount.scaling.drivers.docker")
    except ImportError as error:
        raise SettingsError(
            "--driver docker", f"needs the package docker ({error}): pip install 'headcount[docker]'"
        ) from error
    options = module.ContainerOptions(
        deployment=settings.deployment,
        image=settings.image,
        # what is ours, not what this machine has in its environment
        environment={name: value for name, value in environment.items() if name.startswith("HEADCOUNT_")},
        network=settings.network,
        binds=tuple(settings.binds()),
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
        SettingsError: the driver can't be had.
        ScalingError: the platform isn't there.
    """
    async with open_driver(settings, deployment) as driver:
        await run_with(settings, deployment, driver, stop)


async def run_with(
    settings: ScaleSettings, deployment: Deployment, driver: Driver, stop: asyncio.Event
) -> None:
    """The same with a driver that is open."""
    async with asyncio.TaskGroup() as group:
        work = group.create_task(_keep_scaling(settings, deployment, driver), name="scale")
        await stop.wait()
        await end([work])


async def _keep_scaling(settings: ScaleSettings, deployment: Deployment, driver: Driver) -> None:
    while True:
        async with connected(deployment.log, "headcount scale") as nc:
            await Scaler(settings, deployment, driver, nc).run()
        # the server has closed it for good
        await asyncio.sleep(RETRY_S)


@dataclass(slots=True)
class _Fleet:
    """One role: how many are wanted, and what the law remembers."""

    wanted: int | None = None  # None = nothing was decided yet
    memory: Memory = field(default_factory=Memory)
    units: list[Unit] = field(default_factory=list)
    heard: deque[tuple[float, int]] = field(default_factory=deque)  # (at, how many spoke)

    def most_heard(self, now: int, at_s: float, within_s: float) -> int:
        """How many have spoken at the same time, lately; `now` speak now."""
        self.heard.append((at_s, now))
        while at_s - self.heard[0][0] > within_s:
            self.heard.popleft()
        return max(number for _, number in self.heard)

    @property
    def running(self) -> list[Unit]:
        """Those that aren't leaving."""
        return [unit for unit in self.units if not unit.leaving]


class Scaler:
    """Looks every period, if it has the chair."""

    def __init__(self, settings: ScaleSettings, deployment: Deployment, driver: Driver, nc: Client) -> None:
        """Over a connection."""
        js = nc.jetstream(timeout=2)
        self._settings = settings
        self._deployment = deployment
        self._driver = driver
        self._nc = nc
        self._bucket = Bucket(nc, js, UNIT_BUCKET)
        self._units = Units(nc, js)
        self._name = f"{deployment.name}-{secrets.token_hex(3)}"
        self._chair = Chair(self._bucket, self._name, max(3 * settings.period_s, 6.0))
        self._heard = Heard()
        self._fleets: dict[Role, _Fleet] = {role: _Fleet() for role in ROLES}
        self._balance = rebalance.Balance()
        self._capacity = Capacity()
        self._learned_s = time.monotonic()
        self._days = Days(settings, deployment.zone)
        self._decisions: deque[Decision] = deque(maxlen=MOST_DECISIONS)
        self._deciding = False
        self._complaints: dict[str, str] = {}
        self._heard_s: dict[str, float] = {}  # when each broker of ours was last heard

    async def run(self) -> None:
        """Until cancelled, or the connection is closed; then another may decide at once."""
        await self._nc.subscribe(METRICS_SUBJECT, cb=self._take)
        try:
            while not self._nc.is_closed:
                began_s = time.monotonic()
                await self._try_look()
                await asyncio.sleep(max(self._settings.period_s - (time.monotonic() - began_s), 0.1))
        finally:
            with contextlib.suppress(LogError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._chair.leave()

    async def _take(self, message: Msg) -> None:
        self._heard.take(message.subject, message.data, time.monotonic())

    async def _try_look(self) -> None:
        """One look; what is wrong is told once, and the next look tries again."""
        try:
            await self._look()
        except LogError as error:
            self._heard_s.clear()  # nobody can be heard now: silence begins anew when the core is back
            self._complain("core", f"the core is away, so nothing is changed: {error}")
        except ScalingError as error:
            self._complain("driver", f"{error}; trying again")
        else:
            if self._complaints.pop("core", ""):
                _log.info("the core is back")
            self._complaints.pop("driver", "")

    def _complain(self, about: str, text: str) -> None:
        if self._complaints.get(about) != text:
            self._complaints[about] = text
            _log.warning("%s", text)

    async def _look(self) -> None:
        if not await self._chair.held():
            if self._deciding:
                self._fleets = {role: _Fleet() for role in ROLES}
            self._heard_s.clear()
            self._deciding = False
            return
        if not self._deciding:
            self._deciding = True
            await self._remember()
        for role, fleet in self._fleets.items():
            fleet.units = await self._driver.units(role)
        alive = (await self._units.table()).alive()
        # an earlier scaler may have told it
        draining = {name for name, unit in alive.items() if unit.state == "draining"}
        self._fleets["broker"].units = [
            dataclasses.replace(unit, leaving=unit.leaving or unit.name in draining)
            for unit in self._fleets["broker"].units
        ]
        now_s, at_s = time.time(), time.monotonic()
        signals = self._signals(alive, now_s, at_s)
        try:
            for role in ROLES:
                self._decide(role, signals, now_s, at_s)
            if self._chair.fresh and not self._settings.dry_run and self._driver.kind != "none":
                await self._replace_silent(alive, at_s)
                for role in ROLES:
                    await self._act(role, alive)
            if self._settings.rebalance and self._chair.fresh:
                await self._even_out(alive, at_s)
        finally:
            await self._tell(signals, now_s)
        await self._note(signals, now_s)

    # --- seeing --------------------------------------------------------------------------------------
    def _signals(self, alive: dict[str, BrokerUnit], now_s: float, at_s: float) -> Signals:
        workers = self._heard.workers(at_s)
        over_s, self._learned_s = at_s - self._learned_s, at_s
        self._capacity = self._capacity.learn(workers.counted_per_s, workers.cores, workers.heard, over_s)
        return Signals(
            workers=workers,
            brokers=self._heard.brokers(at_s, alive),
            adapters_per_s=self._heard.adapters_per_s(at_s),
            capacity=worker_capacity(self._settings, self._capacity.per_cpu_s),
            forecast=self._days.ahead(now_s) if self._settings.forecast else {},
        )

    # --- deciding --------------------------------------------------------------------------------------
    def _decide(self, role: Role, signals: Signals, now_s: float, at_s: float) -> None:
        fleet, policy = self._fleets[role], self._settings.policy(role)
        heard = signals.workers.heard if role == "count" else len(signals.brokers.heard)
        if fleet.wanted is None:
            here = heard if self._driver.kind == "none" or self._settings.dry_run else len(fleet.running)
            fleet.wanted = here
        expected = len(fleet.running)
        if self._driver.kind == "none":  # somebody else may start fewer than are wanted
            expected = min(fleet.wanted, fleet.most_heard(heard, at_s, policy.down_window_s))
        complete = heard >= expected
        if role == "broker" and self._driver.kind != "none":
            complete = {unit.name for unit in fleet.running} <= signals.brokers.heard
        seen = (workers_seen if role == "count" else brokers_seen)(
            self._settings, signals, at_s, complete=complete
        )
        verdict, fleet.memory = decide(policy, fleet.memory, fleet.wanted, seen)
        if verdict.wanted == fleet.wanted:
            _log.debug("%s: %d stay: %s", role, fleet.wanted, verdict.reason)
            return
        decision = Decision(
            at=now_s,
            role=role,
            before=fleet.wanted,
            after=verdict.wanted,
            reason=verdict.reason,
            dry=self._settings.dry_run,
        )
        fleet.wanted = verdict.wanted
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
    async def _act(self, role: Role, alive: dict[str, BrokerUnit]) -> None:
        """Bring what there is to what is wanted."""
        fleet = self._fleets[role]
        wanted, running = fleet.wanted or 0, fleet.running
        for _ in range(wanted - len(running)):
            name = await self._driver.add(role)
            _log.info("%s was started", name)
        for unit in _first_to_go(running, alive)[: max(len(running) - wanted, 0)]:
            await self._driver.remove(role, unit.name)
            _log.info("%s was told to leave", unit.name)

    async def _replace_silent(self, alive: dict[str, BrokerUnit], at_s: float) -> None:
        """Let a broker go that runs but says nothing; another comes at the next look."""
        running = {unit.name for unit in self._fleets["broker"].running}
        self._heard_s = {name: at_s if name in alive else self._heard_s.get(name, at_s) for name in running}
        for name, heard_s in self._heard_s.items():
            if at_s - heard_s > self._settings.silent_s:
                _log.warning("%s runs and has said nothing for %.0f s: it is replaced", name, at_s - heard_s)
                await self._driver.remove("broker", name)
                return  # one at a time

    async def _even_out(self, alive: dict[str, BrokerUnit], at_s: float) -> None:
        """Let full brokers send devices away, as the plan says."""
        leaving = {unit.name for unit in self._fleets["broker"].units if unit.leaving}
        carriers = {
            name: rebalance.Carrier(unit.connections, unit.state == "draining" or name in leaving)
            for name, unit in alive.items()
        }
        before = self._balance
        kicks, self._balance = rebalance.plan(
            self._settings.rules(), before, at_s, carriers, self._settings.period_s
        )
        if before.active != self._balance.active:
            _log.info("rebalance %s: %s", "begins" if self._balance.active else "ends", kicks.reason)
        if self._settings.dry_run:
            return
        await asyncio.gather(*(self._kick(name, devices) for name, devices in kicks.by_broker.items()))

    async def _kick(self, name: str, devices: int) -> None:
        request = msgspec.json.encode(KickRequest(devices, self._settings.period_s))
        try:
            await self._nc.request(KICK_SUBJECT.format(name=name), request, timeout=KICK_ANSWER_S)
        except (nats.errors.Error, TimeoutError) as error:
            _log.warning("%s wasn't told to send %d devices away: %r", name, devices, error)

    # --- telling and remembering -------------------------------------------------------------------------
    async def _tell(self, signals: Signals, now_s: float) -> None:
        targets = []
        for role, fleet in self._fleets.items():
            policy = self._settings.policy(role)
            heard = signals.workers.heard if role == "count" else len(signals.brokers.heard)
            actual = heard if self._driver.kind == "none" else len(fleet.running)
            targets.append(ScalingTarget(role, fleet.wanted or 0, actual, policy.least, policy.most))
        state = ScalingState(
            name=self._name,
            at=now_s,
            driver=self._driver.kind,
            dry_run=self._settings.dry_run,
            targets=targets,
            signals=signals.told(),
            decisions=list(self._decisions),
        )
        await self._units.tell_scaling(state)
        subject = TOLD_SUBJECT.format(name=self._name)
        try:
            await self._nc.publish(subject, msgspec.json.encode(state))
        except (nats.errors.Error, OSError) as error:
            raise LogError(f"{subject} can't be said: {error!r}") from error

    async def _remember(self) -> None:
        """What an earlier decider knew: the profile, and its decisions."""
        entry = (await self._bucket.newest(PROFILE_KEY)).get(PROFILE_KEY)
        if entry is not None:
            try:
                self._days.profile = msgspec.json.decode(entry.value, type=forecast.Profile)
            except msgspec.MsgspecError as error:
                _log.warning("%s can't be read, the forecast begins anew: %s", PROFILE_KEY, error)
        told = await self._units.scaling()
        if told is not None and not self._decisions:
            self._decisions.extend(told[0].decisions)

    async def _note(self, signals: Signals, now_s: float) -> None:
        if self._days.note(signals.loads(), now_s):
            await self._bucket.put(PROFILE_KEY, msgspec.json.encode(self._days.profile))


def _first_to_go(running: list[Unit], alive: dict[str, BrokerUnit]) -> list[Unit]:
    """Those with the fewest connections first, then the youngest: what moves is as little as can be."""

    def cost(unit: Unit) -> tuple[int, int]:
        known = alive.get(unit.name)
        return known.connections if known is not None else 0, -unit.number

    return sorted(running, key=cost)
