"""CPU time of the running system between batches, by process, and the time from publish to count.

`headcount up --open` with 60 zones: idle, then with 25 000 devices and 2 500 fixes a second over four MQTT
connections of QoS 0, then with 40 000 a second. In the same run, Mosquitto with a subscriber that only decodes
(plain_subscriber.py) gets the same messages. CPU time is read from /proc; that of the load is listed apart.
Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from headcount.lab.figures.bench_fixes import LAT0, LON0, campus, side
from headcount.lab.figures.live_load import connected
from headcount.lab.load import mqtt_packets
from headcount.lab.load.process_usage import UsageMeter
from headcount.lab.load.up_system import UpSystem
from headcount.lab.waiting import wait_until
from headcount.messages.counts import decode_counts
from headcount.messages.reports import WORKER_REPORT_SUBJECT, WorkerReport
from headcount.messages.topics import COUNT_SUBJECTS
from headcount.messaging.connection import Message
from headcount.runtime.ports import free_port
from headcount.runtime.proc import cpu_s_of

ZONES, DEVICES, SITE = 60, 25_000, "campus"
REFERENCE, LATENCY_RATE, FULL = 2_500, 10_000, 40_000
SETTLE_S, DRAIN_S = 10.0, 120.0
PROBE_INTERVAL_S = 0.01
_HERE = "headcount.lab.figures"
TOTAL = "**all**"


@dataclass(slots=True)
class LoadRun:
    """The output of a run of live_load."""

    fixes: int
    seconds: float
    cpu_s: float


class LoadGenerator:
    """Runs of the load generator against one port; each continues the walk of the one before."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._walked_s = 0.0

    async def run(
        self, rate: int, seconds: float, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> LoadRun:
        """Send for some seconds; `meanwhile` starts with the first message."""
        arguments = [str(self._port), str(rate), str(seconds), "--devices", str(DEVICES)]
        arguments += ["--side-m", str(side(ZONES)), "--offset-s", str(self._walked_s)]
        self._walked_s += seconds
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"{_HERE}.live_load", *arguments, stdout=subprocess.PIPE
        )
        if child.stdout is None or not await child.stdout.readline():
            raise SystemExit("the load generator did not start")
        output = asyncio.create_task(child.stdout.read())
        if meanwhile is not None:
            await meanwhile()
        return msgspec.json.decode(await output, type=LoadRun)


async def send_probes(port: int, name: str, seconds: float) -> list[float]:
    """Vehicles that appear one after the other, and when each was sent."""
    sock, sent_s = connected(port, f"probes-{name}"), []
    for number in range(round(seconds / PROBE_INTERVAL_S)):
        sent_s.append(time.time())
        body = b'{"tst":%.6f,"lat":%.6f,"lon":%.6f,"acc":5}' % (sent_s[-1], LAT0, LON0)
        topic = f"headcount/{SITE}/vehicle/{name}-{number}/fix"
        sock.sendall(mqtt_packets.publish(topic.encode(), body))
        await asyncio.sleep(max(0.0, sent_s[0] + (number + 1) * PROBE_INTERVAL_S - time.time()))
    sock.close()
    return sent_s


class Observer:
    """The counts of vehicles on the whole site, and the fixes that workers report as counted."""

    def __init__(self) -> None:
        self.fixes = 0.0
        self.vehicles: dict[int, int] = {}
        self.rises: list[tuple[float, int]] = []  # when the total was received, and the total

    async def counts(self, message: Message) -> None:
        """Take counts."""
        for counts in decode_counts(message.data):
            self.vehicles[counts.partition] = int(np.frombuffer(counts.values, "<i4", 1, 16)[0])
        total = sum(self.vehicles.values())
        if not self.rises or total > self.rises[-1][1]:
            self.rises.append((time.time(), total))

    async def report(self, message: Message) -> None:
        """Take a worker's report."""
        verdicts = msgspec.json.decode(message.data, type=WorkerReport).verdicts
        self.fixes = sum(sum(by_verdict.values()) for by_verdict in verdicts.values())

    def delays_s(self, sent_s: Sequence[float], before: int) -> list[float]:
        """The delay of each probe; `before` had been counted before the first."""
        delays: list[float] = []
        for when_s, total in self.rises:
            while len(delays) < min(total - before, len(sent_s)):
                delays.append(when_s - sent_s[len(delays)])
        return delays


def percentiles(delays_s: Sequence[float]) -> str:
    """The 50th and the 99th percentile as text."""
    if not delays_s:
        return "-"
    p50, p99 = np.percentile(delays_s, [50, 99]) * 1e3
    return f"{p50:.0f} / {p99:.0f} ms"


@dataclass(slots=True)
class Measured:
    """CPU seconds per part of a stack over some time."""

    seconds: float
    fixes: int
    cpu_s: dict[str, float]

    @property
    def total_s(self) -> float:
        """CPU seconds of all parts."""
        return sum(self.cpu_s.values())


class Meter:
    """CPU time by part of a stack."""

    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        self._read = read
        self._began = time.monotonic(), read()

    def stop(self, fixes: int = 0) -> Measured:
        """The CPU time used since the start."""
        began_s, before = self._began
        used = {part: cpu_s - before.get(part, 0.0) for part, cpu_s in self._read().items()}
        return Measured(time.monotonic() - began_s, fixes, used)


@dataclass(slots=True)
class StackResult:
    """The measurements of one stack."""

    idle: Measured
    reference: Measured
    full: Measured
    reference_delays_s: list[float]
    latency_delays_s: list[float]
    load: LoadRun
    sent: int


async def measure(
    port: int,
    read: Callable[[], dict[str, float]],
    drained: Callable[[int], Awaitable[None]],
    delays: Callable[[str, list[float]], Awaitable[list[float]]],
    seconds: float,
) -> StackResult:
    """Measure a running stack.

    Args:
        port: of its MQTT side.
        read: CPU seconds by part.
        drained: waits until this number of fixes has been processed since the start.
        delays: of probes with a name, sent at these times; a stack may add them later.
        seconds: of each phase.
    """
    load, sent = LoadGenerator(port), 0
    await asyncio.sleep(SETTLE_S)
    meter = Meter(read)
    await asyncio.sleep(seconds)
    idle = meter.stop()
    warm_s = DEVICES / REFERENCE + 2.0
    reference = idle
    found: list[list[float]] = []

    async def steady() -> None:
        nonlocal reference
        await asyncio.sleep(warm_s)
        meter = Meter(read)
        await asyncio.sleep(seconds)
        reference = meter.stop(round(REFERENCE * seconds))

    async def probed(name: str) -> None:
        await asyncio.sleep(1.0)
        found.append(await delays(name, await send_probes(port, name, seconds)))

    sent += (await load.run(REFERENCE, warm_s + seconds + 1.0, steady)).fixes
    for name, rate in (("reference", REFERENCE), ("latency", LATENCY_RATE)):
        sent += (await load.run(rate, seconds + 3.0, lambda name=name: probed(name))).fixes  # type: ignore[misc]
        sent += round(seconds / PROBE_INTERVAL_S)
        await drained(sent)
    meter = Meter(read)
    run = await load.run(FULL, seconds)
    sent += run.fixes
    await drained(sent)
    return StackResult(idle, reference, meter.stop(run.fixes), found[0], found[1], run, sent)


async def headcount_stack(folder: Path, seconds: float, arguments: Sequence[str]) -> StackResult:
    """`headcount up --open`."""
    site = folder / "site.geojson"
    site.write_text(json.dumps(campus(ZONES, 1).geojson))
    meter, observer = UsageMeter(), Observer()
    async with UpSystem(folder, site, 16, arguments) as up, up.connect() as connection:
        await connection.subscribe(WORKER_REPORT_SUBJECT.format(worker="*"), observer.report)

        async def drained(fixes: int) -> None:
            await wait_until(lambda: observer.fixes >= fixes, f"{fixes} fixes counted", DRAIN_S)

        async def delays(_: str, sent_s: list[float]) -> list[float]:
            await asyncio.sleep(1.0)
            return observer.delays_s(sent_s, sum(observer.vehicles.values()) - len(sent_s))

        counts = await connection.subscribe(COUNT_SUBJECTS, observer.counts)
        result = await measure(
            up.mqtt_port,
            lambda: {part: usage.cpu_s for part, usage in meter.read(up.roots()).items()},
            drained,
            delays,
            seconds,
        )
        await counts.unsubscribe()
        return result


async def plain_stack(folder: Path, seconds: float, mosquitto: str) -> StackResult:
    """Mosquitto and a subscriber with paho."""
    port, config = free_port(1883), folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n")
    with running([mosquitto, "-c", str(config)]) as broker:
        await wait_until(lambda: _is_open(port), "mosquitto", 10.0)
        with running([sys.executable, "-m", f"{_HERE}.plain_subscriber", str(port)]) as subscriber:
            output = subscriber.stdout
            if output is None or not output.readline():
                raise SystemExit("the subscriber did not start")
            pids = {"mosquitto": broker.pid, "subscriber": subscriber.pid}

            async def drained(_: int) -> None:
                used_s = -1.0
                while used_s != (used_s := cpu_s_of(subscriber.pid)):  # noqa: ASYNC110
                    await asyncio.sleep(0.5)

            sent: dict[str, list[float]] = {}

            async def delays(name: str, sent_s: list[float]) -> list[float]:
                sent[name] = sent_s
                return []

            result = await measure(
                port, lambda: {part: cpu_s_of(pid) for part, pid in pids.items()}, drained, delays, seconds
            )
            subscriber.send_signal(signal.SIGTERM)
            found = json.loads(output.read())
    # beyond what its sockets buffer, a broker drops messages of QoS 0
    result.full.fixes -= result.sent - found["received"]
    for name, into in (("reference", result.reference_delays_s), ("latency", result.latency_delays_s)):
        first_s, last_s = sent[name][0] - 0.001, sent[name][-1] + 0.001
        into += [delay_s for sent_s, delay_s in found["delays"] if first_s <= sent_s <= last_s]
    return result


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A program until the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10.0)


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError):
        connected(port, "check").close()
        return True
    return False


def table(name: str, result: StackResult) -> list[str]:
    """Lines of a table."""
    lines = [
        f"\n| {name} | idle, of a core | {REFERENCE:,} fixes/s | CPU µs a fix | {FULL:,} fixes/s: CPU µs a fix |"
    ]
    lines.append("|---|---|---|---|---|")
    for part in [*result.full.cpu_s, TOTAL]:
        idle_s, reference_s, full_s = (
            each.total_s if part == TOTAL else each.cpu_s.get(part, 0.0)
            for each in (result.idle, result.reference, result.full)
        )
        cells = (
            f"{idle_s / result.idle.seconds:.3f}",
            f"{reference_s / result.reference.seconds:.3f}",
            f"{reference_s / result.reference.fixes * 1e6:.1f}",
            f"{full_s / result.full.fixes * 1e6:.1f}",
        )
        lines.append(f"| {part} | {' | '.join(cells)} |")
    full, load = result.full, result.load
    lines.append(
        f"\nPublish → {'count' if name == 'headcount' else 'decoded'}, p50 / p99: "
        f"{percentiles(result.reference_delays_s)} at {REFERENCE:,} fixes/s, "
        f"{percentiles(result.latency_delays_s)} at {LATENCY_RATE:,}.\n\n"
        f"At {FULL:,} fixes/s: {full.fixes / full.total_s:,.0f} fixes per CPU second, "
        f"{full.fixes / full.seconds:,.0f} fixes/s until\n"
        f"all were processed, {load.fixes - full.fixes:,} lost. "
        f"The load took {load.cpu_s / load.fixes * 1e6:.1f} µs a fix."
    )
    return lines


async def stacks(options: argparse.Namespace) -> None:
    """Measure both stacks, one after the other, and print."""
    mosquitto = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    found: dict[str, StackResult] = {}
    with tempfile.TemporaryDirectory() as folder:
        found["headcount"] = await headcount_stack(Path(folder), options.seconds, options.arguments)
        print("\n".join(table("headcount", found["headcount"])), flush=True)
        if mosquitto is None or options.alone:
            reason = "it was not asked for" if options.alone else "there is no program `mosquitto`"
            print(f"\nNo comparison with Mosquitto: {reason}.")
            return
        found["plain"] = await plain_stack(Path(folder), options.seconds, mosquitto)
        print("\n".join(table("Mosquitto and paho", found["plain"])))
    ours, plain = found["headcount"], found["plain"]
    cpu = (
        ours.reference.total_s / ours.reference.seconds / (plain.reference.total_s / plain.reference.seconds)
    )
    per_cpu = (ours.full.fixes / ours.full.total_s) / (plain.full.fixes / plain.full.total_s)
    print(
        f"\nBeside Mosquitto and a subscriber that only decodes, headcount takes {cpu:.2f} times\n"
        f"the CPU at {REFERENCE:,} fixes/s, and processes {per_cpu:.1f} times the fixes per CPU second at {FULL:,}."
    )


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--alone", action="store_true", help="without Mosquitto")
    parser.add_argument("arguments", nargs="*", help="more options of `headcount up`")
    options = parser.parse_args()
    print(f"Load average before: {os.getloadavg()[0]:.2f}")
    asyncio.run(stacks(options))
    print(f"\nLoad average after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
