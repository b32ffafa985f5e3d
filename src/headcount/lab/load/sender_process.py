"""A process with thousands of devices: `python -m headcount.lab.load.sender_process`.

It reads its orders as JSON from standard input, prints a line of JSON each second, and writes the acknowledged
fixes into a file.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from headcount.lab.load.day_profile import DayProfile, pace, presence
from headcount.lab.load.device_connection import ConnectionCounters, DeviceConnection, LoadTarget
from headcount.lab.load.mqtt_packets import LastWill
from headcount.lab.load.population import FixMessage, LoadDevice, population
from headcount.runtime.signals import stop_on_signals

STEP_S = 0.02
#: Time between two adjustments of the number of connected devices.
ADJUST_INTERVAL_S = 0.25
#: Time limit for acknowledgements at the end.
ACKNOWLEDGE_S = 30.0


class SenderOrders(msgspec.Struct):
    """The parameters of a sender process."""

    site: dict[str, Any]
    host: str
    port: int
    devices: int  # of all processes
    seed: int
    part: int  # the devices with index % parts == part
    parts: int
    start_s: float  # Unix seconds
    seconds: float
    every_s: float  # between two fixes of a device at a peak
    acknowledged: str  # path of the file for acknowledged fixes


class SenderReport(msgspec.Struct):
    """A line of the output: the counters."""

    at_s: float
    wanted: int
    connected: int
    created: int
    sent: int
    acked: int
    resent: int
    dropped: int
    abandoned: int
    disconnects: int
    refused: int
    opened: int
    unacknowledged: int
    ack_s: list[int]  # acknowledgements by class of ACK_CLASS_S, without trailing zeros
    done: bool = False


@dataclass(slots=True)
class LoadSender:
    """A device with its connection and topic."""

    device: LoadDevice
    connection: DeviceConnection
    topic: bytes
    connected: bool = False
    due_s: float = 0.0  # of its next fix, Unix seconds


class SenderProcess:
    """The devices of this process."""

    def __init__(self, orders: SenderOrders, out: TextIO, file: TextIO) -> None:
        """Prepare the devices; `file` gets the acknowledged fixes, `out` a line per second."""
        self._orders, self._out, self._file = orders, out, file
        self._day, self._counters = DayProfile(orders.seconds), ConnectionCounters()
        self._rng = random.Random(f"sending {orders.seed} {orders.part}")
        site = orders.site["features"][0]["properties"]["id"]
        devices = population(orders.site, orders.devices, orders.seed)
        self._senders = [self._sender(site, device) for device in devices[orders.part :: orders.parts]]
        self._connected: list[int] = []
        self._disconnected = list(range(len(self._senders)))
        self._due: list[tuple[float, int]] = []

    def _sender(self, site: str, device: LoadDevice) -> LoadSender:
        will = LastWill(device.status_topic(site), b"offline") if device.flow == "own" else None
        broker = LoadTarget(self._orders.host, self._orders.port)
        connection = DeviceConnection(broker, device.id, self._counters, self._record, self._rng, will=will)
        return LoadSender(device, connection, device.topic(site).encode())

    def _record(self, message: FixMessage) -> None:
        self._file.write(f"{message.kind} {message.device} {message.t_ms}\n")

    async def run(self, stop: asyncio.Event) -> None:
        """Run the day, then wait until all messages are acknowledged."""
        orders = self._orders
        adjusted_s = reported_s = 0.0
        while not stop.is_set():
            now_s = time.time()
            at_s = now_s - orders.start_s
            if at_s >= orders.seconds:
                break
            if now_s - adjusted_s >= ADJUST_INTERVAL_S:
                adjusted_s = now_s
                self._adjust(at_s, now_s)
            if now_s - reported_s >= 1:
                reported_s = now_s
                self._check()
                self._report(now_s)
            self._send(at_s, now_s)
            await asyncio.sleep(max(0.001, STEP_S - (time.time() - now_s)))
        await self._end(stop)

    def _adjust(self, at_s: float, now_s: float) -> None:
        """Connect or disconnect random devices until the number matches the day's load."""
        wanted = round(presence(self._day.hour(at_s)) * len(self._senders))
        while len(self._connected) < wanted:
            self._connected.append(self._take_random(self._disconnected))
            self._connect(self._connected[-1], now_s)
        while len(self._connected) > wanted:
            self._disconnected.append(self._take_random(self._connected))
            sender = self._senders[self._disconnected[-1]]
            sender.connected = False
            sender.connection.close()

    def _take_random(self, among: list[int]) -> int:
        """Remove a random element; the order of the others may change."""
        place = self._rng.randrange(len(among))
        among[place], among[-1] = among[-1], among[place]
        return among.pop()

    def _connect(self, index: int, now_s: float) -> None:
        sender = self._senders[index]
        sender.connected = True
        sender.connection.open()
        sender.due_s = now_s + self._rng.random() * self._orders.every_s
        heapq.heappush(self._due, (sender.due_s, index))

    def _send(self, at_s: float, now_s: float) -> None:
        """Send the fixes that are due; none before the day starts."""
        every_s = self._orders.every_s / pace(self._day.hour(at_s))
        while self._due and self._due[0][0] <= now_s:
            due_s, index = heapq.heappop(self._due)
            sender = self._senders[index]
            if not sender.connected or due_s != sender.due_s:  # of an earlier connection
                continue
            if at_s >= 0:
                sender.connection.put(sender.device.next_fix(sender.topic, now_s))
            next_s = max(due_s + every_s * (0.8 + 0.4 * self._rng.random()), now_s)
            sender.due_s = next_s
            heapq.heappush(self._due, (next_s, index))

    def _check(self) -> None:
        now_s = time.monotonic()
        for sender in self._senders:
            sender.connection.check(now_s)

    def _report(self, now_s: float, *, done: bool = False) -> None:
        counters = self._counters
        classes = counters.ack_s[:]
        while classes and not classes[-1]:
            classes.pop()
        report = SenderReport(
            now_s,
            0 if done else len(self._connected),
            counters.connected,
            counters.created,
            counters.sent,
            counters.acked,
            counters.resent,
            counters.dropped,
            counters.abandoned,
            counters.disconnects,
            counters.refused,
            counters.opened,
            sum(sender.connection.unacknowledged for sender in self._senders),
            classes,
            done,
        )
        print(msgspec.json.encode(report).decode(), file=self._out, flush=True)

    async def _end(self, stop: asyncio.Event) -> None:
        for sender in self._senders:
            sender.connected = False
            sender.connection.close()
        until_s = time.time() + ACKNOWLEDGE_S
        while time.time() < until_s and not stop.is_set():
            self._check()
            if not any(sender.connection.unacknowledged for sender in self._senders):
                break
            await asyncio.sleep(0.2)
        self._file.flush()
        self._report(time.time(), done=True)


def main() -> None:
    """Run the orders from standard input."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=SenderOrders)
    gc.set_threshold(100_000, 20, 100)

    async def work(file: TextIO) -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        await SenderProcess(orders, sys.stdout, file).run(stop)

    with Path(orders.acknowledged).open("w", encoding="ascii") as file:
        asyncio.run(work(file))


if __name__ == "__main__":
    main()
