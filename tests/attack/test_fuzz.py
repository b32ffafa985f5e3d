"""A million inputs, found by coverage, for everything that reads bytes from outside."""

from __future__ import annotations

import random
import re
import secrets
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from attack.targets import SEEDS, TARGETS

#: Inputs a target; together at least a million. The slowest targets get fewest.
RUNS = {
    "fix": 50_000,
    "status": 150_000,
    "protocol": 250_000,
    "owntracks": 150_000,
    "iotp": 150_000,
    "plugin_results": 60_000,
    "forget": 60_000,
    "callout": 60_000,
    "credential": 60_000,
    "ack": 60_000,
    "table": 60_000,
}
PROGRAM = Path(__file__).with_name("fuzz.py")


def test_together_they_are_a_million() -> None:
    """The runs below add up to 10⁶ inputs."""
    assert sum(RUNS.values()) >= 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNS)
def test_nothing_raises_hangs_or_eats_memory(tmp_path: Path, target: str) -> None:
    """No input makes a decoder raise, take 5 s or use 1 GiB."""
    pytest.importorskip("atheris", reason="atheris isn't installed: it has no wheel for this system")
    seed = secrets.randbelow(2**31) + 1
    print(f"{target}: seed {seed}")
    command = [sys.executable, str(PROGRAM), target, f"-runs={RUNS[target]}", f"-seed={seed}"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:] + run.stdout[-2000:]
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", run.stderr))
    assert int(stats["number_of_executed_units"]) >= RUNS[target]
    print(f"{stats['average_exec_per_sec']} inputs/s, {stats['peak_rss_mb']} MB at most")


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNS)
def test_memory_stays_where_it_was(target: str) -> None:
    """After thousands of broken inputs a decoder holds no more memory than before them.

    Without the fuzzer: what it learns about comparisons takes memory of its own.
    """
    seed = secrets.randbelow(2**31)
    print(f"{target}: seed {seed}")
    choose = random.Random(seed)
    inputs = [broken(choose, choose.choice(SEEDS[target])) for _ in range(200)]
    process = psutil.Process()
    for data in inputs:
        TARGETS[target](data)
    before = process.memory_info().rss
    for _ in range(15):
        for data in inputs:
            TARGETS[target](data)
    grown = process.memory_info().rss - before
    assert grown < 8 << 20, f"{grown} bytes more"


def broken(choose: random.Random, seed: bytes) -> bytes:
    """Some bytes changed, an end cut off, separators added."""
    data = bytearray(seed)
    for _ in range(choose.randrange(6)):
        data[choose.randrange(len(data))] = choose.randrange(256)
    if choose.random() < 0.3:
        del data[choose.randrange(len(data)) :]
    return bytes(data) + b"\xff" * choose.choice((0, 0, 3))
