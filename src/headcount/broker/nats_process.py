"""A NATS server of ours: started, supervised, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

from headcount.broker import data_folder, nats_probe
from headcount.broker.nats_config import BrokerConfig, render
from headcount.broker.nats_program import find_program
from headcount.broker.refusals import RefusalLog
from headcount.broker.server_log import keep_log
from headcount.errors import BrokerError, LogError, LogUnavailableError
from headcount.runtime.ports import check_free
from headcount.runtime.private_files import folder_errors, write_private
from headcount.runtime.processes import ChildProcess, start_process
from headcount.runtime.supervisor import STOP_S, Supervised
from headcount.runtime.tasks import background
from headcount.settings.deployment import PORT_FILE
from headcount.settings.environment import process_environment

LOG = logging.getLogger(__name__)

#: Seconds that a server has to become ready; it reads a large log through before.
READY_S = 60.0
#: A server that waits for others logs its reason this often.
LOG_INTERVAL_S = 10.0
#: Between two attempts to get an answer while it starts.
START_POLL_S = 0.03
#: The server's heap is small: it is collected less often, which seems to save some CPU (docs/decisions/0042).
GARBAGE_COLLECTION = {"GOGC": "400"}
#: Leaves read a new certificate spread over this time.
SPREAD_S = 60.0


class NatsServer:
    """A running NATS server, as an async context manager; its subclasses are a core and a leaf.

    The server ends with this process, also when that is killed. When it ends by itself it is started
    again; it is not `ready` until the new one answers.

    Raises (on entering; nothing is left behind then):
        DataFolderError: the folder can't be written, is full or is in use.
        PortTakenError: another program listens on one of the ports.
        BrokerVersionError: there is no nats-server, or it is too old.
        BrokerError: it does not become ready.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        program: Path | None = None,
        check_every_s: float = 5.0,
        stop_s: float = STOP_S,
    ) -> None:
        self.config = config
        self.problem: str | None = None
        self.version = ""
        #: Called once when the server has been started, before it is ready.
        self.on_first_start: Callable[[], Awaitable[None]] | None = None
        self.refusals = RefusalLog()
        self._program = program or Path("nats-server")
        self._named = program
        self._check_every_s = check_every_s
        self._server = Supervised("the NATS server", self._spawn, check=self._until_ready, stop_s=(stop_s,))
        self._opened = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The address of the NATS port, from this machine."""
        return nats_probe.url(self.config)

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        return self._server.pid

    @property
    def ready(self) -> bool:
        """Whether the server runs and has become ready."""
        return self._server.ready

    @property
    def ready_s(self) -> float:
        """Seconds that it may take to become ready; infinite where that is up to other machines."""
        return READY_S

    @property
    def restarts(self) -> int:
        """How often the server had to be started again."""
        return self._server.restarts

    async def __aenter__(self) -> Self:
        await self._opened.enter_async_context(self._running())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opened.aclose()

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        data = self.config.data
        self._program, self.version = await find_program(self._named)
        with data_folder.held(data):
            if pid := await asyncio.to_thread(data_folder.end_previous_server, data):
                LOG.warning("ended the NATS server %d that an earlier headcount left in %s", pid, data)
            check_ports(self.config)
            try:
                await self._prepare()
                async with (
                    self._server,
                    background(self._reload(), "broker certificates"),
                    background(self._check(), "broker check"),
                ):
                    yield
            finally:
                for name in ("broker.pid", PORT_FILE):
                    (data / name).unlink(missing_ok=True)

    # --- what subclasses add -------------------------------------------------------------------------
    async def _prepare(self) -> None:
        """Prepare the first start; for subclasses."""

    async def _started(self, process: ChildProcess) -> None:
        """Finish a start before devices can connect; for subclasses."""

    async def _poll(self) -> None:
        """Check the server every few seconds; for subclasses. A missing answer is no problem."""

    # --- starting and watching -------------------------------------------------------------------------
    async def _spawn(self, *, closed: bool = False) -> ChildProcess:
        """Start a server; `closed` to MQTT clients for work on its streams."""
        data = self.config.data
        with folder_errors(data):
            write_private(data / "broker.conf", render(self.config, closed=closed).encode())
        try:
            process = await start_process(
                "the NATS server",
                [self._program, "-c", (data / "broker.conf").absolute()],
                environment=GARBAGE_COLLECTION | process_environment(),
                output=partial(
                    keep_log,
                    path=self.config.log_file,
                    limits=self.config.limits,
                    on_line=self.refusals.take,
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise BrokerError(f"{self._program} can't be started: {error}") from error
        (data / "broker.pid").write_text(f"{process.pid}\n")
        (data / PORT_FILE).write_text(f"{self.config.nats_port}\n")
        return process

    async def _until_ready(self, process: ChildProcess, *, closed: bool = False) -> None:
        if self.on_first_start is not None and not closed:
            started, self.on_first_start = self.on_first_start, None
            await started()
        await self._until(process, partial(nats_probe.ask_ready, self.config, closed=True))
        await self._started(process)
        if closed:
            return
        await self._until(process, partial(nats_probe.ask_mqtt, self.config))
        LOG.info(
            "nats-server %s runs as %d, MQTT on port %d", self.version, process.pid, self.config.mqtt_port
        )

    async def _until(self, process: ChildProcess, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask until there is an answer, while the process runs and for `ready_s` at most.

        Raises:
            BrokerError: there is none.
        """
        problem: Exception = TimeoutError("no answer yet")
        loop = asyncio.get_running_loop()
        until_s, log_s = loop.time() + self.ready_s, loop.time() + LOG_INTERVAL_S
        while process.running and loop.time() < until_s:
            try:
                async with asyncio.timeout(None if math.isinf(until_s) else until_s - loop.time()):
                    return await ask()
            except (LogUnavailableError, *nats_probe.NO_ANSWER) as error:
                problem = error
            if loop.time() > log_s:
                log_s = loop.time() + LOG_INTERVAL_S
                LOG.warning("the NATS server is not ready yet: %s", str(problem) or repr(problem))
            await asyncio.sleep(START_POLL_S)
        happened = f"did not answer within {self.ready_s:.0f} s ({problem!r})"
        if not process.running:
            await process.wait()  # for its log
            happened = f"ended while it started ({process.ending})"
        raise BrokerError(
            f"nats-server {happened}. Its log {self.config.log_file} ends with:\n{_tail(self.config.log_file)}"
        ) from problem

    async def _reload(self) -> None:
        """Have the server read its certificate again when it has changed.

        The server then also checks each connection's user against its configuration. Devices that the
        auth service let in have no user there: they are disconnected and come back, so the leaves of a
        core do this at different moments. Our own roles stay connected, and so does everybody where
        devices need no account.
        """
        if self.config.mqtt_tls is not None:
            from headcount.tls.reload import reload_on_change  # noqa: PLC0415  # only processes that use it pay for it

            await reload_on_change(self.config.mqtt_tls, self._hang_up_soon)

    def _hang_up_soon(self) -> None:
        wait_s = secrets.randbelow(1000) / 1000 * SPREAD_S if self.config.hub else 0
        asyncio.get_running_loop().call_later(wait_s, self._hang_up)

    def _hang_up(self) -> None:
        if self._server.process is not None:
            self._server.process.send(signal.SIGHUP)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._check_every_s)
            try:
                await self._poll()
            except (LogError, *nats_probe.NO_ANSWER) as error:
                # it is starting, or has ended: the supervisor logs that
                LOG.debug("the NATS server can't be queried now: %r", error)


def check_ports(config: BrokerConfig) -> None:
    """Check that the ports of a server are free.

    Raises:
        PortTakenError: another program listens on one of them.
        SettingsError: the address is not this machine's, or the port needs more rights.
    """
    for purpose, option, host, port in config.ports():
        check_free(purpose, host, port, option, "host" if host == config.host else "internal_host")


def _tail(log: Path, lines: int = 8) -> str:
    try:
        text = log.read_bytes()[-8192:].decode(errors="replace")
    except OSError:
        return "(nothing)"
    return "\n".join(text.splitlines()[-lines:])
