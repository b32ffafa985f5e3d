"""The role `proxy`: HAProxy, and behind it whoever says that it takes connections.

Every half second: who is in the table of units, who is up in HAProxy, what must be told. What is told
is written to HAProxy's file as well, so that a restart or reload has it. SIGHUP reloads: a new HAProxy
(after an update of the program, say) beside the old one, which keeps its connections.
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
from headcount.proxy import proxy_folder
from headcount.proxy.address_bans import AddressBans
from headcount.proxy.backends import pools_of
from headcount.proxy.haproxy_config import BANNED_FILE, Pools, ProxyConfig
from headcount.proxy.haproxy_process import Haproxy
from headcount.proxy.membership import Membership, Unit, heard_as, read_heard
from headcount.proxy.reconcile import Plan
from headcount.proxy.resolver import Names
from headcount.proxy.runtime_api import Standing
from headcount.runtime.signals import on_hangup
from headcount.tls.reload import reloading
from headcount.tls.tls_files import TlsFiles

_log = logging.getLogger(__name__)

POLL_S = 0.5
UNITS_FILE, BANS_FILE = "units.json", "bans.json"

#: The table of units now; raises LogError while the core is away.
UnitSource = Callable[[], Awaitable[UnitTable]]


@dataclass(frozen=True, slots=True)
class ProxyParts:
    """What the role needs.

    `folder` is the balancer's own; `apis` are `host:port`, each address of a name is one API; `tls` is
    its certificate, if `config.tls` is set; `bans` is whom it refuses, kept up to date by the caller.

    Raises:
        SettingsError: a value can't be used.
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
        return [_split(api) for api in self.apis]


async def run(settings: ProxyParts, stop: asyncio.Event) -> None:
    """HAProxy, kept in step with the units, until `stop` is set.

    Raises:
        HeadcountError: it can't be started.
    """
    async with opened(settings) as role, reloading(settings.tls, role.reload_soon):
        with on_hangup(role.reload_soon):
            while not stop.is_set():
                await role.step()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await stop.wait()


@contextlib.asynccontextmanager
async def opened(settings: ProxyParts) -> AsyncIterator[Role]:
    """The role with a running HAProxy; `step` is for the caller to call."""
    membership = Membership(_known(settings.folder))
    names = Names(asyncio.get_running_loop().time)
    pools = await pools_of(settings.config, membership.units, settings.api_addresses(), names)
    settings.bans.recall(settings.folder / BANS_FILE)
    haproxy = Haproxy(
        settings.config,
        settings.folder,
        pools=pools,
        tls=settings.tls,
        program=settings.program,
        banned=settings.bans.at(time.time()),
    )
    async with haproxy:
        yield Role(settings, haproxy, membership, names)


def _known(home: Path) -> list[Unit]:
    """The units known last."""
    try:
        return read_heard((home / UNITS_FILE).read_bytes())
    except OSError:
        return []


class Role:
    """The balancer as one object: `step` brings HAProxy in line with the units."""

    def __init__(self, settings: ProxyParts, haproxy: Haproxy, membership: Membership, names: Names) -> None:
        """Keep this HAProxy in step; see `opened`."""
        self.haproxy = haproxy
        self._settings = settings
        self._membership = membership
        self._names = names
        self._plan = Plan(settings.config.limits.check_every_s)
        self._written: tuple[dict[str, Unit], Pools] | None = None
        self._refused: bytes | None = None
        self._closed_for: frozenset[str] = frozenset()
        self._core_away = False
        self._reload = False

    def reload_soon(self) -> None:
        """Reload at the next step."""
        self._reload = True

    async def step(self) -> None:
        """Look once, and tell HAProxy what has changed."""
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
            standing = await self.haproxy.runtime.standing()
            abandoned = self._abandoned(pools, standing, loop.time()) if table is not None else set()
            commands = self._plan.commands(pools, standing, abandoned, loop.time())
        except ProxyError as error:
            _log.debug("%s", error)  # it is being started again: its watcher says so
            return
        for command in commands:
            _log.info("%s", command)
            try:
                await self.haproxy.runtime.tell(command)
            except ProxyError as error:
                _log.warning("%s", error)

    def _write_bans(self) -> frozenset[str]:
        """Who is refused now; the files say it too."""
        banned = self._settings.bans.at(time.time())
        kept = self._settings.bans.kept()
        if kept != self._refused:
            try:
                proxy_folder.replace(self._settings.folder / BANS_FILE, kept)
                self.haproxy.write_banned(banned)
            except DataFolderError as error:  # as with the units
                _log.warning("%s", error)
            else:
                self._refused = kept
        return banned

    async def _refuse(self, banned: frozenset[str]) -> None:
        """Have HAProxy refuse these and nobody else, and close what the new ones have open."""
        runtime = self.haproxy.runtime
        there = await runtime.banned()
        for address in there - banned:
            await runtime.tell(f"del acl {BANNED_FILE} {address}")
        for address in banned - there:
            await runtime.tell(f"add acl {BANNED_FILE} {address}")
        # after a reload or restart HAProxy has them from its file: their connections are looked for as well
        new, self._closed_for = banned - self._closed_for, banned
        if new:
            sessions = await runtime.sessions_of(new)
            for session in sessions:
                with contextlib.suppress(ProxyError):  # it has ended by itself
                    await runtime.tell(f"shutdown session {session}")
            _log.info("%d addresses are refused from now on, %d connections closed", len(new), len(sessions))
        if there - banned:
            _log.info("%d addresses are let in again", len(there - banned))

    async def _table(self) -> UnitTable | None:
        try:
            table = await self._settings.units()
        except LogError as error:
            if not self._core_away:
                _log.warning("the core is away, the units stay as they were: %s", error)
            self._core_away = True
            return None
        if self._core_away:
            _log.warning("the core is back")
        self._core_away = False
        return table

    def _abandoned(self, pools: Pools, standing: Standing, now_s: float) -> set[str]:
        """The units whose connections are to be closed."""
        health = standing.get("mqtt", {})
        down = {server.unit for server in pools["mqtt"] if server.name in health and health[server.name].down}
        return self._membership.abandoned(down, now_s)

    async def _pools(self) -> Pools:
        settings = self._settings
        return await pools_of(
            settings.config,
            self._membership.units,
            settings.api_addresses(),
            self._names,
        )

    def _write(self, pools: Pools) -> None:
        now = (dict(self._membership.units), pools)
        if now == self._written:
            return
        try:
            proxy_folder.replace(self._settings.folder / UNITS_FILE, heard_as(self._membership.units))
            self.haproxy.write(pools)
        except DataFolderError as error:  # a full disk is no reason not to serve
            _log.warning("%s", error)
        else:
            self._written = now


def _split(api: str) -> tuple[str, int]:
    host, _, port = api.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise SettingsError("--apis", f"{api!r} is not host:port")
    return host.strip("[]"), int(port)
