"""Start-up time, memory and idle CPU of `headcount up`, per process, and the cost of short commands.

Memory is the proportional set size (PSS) of /proc/<pid>/smaps_rollup: shared pages are divided among the processes,
so the sum is the memory of the system. Linux only.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headcount.lab.load.process_usage import parts
from headcount.runtime.ports import free_ports
from headcount.runtime.proc import ProcessStat, all_processes, command_line

SITE = Path(__file__).parents[4] / "sites" / "ul.geojson"
PORTS = ("mqtt", "ws", "http", "nats")
READY_S = 120.0
COMMANDS = {
    'python -c "import click"': ["-c", "import click"],
    "headcount --version": ["-m", "headcount", "--version"],
    "headcount --help": ["-m", "headcount", "--help"],
}


def pss_mb(pid: int) -> float:
    """Proportional set size in MB (10⁶ bytes); 0 for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024 / 1e6


def commands(repeat: int) -> Iterator[str]:
    """CPU and wall time of short commands: medians of `repeat` runs."""
    for name, arguments in COMMANDS.items():
        used, took = [], []
        for _ in range(repeat):
            before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            took.append(time.monotonic() - began_s)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        yield f"| `{name}` | {statistics.median(used):.2f} s | {statistics.median(took):.2f} s |"


@contextmanager
def up(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A running `headcount up` and the seconds until it was ready."""
    ports = [f"--{name}-port={port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
    began_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "headcount", "up", f"--site={SITE}", f"--data={folder}", *ports, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        if process.stdout is None or not process.stdout.readline():
            raise SystemExit("headcount up did not start")
        yield process, time.monotonic() - began_s
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_S)


def tree(root: int) -> list[tuple[ProcessStat, str]]:
    """The processes of `up`, each with its part."""
    return list(parts(all_processes(), [root]))


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="idle time over which CPU is measured")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds between ready and measuring")
    parser.add_argument("--repeat", type=int, default=3, help="starts to measure")
    parser.add_argument("arguments", nargs="*", default=["--open"], help="options of `headcount up`")
    options = parser.parse_args()

    print(f"Load average before: {os.getloadavg()[0]:.2f}\n")
    print("| command | CPU | wall |\n|---|---|---|")
    print("\n".join(commands(options.repeat)))
    starts, stops, lines = [], [], []
    for number in range(options.repeat):
        with (
            tempfile.TemporaryDirectory() as folder,
            up(Path(folder) / "data", *options.arguments) as (process, ready_s),
        ):
            starts.append(ready_s)
            if number == options.repeat - 1:
                time.sleep(options.settle)
                before = {p.pid: p.cpu_s for p, _ in tree(process.pid)}
                time.sleep(options.seconds)
                for found, part in tree(process.pid):
                    name = "nats-server" if "nats-server" in command_line(found.pid)[0] else part
                    share = (found.cpu_s - before.get(found.pid, 0.0)) / options.seconds * 100
                    lines.append((name, pss_mb(found.pid), share, found.cpu_s))
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(READY_S)
            stops.append(time.monotonic() - began_s)
    print("\n| process | PSS | idle, of one core | CPU since start |\n|---|---|---|---|")
    for name, memory, share, cpu_s in lines:
        print(f"| {name} | {memory:.0f} MB | {share:.1f} % | {cpu_s:.1f} s |")
    print(
        f"| **{len(lines)} processes** | **{sum(line[1] for line in lines):.0f} MB** | **{sum(line[2] for line in lines):.1f} %** | |"
    )
    print(
        f"\nStart to ready: {', '.join(f'{s:.1f} s' for s in starts)}. Stop: {', '.join(f'{s:.1f} s' for s in stops)}."
    )
    print(f"Load average after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
