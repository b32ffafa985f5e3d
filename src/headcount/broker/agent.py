"""The role `broker`: a leaf of the core, and the agent beside it.

The agent publishes the leaf's load once a second (bucket UNIT), reports its health over HTTP,
disconnects devices on request, and takes the leaf out of service in order:

    1. it reports that it drains: in UNIT, and with 503 on /healthz
    2. the balancer, which polls twice a second, gives it no new connections
    3. its devices are sent away, slowly, and come back through the balancer to the others
    4. the server ends, and its key in UNIT goes

The auth service beside the leaf authenticates devices: the server's callouts are not forwarded over the
link to the core. Until the auth service is ready, the balancer gives the leaf no connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from headcount import __version__
from headcount.broker import connections, nats_probe
from headcount.broker.auth_service import AuthService, AuthServiceSettings, AuthServiceStats
from headcount.broker.device_rate_limiter import MqttRateLimits
from headcount.broker.leaf import Leaf
from headcount.broker.nats_config import BrokerConfig
from headcount.broker.unit_health import health_app
from headcount.errors import LogError
from headcount.messages.topics import KICK_SUBJECT
from headcount.messages.units import BrokerUnit, KickReply, KickRequest
from headcount.messaging.connection import Endpoint, Message, connected
from headcount.messaging.units import HEARTBEAT_INTERVAL_S, Units
from headcount.runtime.http import serving
from headcount.runtime.proc import cpu_s_of
from headcount.runtime.retry import retry
from headcount.runtime.supervisor import STOP_S
from headcount.runtime.tasks import cancel_all

_log = logging.getLogger(__name__)

#: The leaf is asked for its health this often.
CHECK_S = 1.0
#: Until the balancer has certainly noticed that we drain: it looks each 0.5 s.
NOTICED_S = 1.5
#: A drain is no slower than this, however long it may take.
KICKS_PER_S = 100.0
#: Number of times that a drain checks for devices that stayed or came back.
DRAIN_ROUNDS = 3
#: The longest time that a request may spread its kicks over.
MAX_WITHIN_S = 3600.0


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Settings of a broker unit."""

    name: str
    config: BrokerConfig  # of the leaf
    core: Endpoint
    host: str  # under which others reach this unit
    health_port: int
    drain_s: float
    stop_s: float = STOP_S
    limits: MqttRateLimits = field(default_factory=MqttRateLimits)


class Agent:
    """Reports on one leaf, which may not run yet, and controls it."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.draining = False
        self.connections = 0  # of devices
        self.messages = 0  # from devices, since the start
        self.messages_per_s = 0.0
        self.kicked = 0
        config = settings.config
        self.auth_service = AuthService(
            AuthServiceSettings(
                unit=settings.name,
                server=((config.local_host, config.nats_port),),
                secret=config.password,
                direct=False,
                limits=settings.limits,
                plugin_subjects=config.plugin_subjects,
            )
        )
        self._leaf: Leaf | None = None
        self._units: Units | None = None
        self._started_s = time.time()
        self._counted: tuple[float, int] | None = None  # when, and what the server had counted then
        self._auth_sent = 0  # messages of the auth service to the server then
        self._unanswered = 0  # questions since then that the server counts as messages, too
        self._silent = False
        self._kicking = 0  # connections of ours that send devices away
        self._kicks: set[asyncio.Task[None]] = set()
        self._drained: asyncio.Task[None] | None = None

    # --- its report ----------------------------------------------------------------------------------
    @property
    def problem(self) -> str | None:
        """Why a device would not be served now; None: it would."""
        if self.draining:
            return "it drains"
        if self._leaf is None:
            return "it waits for the core"
        if not self._leaf.ready:
            return "the NATS server doesn't run"
        if self._leaf.problem is None and not self.settings.config.anonymous:
            return self.auth_service.problem
        return self._leaf.problem

    @property
    def running(self) -> bool:
        """Whether the leaf has been started."""
        return self._leaf is not None

    @property
    def restarts(self) -> int:
        """How often the server had to be started again."""
        return 0 if self._leaf is None else self._leaf.restarts

    @property
    def cpu_s(self) -> float:
        """Processor time of the agent and its servers since the start, in seconds."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        pid = None if self._leaf is None else self._leaf.pid
        running = 0.0 if pid is None else cpu_s_of(pid)
        return time.process_time() + ended.ru_utime + ended.ru_stime + running

    @property
    def figures(self) -> AuthServiceStats:
        """Statistics of its auth service since the start."""
        return self.auth_service.figures

    def unit(self) -> BrokerUnit:
        """The report for UNIT."""
        settings = self.settings
        return BrokerUnit(
            name=settings.name,
            version=__version__,
            server="" if self._leaf is None else self._leaf.version,
            host=settings.host,
            mqtt_port=settings.config.mqtt_port,
            ws_port=settings.config.ws_port,
            health_port=settings.health_port,
            state="draining" if self.draining else "up",
            connections=self.connections,
            messages_per_s=round(self.messages_per_s, 1),
            cpu_s=round(self.cpu_s, 3),
            started_s=self._started_s,
        )

    # --- its loops ---------------------------------------------------------------------------------------
    async def keep_counting(self) -> None:
        """Query the server's load every second, and publish it."""
        while True:
            await self._count()
            await self._publish()
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def _count(self) -> None:
        now_s = time.monotonic()
        try:
            load = await nats_probe.ask_load(self.settings.config)
        except nats_probe.NO_ANSWER as error:
            if self._leaf is None or self._leaf.pid is None:  # a server that is only slow keeps its devices
                self._counted, self.connections, self.messages_per_s = None, 0, 0.0
            self._unanswered += isinstance(error, TimeoutError)
            return
        # one is this query's, one may be a probe's, others disconnect devices; the auth service has its own
        probing = self._leaf is not None and self._leaf.probing
        ours = 1 + probing + self._kicking + self.auth_service.connections
        self.connections = max(load.connections - ours, 0)
        sent, self._auth_sent = self.auth_service.sent - self._auth_sent, self.auth_service.sent
        if self._counted is not None:
            since_s, before = self._counted
            before = 0 if load.in_client_msgs < before else before  # it was restarted
            new = max(
                load.in_client_msgs - before - 1 - self._unanswered - sent, 0
            )  # one is our last question
            self.messages += new
            self.messages_per_s = new / max(now_s - since_s, 1e-9)
        self._counted, self._unanswered = (now_s, load.in_client_msgs), 0

    async def _publish(self) -> None:
        if self._units is None:
            return
        try:
            await self._units.heartbeat(self.unit())
            if self._leaf is not None and self._leaf.refusals.changed:
                await self._leaf.refusals.publish(self._units.connection, self.settings.name)
            self._silent = False
        except LogError as error:
            if not self._silent:
                _log.warning("%s; trying again", error)
            self._silent = True

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The leaf, once the core has its streams, and the loops beside it.

        Raises:
            HeadcountError: the leaf can't be started.
        """
        settings = self.settings
        async with connected(settings.core, f"headcount broker {settings.name}") as connection:
            units = Units(connection)
            # a PUBACK means that a message is in the log, so no device connects before the log exists
            await retry(units.table, (LogError,), "waiting for the core")
            async with (
                Leaf(settings.config, check_every_s=CHECK_S, stop_s=settings.stop_s) as self._leaf,
                self.auth_service.opened(connection),
            ):
                self._units = units
                await connection.subscribe(KICK_SUBJECT.format(name=settings.name), self._on_kick)
                counting = asyncio.create_task(self.keep_counting(), name="count")
                try:
                    yield
                finally:
                    tasks = {counting, *self._kicks} | ({self._drained} if self._drained else set())
                    await cancel_all(tasks)
            # only now no device can be connected
            with contextlib.suppress(LogError):
                await units.remove(settings.name)

    # --- what it is asked for ------------------------------------------------------------------------------
    async def _on_kick(self, message: Message) -> None:
        try:
            ask = msgspec.json.decode(message.data, type=KickRequest)
        except msgspec.MsgspecError as error:
            _log.warning("a request to kick can't be read: %s", error)
            return
        accepted = 0 if self.draining else min(max(ask.connections, 0), self.connections)
        if accepted:
            within_s = min(max(ask.within_s, 0.0), MAX_WITHIN_S)
            task = asyncio.create_task(self._kick(accepted, within_s), name="kick")
            self._kicks.add(task)
            task.add_done_callback(self._kicks.discard)
        if message.reply:
            await message.respond(msgspec.json.encode(KickReply(accepted)))

    async def _kick(self, most: int | None, within_s: float) -> None:
        self._kicking += 1
        try:
            kicked = await connections.kick(self.settings.config, most, within_s)
        except nats_probe.NO_ANSWER as error:
            _log.warning("devices can't be sent away now: %r", error)
            return
        finally:
            self._kicking -= 1
        self.kicked += kicked
        if kicked:
            _log.info("%d devices were sent away within %.1f s", kicked, within_s)

    # --- going out of service ------------------------------------------------------------------------------
    def drain(self) -> asyncio.Task[None]:
        """Go out of service, once; the task ends when no device is left, or `drain_s` is over."""
        if self._drained is None:
            self._drained = asyncio.create_task(self._drain(), name="drain")
        return self._drained

    async def _drain(self) -> None:
        self.draining = True
        await self._publish()
        if self._leaf is None or self._leaf.pid is None:
            return
        await asyncio.sleep(NOTICED_S)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.settings.drain_s
        for left in range(DRAIN_ROUNDS, 0, -1):
            await self._count()
            if not self.connections:
                return
            # most of the time is for the first round: those that stay or come are few
            within_s = min(self.connections / KICKS_PER_S, (until_s - loop.time()) * (1 - 0.1 * (left > 1)))
            await self._kick(None, max(within_s, 0.0))
            await asyncio.sleep(0.05)


async def run(settings: AgentSettings, stop: asyncio.Event) -> None:
    """The role `broker`, until `stop` is set; then it drains and ends.

    Raises:
        HeadcountError: it can't be started.
    """
    agent = Agent(settings)
    async with serving(
        health_app(agent), settings.config.internal_host, settings.health_port, "--health-port"
    ):

        async def serve() -> None:
            async with agent.opened():
                await stop.wait()
                await agent.drain()

        async def stop_early() -> None:  # while it waits for the core, there is nothing to drain
            await stop.wait()
            if not agent.running:
                work.cancel()

        work = asyncio.create_task(serve(), name="leaf")
        waiting = asyncio.create_task(stop_early(), name="stop")
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            await cancel_all({waiting, work})
