"""A device's connection: it comes back by itself, and sends again what wasn't acknowledged.

put(message) ──▶ waiting ──▶ socket ──▶ (QoS 1) unacked ──PUBACK──▶ done
                    ▲                        │
                    └──── connection lost ───┘   in their order
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

#: Messages that wait while the connection is broken; above that the oldest are dropped.
BUFFER = 500
#: Messages under way at once; more wait, so that the order holds when they must be sent again.
WINDOW = 20
KEEPALIVE_S = 30
#: Seconds before the next try: a random one up to this at first, doubled up to the most.
RETRY_FIRST_S, RETRY_MOST_S = 0.3, 5.0
#: Seconds that the broker has for an answer.
ANSWER_S = 6.0
#: Acknowledgement times are put into classes of this width, up to the last class.
ACK_CLASS_S, ACK_CLASSES = 0.005, 2001


@dataclass(slots=True)
class ConnectionCounters:
    """What all connections of a process have done so far."""

    said: int = 0
    sent: int = 0  # handed to the socket, repetitions included
    acked: int = 0
    again: int = 0  # QoS 1 sent once more
    dropped: int = 0  # because a buffer was full
    left: int = 0  # QoS 0 that were waiting when the device went
    broken: int = 0  # connections that ended without our asking
    refused: int = 0  # connections that couldn't be opened
    opened: int = 0
    connected: int = 0
    ack_s: list[int] = field(default_factory=lambda: [0] * ACK_CLASSES)


@dataclass(slots=True)
class BrokerAddress:
    """Where devices connect to, and from which address."""

    host: str
    port: int


class DeviceConnection(asyncio.Protocol):
    """One connection at a time; `open` and `close` say whether there shall be one."""

    __slots__ = (
        "_address",
        "_answers",
        "_broker",
        "_name",
        "_number",
        "_on_ack",
        "_paused",
        "_pinged_s",
        "_rng",
        "_tally",
        "_task",
        "_transport",
        "_tries",
        "_unacked",
        "_up",
        "_waiting",
        "_wanted",
        "_will",
    )

    def __init__(
        self,
        broker: BrokerAddress,
        name: str,
        tally: ConnectionCounters,
        on_ack: Callable[[FixMessage], None],
        rng: random.Random,
        *,
        will: LastWill | None = None,
        address: str | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            broker: where to.
            name: the MQTT client id.
            tally: what happens is counted there.
            on_ack: is called with each QoS 1 message that the broker has acknowledged.
            rng: of the waits between two tries.
            will: the last will.
            address: the address that the connection comes from, where it matters.
        """
        self._broker, self._name, self._tally, self._on_ack = broker, name, tally, on_ack
        self._rng, self._will, self._address = rng, will, address
        self._waiting: deque[tuple[FixMessage, bool]] = deque()
        self._unacked: dict[int, tuple[FixMessage, float]] = {}
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._answers = PacketReader()
        self._wanted = self._up = self._paused = False
        self._number = self._tries = 0
        self._pinged_s = 0.0

    # --- what the device wants -----------------------------------------------------------------
    @property
    def is_up(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._up

    @property
    def owes(self) -> int:
        """How many QoS 1 messages are not acknowledged."""
        return len(self._unacked) + sum(1 for message, _ in self._waiting if message.qos)

    @property
    def local(self) -> tuple[str, int] | None:
        """Our end of the connection."""
        return self._transport.get_extra_info("sockname") if self._up and self._transport else None

    def open(self) -> None:
        """Connect, and again whenever it breaks."""
        if not self._wanted:
            self._wanted = True
            if self._transport is None:  # one that is just closing is opened again when it has ended
                self._try_soon(0.0)

    def close(self) -> None:
        """Go; what is owed is sent first, by staying until the broker has acknowledged it."""
        self._wanted = False
        if not self.owes:
            self._leave()

    def put(self, message: FixMessage) -> None:
        """Say something, now or as soon as the connection is there."""
        self._tally.said += 1
        if len(self._waiting) >= BUFFER:
            self._waiting.popleft()
            self._tally.dropped += 1
        self._waiting.append((message, False))
        if self._up:
            self._pump()

    def look(self, now_s: float) -> None:
        """Notice a broker that doesn't answer any more; call it every second or so."""
        if not self._up or self._transport is None:
            return
        if self._unacked:
            oldest_s = next(iter(self._unacked.values()))[1]
            if now_s - oldest_s > ANSWER_S:
                self._transport.abort()
        elif now_s - self._pinged_s > KEEPALIVE_S * 0.7:
            self._pinged_s = now_s
            self._transport.write(PINGREQ)

    # --- the connection --------------------------------------------------------------------------
    def _try_soon(self, wait_s: float) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._connect(wait_s), name=self._name)

    async def _connect(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if not (self._wanted or self.owes):
            return
        local = (self._address, 0) if self._address else None
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, self._broker.host, self._broker.port, local_addr=local
                )
        except (OSError, TimeoutError):
            self._tally.refused += 1
            self._task = None
            self._again()

    def _again(self) -> None:
        if self._wanted or self.owes:
            most_s = min(RETRY_FIRST_S * 2**self._tries, RETRY_MOST_S)
            self._tries += 1
            self._try_soon(most_s * (0.2 + 0.8 * self._rng.random()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=65_536)
        self._task, self._answers, self._paused = None, PacketReader(), False
        self._transport.write(connect(self._name, KEEPALIVE_S, self._will))
        asyncio.get_running_loop().call_later(ANSWER_S, self._must_be_up, transport)

    def _must_be_up(self, transport: asyncio.BaseTransport) -> None:
        if transport is self._transport and not self._up:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what the broker answers."""
        for kind, body in self._answers.feed(data):
            if kind == PUBACK:
                self._acked(int.from_bytes(body[:2], "big"))
            elif kind == CONNACK:
                self._accepted(body)

    def _accepted(self, body: bytes) -> None:
        if body[1] != 0:
            self._tally.refused += 1
            if self._transport is not None:
                self._transport.abort()
            return
        self._up, self._tries, self._pinged_s = True, 0, time.monotonic()
        self._tally.opened += 1
        self._tally.connected += 1
        self._pump()

    def _acked(self, number: int) -> None:
        found = self._unacked.pop(number, None)
        if found is None:
            return
        message, sent_s = found
        self._tally.acked += 1
        took = int((time.monotonic() - sent_s) / ACK_CLASS_S)
        self._tally.ack_s[min(took, ACK_CLASSES - 1)] += 1
        self._on_ack(message)
        if self._waiting:
            self._pump()
        elif not self._wanted and not self._unacked:
            self._leave()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Put back what wasn't acknowledged, and try again."""
        was_up, self._up, self._transport = self._up, False, None
        self._tally.connected -= was_up
        self._tally.refused += not was_up
        back = [(message, True) for message, _ in self._unacked.values()]
        self._unacked.clear()
        self._waiting.extendleft(reversed(back))
        if self._wanted or self.owes:
            self._tally.broken += was_up
            self._again()

    def pause_writing(self) -> None:
        """The socket is full: what comes waits here."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        out = []
        now_s = time.monotonic()
        while self._waiting and not self._paused and len(self._unacked) < WINDOW:
            message, again = self._waiting.popleft()
            number = 0
            if message.qos:
                number = self._number = self._number % 65_535 + 1
                self._unacked[number] = message, now_s
                self._tally.again += again
            self._tally.sent += 1
            out.append(publish(message.topic, message.payload, number, again=again))
        if out:
            self._transport.write(b"".join(out))

    def _leave(self) -> None:
        self._tally.left += len(self._waiting)
        self._waiting.clear()
        if self._transport is not None:
            self._transport.write(DISCONNECT)
            self._transport.close()
