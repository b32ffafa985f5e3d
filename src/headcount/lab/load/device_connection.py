"""A device's connection, which reconnects and sends unacknowledged messages again.

put(message) ──▶ waiting ──▶ socket ──▶ (QoS 1) unacked ──PUBACK──▶ done
                    ▲                        │
                    └──── connection lost ───┘   in order
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from headcount.lab.load.mqtt_packets import (
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    LastWill,
    PacketReader,
    connect,
    publish,
)
from headcount.lab.load.population import FixMessage

#: Messages that wait while disconnected; beyond that the oldest are dropped.
BUFFER = 500
#: Unacknowledged messages; more wait, so that they stay in order if they are sent again.
WINDOW = 20
KEEPALIVE_S = 30
#: Limits of the random time before the next attempt: the first one, doubled up to the last one.
RETRY_MIN_S, RETRY_MAX_S = 0.3, 5.0
#: Time limit for a response of the broker.
RESPONSE_S = 6.0
#: Width and number of the classes of acknowledgement times.
ACK_CLASS_S, ACK_CLASSES = 0.005, 2001


@dataclass(slots=True)
class ConnectionCounters:
    """The counters of all connections of a process."""

    created: int = 0
    sent: int = 0  # written to the socket, including repetitions
    acked: int = 0
    resent: int = 0  # QoS 1 messages sent again
    dropped: int = 0  # when a buffer was full
    abandoned: int = 0  # QoS 0 messages that waited when the device left
    disconnects: int = 0  # unexpected ones
    refused: int = 0  # connections that failed to open
    opened: int = 0
    connected: int = 0
    ack_s: list[int] = field(default_factory=lambda: [0] * ACK_CLASSES)


@dataclass(slots=True)
class LoadTarget:
    """The address that devices connect to."""

    host: str
    port: int


class DeviceConnection(asyncio.Protocol):
    """A device's connection; it reconnects between `open` and `close`."""

    __slots__ = (
        "_address",
        "_attempts",
        "_broker",
        "_counters",
        "_name",
        "_number",
        "_on_ack",
        "_packets",
        "_paused",
        "_pinged_s",
        "_rng",
        "_task",
        "_transport",
        "_unacked",
        "_up",
        "_waiting",
        "_wanted",
        "_will",
    )

    def __init__(
        self,
        broker: LoadTarget,
        name: str,
        counters: ConnectionCounters,
        on_ack: Callable[[FixMessage], None],
        rng: random.Random,
        *,
        will: LastWill | None = None,
        address: str | None = None,
    ) -> None:
        """Prepare a connection; `open` connects.

        Args:
            broker: the address to connect to.
            name: the MQTT client id.
            counters: shared by the connections of a process.
            on_ack: is called with each acknowledged QoS 1 message.
            rng: of the times between two attempts.
            will: the last will.
            address: the local address; None for any.
        """
        self._broker, self._name, self._counters, self._on_ack = broker, name, counters, on_ack
        self._rng, self._will, self._address = rng, will, address
        self._waiting: deque[tuple[FixMessage, bool]] = deque()
        self._unacked: dict[int, tuple[FixMessage, float]] = {}
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._packets = PacketReader()
        self._wanted = self._up = self._paused = False
        self._number = self._attempts = 0
        self._pinged_s = 0.0

    # --- for the device ------------------------------------------------------------------------
    @property
    def is_up(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._up

    @property
    def unacknowledged(self) -> int:
        """Number of unacknowledged QoS 1 messages."""
        return len(self._unacked) + sum(1 for message, _ in self._waiting if message.qos)

    @property
    def local(self) -> tuple[str, int] | None:
        """The local address and port."""
        return self._transport.get_extra_info("sockname") if self._up and self._transport else None

    def open(self) -> None:
        """Connect, and reconnect after every failure."""
        if not self._wanted:
            self._wanted = True
            if self._transport is None:  # a connection that is closing is reopened afterwards
                self._connect_later(0.0)

    def close(self) -> None:
        """Disconnect once all QoS 1 messages are acknowledged."""
        self._wanted = False
        if not self.unacknowledged:
            self._disconnect()

    def put(self, message: FixMessage) -> None:
        """Send a message now, or as soon as connected."""
        self._counters.created += 1
        if len(self._waiting) >= BUFFER:
            self._waiting.popleft()
            self._counters.dropped += 1
        self._waiting.append((message, False))
        if self._up:
            self._send_waiting()

    def check(self, now_s: float) -> None:
        """Abort the connection if the broker does not respond; call this about once a second."""
        if not self._up or self._transport is None:
            return
        if self._unacked:
            oldest_s = next(iter(self._unacked.values()))[1]
            if now_s - oldest_s > RESPONSE_S:
                self._transport.abort()
        elif now_s - self._pinged_s > KEEPALIVE_S * 0.7:
            self._pinged_s = now_s
            self._transport.write(PINGREQ)

    # --- the connection --------------------------------------------------------------------------
    def _connect_later(self, wait_s: float) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._connect(wait_s), name=self._name)

    async def _connect(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if not (self._wanted or self.unacknowledged):
            return
        local = (self._address, 0) if self._address else None
        try:
            async with asyncio.timeout(RESPONSE_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, self._broker.host, self._broker.port, local_addr=local
                )
        except (OSError, TimeoutError):
            self._counters.refused += 1
            self._task = None
            self._reconnect()

    def _reconnect(self) -> None:
        if self._wanted or self.unacknowledged:
            max_s = min(RETRY_MIN_S * 2**self._attempts, RETRY_MAX_S)
            self._attempts += 1
            self._connect_later(max_s * (0.2 + 0.8 * self._rng.random()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=65_536)
        self._task, self._packets, self._paused = None, PacketReader(), False
        self._transport.write(connect(self._name, KEEPALIVE_S, self._will))
        asyncio.get_running_loop().call_later(RESPONSE_S, self._check_accepted, transport)

    def _check_accepted(self, transport: asyncio.BaseTransport) -> None:
        if transport is self._transport and not self._up:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process the packets of the broker."""
        for kind, body in self._packets.feed(data):
            if kind == PUBACK:
                self._acked(int.from_bytes(body[:2], "big"))
            elif kind == CONNACK:
                self._accepted(body)

    def _accepted(self, body: bytes) -> None:
        if body[1] != 0:
            self._counters.refused += 1
            if self._transport is not None:
                self._transport.abort()
            return
        self._up, self._attempts, self._pinged_s = True, 0, time.monotonic()
        self._counters.opened += 1
        self._counters.connected += 1
        self._send_waiting()

    def _acked(self, number: int) -> None:
        found = self._unacked.pop(number, None)
        if found is None:
            return
        message, sent_s = found
        self._counters.acked += 1
        took = int((time.monotonic() - sent_s) / ACK_CLASS_S)
        self._counters.ack_s[min(took, ACK_CLASSES - 1)] += 1
        self._on_ack(message)
        if self._waiting:
            self._send_waiting()
        elif not self._wanted and not self._unacked:
            self._disconnect()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Queue unacknowledged messages again, and reconnect."""
        was_up, self._up, self._transport = self._up, False, None
        self._counters.connected -= was_up
        self._counters.refused += not was_up
        back = [(message, True) for message, _ in self._unacked.values()]
        self._unacked.clear()
        self._waiting.extendleft(reversed(back))
        if self._wanted or self.unacknowledged:
            self._counters.disconnects += was_up
            self._reconnect()

    def pause_writing(self) -> None:
        """The socket is full: queue messages."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket accepts data again."""
        self._paused = False
        self._send_waiting()

    def _send_waiting(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        out = []
        now_s = time.monotonic()
        while self._waiting and not self._paused and len(self._unacked) < WINDOW:
            message, resent = self._waiting.popleft()
            number = 0
            if message.qos:
                number = self._number = self._number % 65_535 + 1
                self._unacked[number] = message, now_s
                self._counters.resent += resent
            self._counters.sent += 1
            out.append(publish(message.topic, message.payload, number, duplicate=resent))
        if out:
            self._transport.write(b"".join(out))

    def _disconnect(self) -> None:
        self._counters.abandoned += len(self._waiting)
        self._waiting.clear()
        if self._transport is not None:
            self._transport.write(DISCONNECT)
            self._transport.close()
