"""The auth service beside a NATS server: accepts and refuses clients, and closes connections that are no longer valid.

    server ──▶ callout ──▶ authentication (the registry in memory) ──▶ permissions, signed
    core   ──▶ changes of DEVICE, BAN, ACCESS, SITE ──▶ authentication ──▶ connections that are no longer valid are closed
    server ──▶ its connections, every 2 s ──▶ those that are no longer valid; the traffic and presence of each

Without it the server accepts only our own roles: it fails closed. While the core is away it decides with
its last copy of the registry. It polls all connections, so a connection that a restart or a change in
the middle of a sign-in missed is found by the next poll. A refused client leaves nothing behind but the count
of its reason in the metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

from headcount.access.access_cache import AccessCache
from headcount.access.tokens import TokenStore
from headcount.broker import connections, nats_probe
from headcount.broker.device_rate_limiter import DeviceRateLimiter, MqttRateLimits
from headcount.broker.nats_config import ACCOUNT, DEVICE, SYSTEM
from headcount.broker.presence import CONNECTED_SUBJECT, DISCONNECTED_SUBJECT, ConnectionKey, Presence
from headcount.devices import auth_callout, credentials
from headcount.devices.auth_callout import AuthRequest, CalloutSigner
from headcount.devices.authentication import (
    GUESSING_REASONS,
    Authenticated,
    DeviceAuthenticator,
    RefusalReason,
)
from headcount.devices.bans import BanList
from headcount.devices.permissions import PROGRAM_USER
from headcount.errors import DeviceError, LogError
from headcount.messages.records import ApiToken
from headcount.messages.times import iso
from headcount.messages.topics import AUTH_READY_SUBJECT, INTERNAL
from headcount.messaging.connection import Connection, Endpoint, Message, connected
from headcount.messaging.kv import KvBucket
from headcount.messaging.kv_watch import watch
from headcount.messaging.site_store import SiteStore
from headcount.messaging.streams import BAN_BUCKET, DEVICE_BUCKET
from headcount.runtime.tasks import cancel_all

_log = logging.getLogger(__name__)

#: All connections are polled at this interval, or so rarely that polls take at most this share of the time.
POLL_INTERVAL_S, POLL_SHARE = 2.0, 0.05
#: After connections were closed they are polled again: a client may have been in the middle of signing in.
AGAIN_S = 0.5
#: Why an address is kept out by itself; who proves to be a device may still come from there.
GUESSING = "too many refused sign-ins"
#: Programs that are being looked up at the same time; who comes then isn't let in.
_MAX_LOOKUPS = 100
#: Bans that wait to be written.
_MAX_BANS = 1_000


@dataclass(frozen=True, slots=True)
class AuthServiceSettings:
    """Settings of an auth service.

    `direct`: devices reach the server themselves, so an address that it sees is a device's and not a
    balancer's: only then are addresses that guess banned.
    """

    unit: str
    server: tuple[tuple[str, int], ...]  # its NATS port
    secret: str
    direct: bool
    limits: MqttRateLimits = field(default_factory=MqttRateLimits)
    plugin_subjects: tuple[str, ...] = ()


@dataclass(slots=True)
class AuthServiceStats:
    """Statistics of an auth service since its start."""

    admitted: int = 0
    refused: Counter[RefusalReason] = field(default_factory=Counter)
    cut: int = 0
    bans: Counter[str] = field(default_factory=Counter)


class AuthService:
    """The auth service of one server; `opened` runs it."""

    def __init__(self, settings: AuthServiceSettings) -> None:
        self.settings = settings
        self.figures = AuthServiceStats()
        key = credentials.token_key(settings.secret)
        self.authenticator = DeviceAuthenticator(key, settings.plugin_subjects)
        #: NATS connections to the server that are its own, and messages that it has sent there.
        self.connections = 0
        self.sent = 0
        self._signer = CalloutSigner(settings.secret, ACCOUNT)
        self._stopping = False
        self._poll_soon = asyncio.Event()
        self._changed_names: asyncio.Queue[str] = asyncio.Queue()
        self._new_bans: asyncio.Queue[tuple[str, str]] = asyncio.Queue(_MAX_BANS)
        self._lookups: set[asyncio.Task[None]] = set()
        self._tokens: TokenStore | None = None
        self._programs: dict[str, ApiToken] = {}
        self._limiter = DeviceRateLimiter(settings.limits)
        self._sent_before: dict[int, tuple[int, int]] | None = None
        self.presence = Presence(settings.unit, _device_of)

    @property
    def problem(self) -> str | None:
        """The reason why no device can connect now; None: devices can."""
        if self.connections == 0:
            return "the auth service waits for the NATS server"
        return None if self.authenticator.ready else "the auth service waits for the registry of devices"

    @contextlib.asynccontextmanager
    async def opened(self, core: Connection) -> AsyncIterator[None]:
        """Run it, with a connection to the core."""
        settings = self.settings
        inside = Endpoint(settings.server, INTERNAL, settings.secret)
        system = Endpoint(settings.server, SYSTEM, settings.secret)
        kept = AccessCache(core)
        self._tokens = TokenStore(kept)
        async with (
            connected(inside, f"headcount auth service {settings.unit}") as server,
            connected(system, f"headcount auth service {settings.unit}") as over,
        ):
            await server.subscribe(auth_callout.SUBJECT, partial(self._answer, server))
            if settings.direct:
                await server.subscribe(AUTH_READY_SUBJECT, self._report_ready)
            await over.subscribe(CONNECTED_SUBJECT, self.presence.on_connected)
            await over.subscribe(DISCONNECTED_SUBJECT, self.presence.on_disconnected)
            await server.flush()
            await over.flush()
            self.connections = 2
            loops = {
                "devices": watch(
                    core, DEVICE_BUCKET, "device.*", on_all=self._all_devices, on_change=self._device_changed
                ),
                "bans": watch(core, BAN_BUCKET, ">", on_all=self._all_bans, on_change=self._ban_changed),
                "tokens": kept.run(),
                "sites": self._run_sites(SiteStore(core)),
                "polls": self._run_polling(over),
                "closing": self._run_closing(over),
                "new bans": self._run_bans(BanList(KvBucket(core, BAN_BUCKET))),
                "presence": self.presence.publish(core, self.authenticator.is_registered),
            }
            tasks = {asyncio.create_task(loop, name=f"auth service: {name}") for name, loop in loops.items()}
            for task in tasks:
                task.add_done_callback(self._loop_ended)
            try:
                yield
            finally:
                self._stopping = True
                self.connections = 0
                await cancel_all(tasks | self._lookups)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """When a loop ends by itself, no device is accepted any more, and `problem` reports it."""
        if not task.cancelled() and not self._stopping:
            _log.error("%s has ended: %r", task.get_name(), task.exception())
            self.authenticator.ready = False

    async def _report_ready(self, message: Message) -> None:
        if message.reply:
            await message.respond((self.problem or "").encode())

    # --- the callout ------------------------------------------------------------------------------------
    async def _answer(self, server: Connection, message: Message) -> None:
        """Answer the server's question; what can't be read gets no answer and isn't let in either."""
        request = auth_callout.decode_request(message.data)
        now_s = time.time()
        if request is None or request.until_s <= now_s:  # the server has given up already
            return
        if request.user == PROGRAM_USER:
            if len(self._lookups) < _MAX_LOOKUPS:
                task = asyncio.create_task(self._answer_program(server, message, request), name="a program")
                self._lookups.add(task)
                task.add_done_callback(self._lookups.discard)
            return
        await self._reply(
            server, message, request, self.authenticator.authenticate_device(request, now_s), now_s
        )

    async def _answer_program(self, server: Connection, message: Message, request: AuthRequest) -> None:
        token = None
        if self._tokens is not None:
            with contextlib.suppress(LogError):
                token = await self._tokens.check(request.password)
        now_s = time.time()
        verdict = self.authenticator.authenticate_program(request, token, now_s)
        if isinstance(verdict, Authenticated) and token is not None:
            self._programs[verdict.name] = token
        await self._reply(server, message, request, verdict, now_s)

    async def _reply(
        self,
        server: Connection,
        message: Message,
        request: AuthRequest,
        verdict: Authenticated | RefusalReason,
        now_s: float,
    ) -> None:
        if isinstance(verdict, Authenticated):
            self.figures.admitted += 1
            answer = self._signer.accept(request, verdict.name, verdict.permissions, now_s, verdict.expires_s)
            if verdict.device is not None and self._limiter.connected(verdict.device, time.monotonic()):
                self._ban(verdict.device, "connects too often")
        else:
            self.figures.refused[verdict] += 1
            answer = self._signer.refuse(request, now_s)
            if verdict in GUESSING_REASONS:
                self._guessed(request.address)
        self.sent += 1
        await server.publish(message.reply, answer)

    def _guessed(self, address: str) -> None:
        if not self.settings.direct or address in {"127.0.0.1", "::1"}:
            return
        if self._limiter.refused(address, time.monotonic()):
            self._ban(address, GUESSING)

    def _ban(self, who: str, reason: str) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._new_bans.put_nowait((who, reason))

    # --- what changes -------------------------------------------------------------------------------------
    def _all_devices(self, found: dict[str, bytes]) -> None:
        self.authenticator.replace_devices(found)
        self._poll_soon.set()

    def _device_changed(self, key: str, value: bytes | None) -> None:
        name = self.authenticator.update_device(key, value)
        if name is not None:
            self._changed_names.put_nowait(name)

    def _all_bans(self, found: dict[str, bytes]) -> None:
        self.authenticator.replace_bans(found)
        self._poll_soon.set()

    def _ban_changed(self, key: str, value: bytes | None) -> None:
        self.authenticator.update_ban(key, value)
        if value is not None:
            self._poll_soon.set()

    async def _run_sites(self, store: SiteStore) -> None:
        """Read when sites are removed; the next poll closes the connections of their devices."""
        known = 0
        while True:
            try:
                revision, _ = await store.state()
                if revision != known and (versions := await store.versions_up_to(revision)):
                    newest = {version.site: version for version in versions}
                    ends_s = {
                        site: math.inf if version.file is not None else version.from_s
                        for site, version in newest.items()
                    }
                    for site, end_s in ends_s.items():
                        if self.authenticator.sites.get(site, end_s) > end_s:
                            _log.warning(
                                "the site %s is removed at %s; then its devices are disconnected and refused",
                                site,
                                iso(end_s),
                            )
                    self.authenticator.sites, known = ends_s, revision
            except LogError as error:
                _log.debug("cannot read the sites: %s", error)
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _run_closing(self, over: Connection) -> None:
        """Close the connections of devices that have changed, immediately where they are few."""
        while True:
            names = [await self._changed_names.get()]
            while len(names) < 10 and not self._changed_names.empty():
                names.append(self._changed_names.get_nowait())
            try:
                if not self._changed_names.empty():
                    while not self._changed_names.empty():
                        self._changed_names.get_nowait()
                else:
                    for name in names:
                        await self._cut(over, name)
                    await asyncio.sleep(AGAIN_S)
            except nats_probe.NO_ANSWER as error:
                _log.debug("the NATS server can't be asked now: %r", error)
            self._poll_soon.set()

    async def _cut(self, over: Connection, name: str) -> None:
        async for server, page in connections.pages(over, name):
            self.sent += 1
            for one in page:
                await self._close(over, server, one.cid)

    async def _close(self, over: Connection, server: str, cid: int) -> None:
        await connections.close(over, server, cid)
        self.sent += 1
        self.figures.cut += 1

    # --- polling all connections ---------------------------------------------------------------------
    async def _run_polling(self, over: Connection) -> None:
        loop = asyncio.get_running_loop()
        pause_s = POLL_INTERVAL_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._poll_soon.wait()
            self._poll_soon.clear()
            if not self.authenticator.ready:
                continue
            began_s = loop.time()
            try:
                await self._poll(over)
            except nats_probe.NO_ANSWER as error:
                self._sent_before = None
                _log.debug("the NATS server can't be asked now: %r", error)
            pause_s = max(POLL_INTERVAL_S, (loop.time() - began_s) / POLL_SHARE)
            await asyncio.sleep(0.1)  # not again and again while many change

    async def _poll(self, over: Connection) -> None:
        now_s = time.time()
        first, before = self._sent_before is None, self._sent_before or {}
        after: dict[int, tuple[int, int]] = {}
        present: dict[ConnectionKey, str] = {}
        used: dict[str, tuple[int, int]] = {}
        closing: list[int] = []
        server = ""
        self.presence.begin_poll()
        async for name, page in connections.pages(over):
            self.sent += 1
            server = name
            for one in page:
                user = one.authorized_user
                # a name without a fingerprint is still what was typed: the sign-in isn't answered yet
                if one.mqtt_client is None or ("." not in user and user != DEVICE):
                    continue
                if not self._stays(user, one.ip, now_s):
                    closing.append(one.cid)
                    continue
                device = _device_of(user)
                if device is None:
                    continue
                present[name, one.cid] = device
                sent = after[one.cid] = one.in_msgs, one.in_bytes
                old = sent if first else before.get(one.cid, (0, 0))
                messages, size = used.get(device, (0, 0))
                used[device] = messages + sent[0] - old[0], size + sent[1] - old[1]
            await asyncio.sleep(0)
        self._sent_before = after
        self.presence.end_poll(present)
        for cid in closing:
            await self._close(over, server, cid)
        self._measure(used)

    def _stays(self, user: str, address: str, now_s: float) -> bool:
        if user == DEVICE:  # where everything is open, anybody
            return not self.authenticator.is_banned("", address, now_s)
        if user.startswith(f"{PROGRAM_USER}."):
            token = self._programs.get(user)
            if token is None:  # it signed in before this auth service was started: it may sign in again
                return False
            holds = self._tokens is not None and self._tokens.is_still_valid(token)
            return holds and not self.authenticator.is_banned("", address, now_s)
        return self.authenticator.is_still_valid(user, address, now_s)

    def _measure(self, used: dict[str, tuple[int, int]]) -> None:
        now_s = time.monotonic()
        for device, (messages, size) in used.items():
            gateway = self.authenticator.is_gateway(device)
            if self._limiter.sent(device, messages, size, now_s, gateway=gateway):
                self._ban(device, "sends too much")

    async def _run_bans(self, bans: BanList) -> None:
        while True:
            who, reason = await self._new_bans.get()
            try:
                banned = await bans.add(who, self.settings.limits.ban_s, reason, guesses=reason == GUESSING)
            except (LogError, DeviceError) as error:
                _log.warning("a ban can't be written: %s", type(error).__name__)
                continue
            kind = "address" if banned.address else "device"
            self.figures.bans[kind] += 1
            _log.warning("one %s is kept out for %.0f s: it %s", kind, self.settings.limits.ban_s, reason)


def _device_of(user: str) -> str | None:
    """The device of a connection; None: it is another client's, or its sign-in isn't answered yet."""
    device, accepted, _ = user.partition(".")
    return device if accepted and device != PROGRAM_USER else None


async def run(settings: AuthServiceSettings, core: Connection, stop: asyncio.Event) -> None:
    """Run an auth service until `stop` is set."""
    async with AuthService(settings).opened(core):
        await stop.wait()
