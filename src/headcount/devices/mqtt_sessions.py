"""Limits on what the broker stores for a client: its MQTT sessions, and QoS 2 messages that wait for PUBREL.

A persistent session stays until its client discards it, with a consumer for each subscription with QoS 1, and
all clients share the consumers of one stream. So a client has a maximum number of sessions: beyond that, the
least recently used one is discarded, as is a session with too many subscriptions: the server does not apply
the limit in a client's permissions. The broker stores a session's record again at each connection and
subscription, so the order of its stream `$MQTT_sess` is the order of use.

A session is discarded as MQTT does it: a client of that id connects with a clean session, and disconnects. That
closes the connection of a device that uses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from itertools import cycle

import aiomqtt
import msgspec

from headcount.devices.permissions import MAX_SUBSCRIPTIONS
from headcount.errors import CertificateError, LogError
from headcount.messages.records import DEVICE_KEY
from headcount.messages.topics import HANDLE, INTERNAL
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection
from headcount.messaging.kv_watch import watch
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.streams import DEVICE_BUCKET, MQTT_QOS2, MQTT_SESSIONS
from headcount.runtime.retry import repeat
from headcount.runtime.tasks import until_stopped

_log = logging.getLogger(__name__)

#: Sessions of a device, of a program, and of all clients without an account together.
MAX_SESSIONS, MAX_PROGRAM_SESSIONS, MAX_ANONYMOUS_SESSIONS = 10, 100, 10_000
#: QoS 2 messages of one session that may wait for PUBREL; common clients send 20 at a time.
MAX_QOS2_WAITING = 64
POLL_INTERVAL_S = 1.0
#: The broker removes a session's record after the connection was closed.
_REMOVED_S, _REMOVED_POLL_S = 1.0, 0.02
_PAGE = 1000
_DEVICE_PREFIX = DEVICE_KEY.format(id="")
_QOS2_PREFIX = "$MQTT.qos2.in."


class _SessionRecord(msgspec.Struct):
    """The broker's record of a session; the fields that are used."""

    id: str = ""
    subs: dict[str, int] = {}


class _StatusEntry(msgspec.Struct):
    status: str = ""


_record = msgspec.json.Decoder(_SessionRecord)
_status = msgspec.json.Decoder(_StatusEntry)


def max_sessions(owner: str) -> int:
    """The maximum number of sessions of a client."""
    if not owner:
        return MAX_ANONYMOUS_SESSIONS
    return MAX_PROGRAM_SESSIONS if is_program(owner) else MAX_SESSIONS


def is_program(owner: str) -> bool:
    """Whether a client is a program with a token: devices have handles."""
    return owner != "" and HANDLE.fullmatch(owner) is None


class MqttSessions:
    """Keeps the sessions of all clients within their limits."""

    def __init__(
        self, connection: Connection, brokers: Sequence[MqttAddress], *, anonymous: bool = False
    ) -> None:
        """Use a reconnecting connection to the core, and MQTT at any of the brokers.

        With `anonymous`, a client id proves nothing: clients without an account can connect.
        """
        self._connection = connection
        self._anonymous = anonymous
        self._brokers = cycle(brokers)
        #: Owner → client id → subject of its record, the least recently used first; some may be gone.
        self._sessions: dict[str, dict[str, str]] = {}
        self._last_seq = 0
        self._changed: set[str] = set()  # owners to check
        self._excessive: dict[str, str] = {}  # sessions with too many subscriptions, as in `_sessions`
        self._devices: set[str] = set()
        self._removed: set[str] = set()  # devices that are being removed
        self.discarded = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Apply the limits until `stop` is set."""
        await until_stopped(self._run(), stop)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            watching = watch(
                self._connection,
                DEVICE_BUCKET,
                "device.*",
                on_all=self._all_devices,
                on_change=self._device_changed,
            )
            polling = repeat(
                self._poll,
                (LogError, aiomqtt.MqttError, CertificateError, TimeoutError),
                "cannot check MQTT sessions now",
                pause_s=POLL_INTERVAL_S,
                level=logging.INFO,
            )
            group.create_task(watching, name="sessions: devices")
            group.create_task(polling, name="sessions: poll")

    def _all_devices(self, found: dict[str, bytes]) -> None:
        self._devices.clear()
        for key, value in found.items():
            self._device_changed(key, value)

    def _device_changed(self, key: str, value: bytes | None) -> None:
        id_ = key.removeprefix(_DEVICE_PREFIX)
        if value is None or _status.decode(value).status == "erasing":
            self._removed.add(id_)
            self._devices.discard(id_)
        else:
            self._devices.add(id_)

    def _owner(self, client_id: str) -> str | None:
        """The device or program that has a session; "": a client without an account; None: one of our roles."""
        owner = client_id.partition("-")[0]
        if owner == INTERNAL:
            return None
        return "" if self._anonymous and owner not in self._devices else owner

    async def _poll(self) -> None:
        await self._read_records()
        for owner in self._removed & self._sessions.keys():
            await self._limit(owner, 0)
        self._removed &= self._sessions.keys()
        while self._excessive:
            client_id, subject = next(iter(self._excessive.items()))
            await self._discard(client_id, subject)
            del self._excessive[client_id]
        while self._changed:
            owner = next(iter(self._changed))
            await self._limit(owner, max_sessions(owner))
            self._changed.discard(owner)
        await self._limit_qos2()

    async def _read_records(self) -> None:
        state = (await jetstream.stream_info(self._connection, MQTT_SESSIONS)).state
        if state.last_seq < self._last_seq:  # the broker has restarted without its sessions
            self._sessions.clear()
            self._last_seq = 0
        scan = jetstream.direct_scan(
            self._connection, MQTT_SESSIONS, "$MQTT.sess.>", first=self._last_seq + 1, last=state.last_seq
        )
        async for message in scan:
            self._last_seq = message.sequence
            record = _record.decode(message.data)
            owner = self._owner(record.id)
            if owner is None:
                continue
            if len(record.subs) > MAX_SUBSCRIPTIONS and not is_program(owner):
                self._excessive[record.id] = message.subject
            sessions = self._sessions.setdefault(owner, {})
            sessions.pop(record.id, None)
            sessions[record.id] = message.subject
            self._changed.add(owner)

    async def _limit(self, owner: str, limit: int) -> None:
        """Discard a client's least recently used sessions beyond a limit."""
        sessions = self._sessions.get(owner, {})
        if len(sessions) > limit:
            present = await self._present(list(sessions.values()))
            for client_id in [each for each, subject in sessions.items() if subject not in present]:
                del sessions[client_id]
        for client_id in list(sessions)[: max(len(sessions) - limit, 0)]:
            await self._discard(client_id, sessions[client_id])
            del sessions[client_id]
        if not sessions:
            self._sessions.pop(owner, None)

    async def _present(self, subjects: list[str]) -> set[str]:
        """Those of the records that exist."""
        present: set[str] = set()
        for at in range(0, len(subjects), _PAGE):
            query = {"multi_last": subjects[at : at + _PAGE]}
            found, _, _ = await jetstream.direct_get(self._connection, MQTT_SESSIONS, query)
            present |= {message.subject for message in found}
        return present

    async def _discard(self, client_id: str, subject: str) -> None:
        async with next(self._brokers).client(client_id, unique=False):
            pass
        self.discarded += 1
        for _ in range(round(_REMOVED_S / _REMOVED_POLL_S)):
            if not await self._present([subject]):
                return
            await asyncio.sleep(_REMOVED_POLL_S)

    async def _limit_qos2(self) -> None:
        """Drop the oldest QoS 2 messages of a session that has too many that wait for PUBREL."""
        if (await jetstream.stream_info(self._connection, MQTT_QOS2)).state.messages <= MAX_QOS2_WAITING:
            return
        info = await jetstream.request(
            self._connection, f"STREAM.INFO.{MQTT_QOS2}", {"subjects_filter": f"{_QOS2_PREFIX}>"}
        )
        waiting = Counter(subject.rpartition(".")[0] for subject in info["state"].get("subjects") or {})
        for session, number in waiting.items():
            if number > MAX_QOS2_WAITING:
                body = {"filter": f"{session}.*", "keep": MAX_QOS2_WAITING}
                await jetstream.request(self._connection, f"STREAM.PURGE.{MQTT_QOS2}", body)
                _log.info("dropped %d QoS 2 messages of a session without PUBREL", number - MAX_QOS2_WAITING)
