"""The process of senders: `python -m headcount.lab.load.sender_process`, its orders as JSON on standard input.

It prints a line of JSON each second, and at the end writes down every fix that was acknowledged.
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
from headcount.lab.load.device_connection import BrokerAddress, ConnectionCounters, DeviceConnection
from headcount.lab.load.mqtt_packets import LastWill
from headcount.lab.load.population import FixMessage, LoadDevice, population
from headcount.runtime.signals import stop_on_signals

STEP_S = 0.02
#: Seconds between two looks at who comes and who goes.
LOOK_S = 0.25
#: Seconds that the end waits for acknowledgements.
OWED_S = 30.0


class SenderOrders(msgspec.Struct):
    """What a process of senders does."""

    site: dict[str, Any]
    host: str
    port: int
    devices: int  # of all processes together
    seed: int
    part: int  # this process has the devices with index % parts == part
    parts: int
    start_s: float  # Unix seconds
    seconds: float
    every_s: float  # a device's time between two fixes at a peak
    acknowledged: str  # the file for them


class SenderReport(msgspec.Struct):
    """One line: the counters so far."""

    at_s: float
    wanted: int
    connected: int
    said: int
    sent: int
    acked: int
    again: int
    dropped: int
    left: int
    broken: int
    refused: int
    opened: int
    owed: int
    ack_s: list[int]  # acknowledgements by class of ACK_CLASS_S, trailing zeros cut
    done: bool = False


@dataclass(slots=True)
class LoadSender:
    """A device, its connection, and its topic."""

    device: LoadDevice
    link: DeviceConnection
    topic: bytes
    here: bool = False
    due_s: float = 0.0  # when it speaks next, Unix seconds


class SenderProcess:
    """All senders of this process."""

    def __init__(self, orders: SenderOrders, out: TextIO, file: TextIO) -> None:
        """Nobody is connected yet; `file` gets the acknowledged fixes, `out` a line a second."""
        self._orders, self._out, self._file = orders, out, file
        self._day, self._tally = DayProfile(orders.seconds), ConnectionCounters()
        self._rng = random.Random(f"sending {orders.seed} {orders.part}")
        site = orders.site["features"][0]["properties"]["id"]
        devices = population(orders.site, orders.devices, orders.seed)
        self._senders = [self._sender(site, device) for device in devices[orders.part :: orders.parts]]
        self._here: list[int] = []
        self._away = list(range(len(self._senders)))
        self._due: list[tuple[float, int]] = []

    def _sender(self, site: str, device: LoadDevice) -> LoadSender:
        will = LastWill(device.status_topic(site), b"offline") if device.flow == "own" else None
        broker = BrokerAddress(self._orders.host, self._orders.port)
        link = DeviceConnection(broker, device.id, self._tally, self._note, self._rng, will=will)
        return LoadSender(device, link, device.topic(site).encode())

    def _note(self, message: FixMessage) -> None:
        self._file.write(f"{message.kind} {message.device} {message.t_ms}\n")

    async def run(self, stop: asyncio.Event) -> None:
        """The day, and then until all is acknowledged."""
        orders = self._orders
        looked_s = told_s = 0.0
        while not stop.is_set():
            now_s = time.time()
            at_s = now_s - orders.start_s
            if at_s >= orders.seconds:
                break
            if now_s - looked_s >= LOOK_S:
                looked_s = now_s
                self._come_and_go(at_s, now_s)
            if now_s - told_s >= 1:
                told_s = now_s
                self._look()
                self._tell(now_s)
            self._speak(at_s, now_s)
            await asyncio.sleep(max(0.001, STEP_S - (time.time() - now_s)))
        await self._end(stop)

    def _come_and_go(self, at_s: float, now_s: float) -> None:
        """As many as the day wants are there; who comes and who goes next is drawn.

        Who came last doesn't go first: where a device sits says nothing about how long it stays.
        """
        wanted = round(presence(self._day.hour(at_s)) * len(self._senders))
        while len(self._here) < wanted:
            self._here.append(self._drawn(self._away))
            self._come(self._here[-1], now_s)
        while len(self._here) > wanted:
            self._away.append(self._drawn(self._here))
            sender = self._senders[self._away[-1]]
            sender.here = False
            sender.link.close()

    def _drawn(self, among: list[int]) -> int:
        """Take one out; the order of the others doesn't matter."""
        place = self._rng.randrange(len(among))
        among[place], among[-1] = among[-1], among[place]
        return among.pop()

    def _come(self, index: int, now_s: float) -> None:
        sender = self._senders[index]
        sender.here = True
        sender.link.open()
        sender.due_s = now_s + self._rng.random() * self._orders.every_s
        heapq.heappush(self._due, (sender.due_s, index))

    def _speak(self, at_s: float, now_s: float) -> None:
        """Everybody whose time has come says a fix; nobody does before the day begins."""
        every_s = self._orders.every_s / pace(self._day.hour(at_s))
        while self._due and self._due[0][0] <= now_s:
            due_s, index = heapq.heappop(self._due)
            sender = self._senders[index]
            if not sender.here or due_s != sender.due_s:  # of an earlier visit
                continue
            if at_s >= 0:
                sender.link.put(sender.device.say(sender.topic, now_s))
            next_s = max(due_s + every_s * (0.8 + 0.4 * self._rng.random()), now_s)
            sender.due_s = next_s
            heapq.heappush(self._due, (next_s, index))

    def _look(self) -> None:
        now_s = time.monotonic()
        for sender in self._senders:
            sender.link.look(now_s)

    def _tell(self, now_s: float, *, done: bool = False) -> None:
        tally = self._tally
        classes = tally.ack_s[:]
        while classes and not classes[-1]:
            classes.pop()
        said = SenderReport(
            now_s,
            0 if done else len(self._here),
            tally.connected,
            tally.said,
            tally.sent,
            tally.acked,
            tally.again,
            tally.dropped,
            tally.left,
            tally.broken,
            tally.refused,
            tally.opened,
            sum(sender.link.owes for sender in self._senders),
            classes,
            done,
        )
        print(msgspec.json.encode(said).decode(), file=self._out, flush=True)

    async def _end(self, stop: asyncio.Event) -> None:
        for sender in self._senders:
            sender.here = False
            sender.link.close()
        until_s = time.time() + OWED_S
        while time.time() < until_s and not stop.is_set():
            self._look()
            if not any(sender.link.owes for sender in self._senders):
                break
            await asyncio.sleep(0.2)
        self._file.flush()
        self._tell(time.time(), done=True)


def main() -> None:
    """Do as ordered."""
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
