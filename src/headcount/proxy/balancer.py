"""The role `proxy`: HAProxy in front of all units that accept connections.

Every half second it compares the table of units with HAProxy's servers and corrects HAProxy. Changes are also
written to HAProxy's file, for restarts and reloads. SIGHUP reloads: a new HAProxy process (for example after
an update of the program) starts beside the old one, which keeps its connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from headcount.errors import DataFolderError, LogError, ProxyError, SettingsError
from headcount.messaging.units import UnitTable
from headcount.proxy.address_bans import AddressBans
from headcount.proxy.backends import NameResolver, servers_of_backends
from headcount.proxy.haproxy_process import Haproxy
from headcount.proxy.membership import Membership, ProxiedUnit, decode_units, encode_units
from headcount.proxy.proxy_config import BANNED_FILE, BackendServers, ProxyConfig
from headcount.proxy.reconcile import Reconciler
from headcount.proxy.runtime_api import ServerStatuses
from headcount.runtime.private_files import folder_errors, write_private
from headcount.runtime.signals import on_hangup
from headcount.runtime.tasks import wait_any
from headcount.tls.reload import reloading
from headcount.tls.tls_files import TlsFiles

_log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
UNITS_FILE, BANS_FILE = "units.json", "bans.json"

#: Reads the table of units; raises LogError while the core is unavailable.
UnitSource = Callable[[], Awaitable[UnitTable]]


@dataclass(frozen=True, slots=True)
class BalancerOptions:
    """The options of a balancer.

    `folder` is its own; `apis` are `host:port`, where each address of a name is one API; `tls` is the
    certificate, if `config.tls` is set; `bans` are the refused addresses, updated by the caller.

    Raises:
        SettingsError: a value is not valid.
    """

    config: ProxyConfig
    folder: Path
    units: UnitSource
    apis: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    program: Path | None = None
    bans: AddressBans = field(default_factory=AddressBans)

    def __post_init__(self) -> None:
        self.api_addresses()
        if self.config.tls and self.tls is None:
            raise SettingsError("--tls", "needs a certificate")

    def api_addresses(self) -> list[tuple[str, int]]:
        """`apis` as hosts and ports."""
        return [_split_address(api) for api in self.apis]


async def run(settings: BalancerOptions, stop: asyncio.Event) -> None:
    """Run HAProxy and update its servers until `stop` is set.

    Raises:
        HeadcountError: it cannot be started.
    """
    async with opened(settings) as role, reloading(settings.tls, role.reload_soon):
        with on_hangup(role.reload_soon):
            while not stop.is_set():
                await role.step()
                await wait_any(stop, timeout_s=POLL_INTERVAL_S)


@contextlib.asynccontextmanager
async def opened(settings: BalancerOptions) -> AsyncIterator[Balancer]:
    """A balancer with a running HAProxy; the caller calls `step`."""
    known: list[ProxiedUnit] = []
    with contextlib.suppress(OSError):
        known = decode_units((settings.folder / UNITS_FILE).read_bytes())
    membership = Membership(known)
    names = NameResolver(asyncio.get_running_loop().time)
    pools = await servers_of_backends(settings.config, membership.units, settings.api_addresses(), names)
    settings.bans.load(settings.folder / BANS_FILE)
    haproxy = Haproxy(
        settings.config,
        settings.folder,
        pools=pools,
        tls=settings.tls,
        program=settings.program,
        banned=settings.bans.active(time.time()),
    )
    async with haproxy:
        yield Balancer(settings, haproxy, membership, names)


class Balancer:
    """Updates a running HAProxy: each `step` corrects its servers and bans."""

    def __init__(
        self, settings: BalancerOptions, haproxy: Haproxy, membership: Membership, names: NameResolver
    ) -> None:
        self.haproxy = haproxy
        self._settings = settings
        self._membership = membership
        self._names = names
        self._plan = Reconciler(settings.config.limits.check_every_s)
        self._written: tuple[dict[str, ProxiedUnit], BackendServers] | None = None
        self._written_bans: bytes | None = None
        self._closed_for: frozenset[str] = frozenset()  # addresses whose connections were closed
        self._core_away = False
        self._reload = False

    def reload_soon(self) -> None:
        """Reload at the next step."""
        self._reload = True

    async def step(self) -> None:
        """Update HAProxy once."""
        loop = asyncio.get_running_loop()
        table = await self._table()
        self._membership.observe(table, loop.time())
        pools = await self._pools()
        self._write(pools)
        banned = self._write_bans()
        try:
            if self._reload:
                self._reload = False
                await self.haproxy.reload()
            await self._refuse(banned)
            standing = await self.haproxy.runtime.statuses()
            abandoned = self._abandoned(pools, standing, loop.time()) if table is not None else set()
            commands = self._plan.commands(pools, standing, abandoned, loop.time())
        except ProxyError as error:
            _log.debug("%s", error)  # it is being restarted, which its supervisor logs
            return
        for command in commands:
            _log.info("%s", command)
            try:
                await self.haproxy.runtime.execute(command)
            except ProxyError as error:
                _log.warning("%s", error)

    def _write_bans(self) -> frozenset[str]:
        """Write the bans to the files; returns the banned addresses."""
        banned = self._settings.bans.active(time.time())
        kept = self._settings.bans.encoded()
        if kept != self._written_bans:
            try:
                self._write_file(BANS_FILE, kept)
                self.haproxy.write_banned(banned)
            except DataFolderError as error:  # serve all the same, as with the units
                _log.warning("%s", error)
            else:
                self._written_bans = kept
        return banned

    def _write_file(self, name: str, content: bytes) -> None:
        with folder_errors(self._settings.folder):
            write_private(self._settings.folder / name, content)

    async def _refuse(self, banned: frozenset[str]) -> None:
        """Make HAProxy refuse exactly these addresses, and close the connections of new ones."""
        runtime = self.haproxy.runtime
        there = await runtime.banned()
        for address in there - banned:
            await runtime.execute(f"del acl {BANNED_FILE} {address}")
        for address in banned - there:
            await runtime.execute(f"add acl {BANNED_FILE} {address}")
        # after a reload or restart HAProxy has them from its file: close their connections, too
        new, self._closed_for = banned - self._closed_for, banned
        if new:
            sessions = await runtime.sessions_of(new)
            for session in sessions:
                with contextlib.suppress(ProxyError):  # it has ended meanwhile
                    await runtime.execute(f"shutdown session {session}")
            _log.info("banned %d addresses and closed %d connections", len(new), len(sessions))
        if there - banned:
            _log.info("lifted the bans of %d addresses", len(there - banned))

    async def _table(self) -> UnitTable | None:
        try:
            table = await self._settings.units()
        except LogError as error:
            if not self._core_away:
                _log.warning("the core is unavailable, keeping the units: %s", error)
            self._core_away = True
            return None
        if self._core_away:
            _log.warning("the core is available again")
        self._core_away = False
        return table

    def _abandoned(self, pools: BackendServers, standing: ServerStatuses, now_s: float) -> set[str]:
        """The units whose connections must be closed."""
        health = standing.get("mqtt", {})
        down = {server.unit for server in pools["mqtt"] if server.name in health and health[server.name].down}
        return self._membership.abandoned(down, now_s)

    async def _pools(self) -> BackendServers:
        settings = self._settings
        return await servers_of_backends(
            settings.config, self._membership.units, settings.api_addresses(), self._names
        )

    def _write(self, pools: BackendServers) -> None:
        now = (dict(self._membership.units), pools)
        if now == self._written:
            return
        try:
            self._write_file(UNITS_FILE, encode_units(self._membership.units))
            self.haproxy.write(pools)
        except DataFolderError as error:  # a full disk must not stop the service
            _log.warning("%s", error)
        else:
            self._written = now


def _split_address(api: str) -> tuple[str, int]:
    host, _, port = api.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise SettingsError("--apis", f"{api!r} is not host:port")
    return host.strip("[]"), int(port)
