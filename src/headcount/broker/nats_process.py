"""A NATS server of ours: started, watched, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from headcount.broker import data_folder, nats_probe
from headcount.broker.nats_config import BrokerConfig, render
from headcount.broker.nats_program import find_program
from headcount.broker.server_log import keep_log
from headcount.errors import BrokerError, HeadcountError, LogError, LogUnavailableError, PortTakenError
from headcount.runtime.supervisor import dies_with_parent
from headcount.tls.reload import reloading

LOG = logging.getLogger(__name__)

#: Seconds until a dead server is started again: the first time, and at most.
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 10.0
#: A server that has lived this long has recovered: the next back-off begins small again.
HEALTHY_S = 30.0
#: Seconds that a server has to come up; a large log is read through before.
READY_S = 60.0
#: One that waits for others says so this often.
SAY_S = 10.0
#: Seconds between asking to stop and killing.
STOP_S = 1.5
#: Over this leaves spread reading a new certificate.
SPREAD_S = 60.0


class WatchedServer:
    """A running NATS server, as an async context manager; what it is for is in its subclasses.

    The server dies with this process, also when that is killed. When the server dies by itself it is
    started again, after 0.2 s at first and 10 s at most; `restarts` counts that, and until the new one
    answers it isn't `ready`.

    Raises (on entering; nothing is left behind then):
        DataFolderError: the folder can't be written, is full or is in use.
        PortTakenError: somebody listens on one of the ports.
        BrokerVersionError: there is no nats-server, or it is too old.
        BrokerError: it doesn't come up.
    """

    #: Seconds that it may take until it is ready; without end where that is up to other machines.
    ready_s = READY_S

    def __init__(
        self, config: BrokerConfig, *, program: Path | None = None, check_every_s: float = 5.0
    ) -> None:
        """Run with `config`; with the nats-server at `program` where one is named."""
        self.config = config
        self.restarts = 0
        self.problem: str | None = None
        self.version = ""
        self.ready = False
        self._program = program
        self._check_every_s = check_every_s
        self._process: asyncio.subprocess.Process | None = None
        self._said: asyncio.Task[None] | None = None
        self._opened = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The address of the NATS port, from this machine."""
        return nats_probe.url(self.config)

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def __aenter__(self) -> Self:
        await self._opened.enter_async_context(self._running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        data = self.config.data
        program, self.version = await find_program(self._program)
        with data_folder.held(data):
            if pid := await asyncio.to_thread(data_folder.end_leftover, data):
                LOG.warning("ended the NATS server %d that an earlier headcount left in %s", pid, data)
            check_ports(self.config)
            try:
                await self._start_first(program)
                async with (
                    _background(self._reload(), "broker certificates"),
                    _background(self._restart(program), "broker restart"),
                    _background(self._check(), "broker check"),
                ):
                    yield
            finally:
                await self._stop()

    # --- what subclasses add -------------------------------------------------------------------------
    async def _start_first(self, program: Path) -> None:
        """The first start of this process."""
        await self._start(program)

    async def _started(self) -> None:
        """What is to be done after every start, before anybody may rely on the server."""

    async def _look(self) -> None:
        """What is to be done every few seconds; an answer that doesn't come is no problem here."""

    # --- starting, watching, stopping ------------------------------------------------------------------
    async def _start(self, program: Path, *, closed: bool = False) -> None:
        self.ready = False
        data_folder.write_private(self.config.data / "broker.conf", render(self.config, closed=closed))
        self._process = await _spawn(program, self.config)
        self._said = asyncio.create_task(_keep_log(self._process, self.config), name="broker log")
        (self.config.data / "broker.pid").write_text(f"{self._process.pid}\n")
        await self._until(partial(nats_probe.ask_ready, self.config, closed=True))
        await self._started()
        if not closed:
            await self._until(partial(nats_probe.ask_mqtt, self.config))
        self.ready = True
        if not closed:
            port = self.config.mqtt_port
            LOG.info("nats-server %s runs as %d, MQTT on port %d", self.version, self.pid, port)

    async def _until(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask until there is an answer, for as long as the server runs and `ready_s` at most."""
        process, config = self._process, self.config
        if process is None:
            raise BrokerError("the NATS server was never started")
        problem: Exception = TimeoutError("no answer yet")
        loop = asyncio.get_running_loop()
        until_s, say_s = loop.time() + self.ready_s, loop.time() + SAY_S
        while process.returncode is None and loop.time() < until_s:
            try:
                async with asyncio.timeout(None if math.isinf(until_s) else until_s - loop.time()):
                    return await ask()
            except (LogUnavailableError, *nats_probe.NO_ANSWER) as error:
                problem = error
            if loop.time() > say_s:
                say_s = loop.time() + SAY_S
                LOG.warning("the NATS server isn't ready yet: %s", str(problem) or repr(problem))
            await asyncio.sleep(0.03)
        happened = (
            f"doesn't answer after {self.ready_s:.0f} s ({problem!r})"
            if process.returncode is None
            else f"ended while it started ({_ending(process.returncode)})"
        )
        if process.returncode is not None and self._said is not None:
            await asyncio.wait([self._said], timeout=STOP_S)
        raise BrokerError(
            f"nats-server {happened}. Its log {config.log_file} ends with:\n{_tail(config.log_file)}"
        ) from problem

    async def _stop(self) -> None:
        if self._process is not None:
            await terminate(self._process)
        if self._said is not None:
            await asyncio.wait([self._said], timeout=STOP_S)
        (self.config.data / "broker.pid").unlink(missing_ok=True)

    async def _restart(self, program: Path) -> None:
        """Start the server again whenever it has died."""
        loop, delay_s = asyncio.get_running_loop(), BACKOFF_FIRST_S
        since = loop.time()
        while self._process is not None:
            code = await self._process.wait()
            self.ready = False
            if loop.time() - since > HEALTHY_S:
                delay_s = BACKOFF_FIRST_S
            LOG.error("the NATS server ended (%s); starting it again in %.1f s", _ending(code), delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, BACKOFF_MOST_S)
            self.restarts += 1
            since = loop.time()
            try:
                await self._start(program)
            except (HeadcountError, OSError, *nats_probe.NO_ANSWER) as error:
                LOG.error("the NATS server doesn't start: %s", error)  # noqa: TRY400 - the text says it all
                await terminate(self._process)

    async def _reload(self) -> None:
        """Have the server read its certificate again when it has changed.

        It then also looks whether its configuration still has each connection's user. Devices that the
        gate let in have none there, and are cut off; they come back. So the leaves of a core do this at
        different moments. Our own roles stay, and where everything is open everybody does.
        """
        if self.config.mqtt_tls is not None:
            await reloading(self.config.mqtt_tls, self._hang_up_soon)

    def _hang_up_soon(self) -> None:
        wait_s = secrets.randbelow(1000) / 1000 * SPREAD_S if self.config.hub else 0
        asyncio.get_running_loop().call_later(wait_s, self._hang_up)

    def _hang_up(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._check_every_s)
            try:
                await self._look()
            except (LogError, *nats_probe.NO_ANSWER) as error:
                # it is starting, or has died: `_restart` says so
                LOG.debug("the NATS server can't be asked now: %r", error)


def check_ports(config: BrokerConfig) -> None:
    """See that nobody listens on our ports.

    Raises:
        PortTakenError: somebody does.
        BrokerError: the address isn't ours, or the port needs more rights.
    """
    for purpose, (option, port) in config.ports().items():
        host = config.listens_on(purpose)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortTakenError(purpose, host, port, option) from error
                other = "another address with --inside-host, or " if host == config.inside_host else ""
                raise BrokerError(
                    f"can't listen on {host}:{port} for {purpose}: {error.strerror or error}. "
                    f"Choose {other}another port with {option}."
                ) from error


async def _spawn(program: Path, config: BrokerConfig) -> asyncio.subprocess.Process:
    """Start the server in a process group of its own: Ctrl-C in the terminal is ours to handle."""
    try:
        return await asyncio.create_subprocess_exec(
            program,
            "-c",
            (config.data / "broker.conf").absolute(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            preexec_fn=dies_with_parent(),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BrokerError(f"{program} can't be started: {error}") from error


async def _keep_log(process: asyncio.subprocess.Process, config: BrokerConfig) -> None:
    if process.stdout is not None:
        limits = config.limits
        await keep_log(process.stdout, config.log_file, limits.max_log_bytes, limits.max_logs)


async def terminate(process: asyncio.subprocess.Process) -> None:
    """Ask a server to end, and kill it when it doesn't."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            LOG.warning("the NATS server doesn't end within %.1f s: killing it", STOP_S)
            process.kill()
    await process.wait()


@asynccontextmanager
async def _background(loop: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run a loop beside the body. No task group: that would wrap the body's own errors."""
    task = asyncio.create_task(loop, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _ending(code: int | None) -> str:
    code = code or 0
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _tail(log: Path, lines: int = 8) -> str:
    try:
        text = log.read_bytes()[-8192:].decode(errors="replace")
    except OSError:
        return "(nothing)"
    return "\n".join(text.splitlines()[-lines:])
