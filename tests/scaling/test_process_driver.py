"""The process driver: children are started, restarted, removed and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from headcount.errors import ScalingError
from headcount.scaling.drivers.process import ProcessDriver
from waiting import until

#: Replaces `headcount run`: prints its arguments, uses some CPU, and takes a while to exit.
STAND_IN = """
import os, signal, sys, time
keep = float(os.environ.get("TAKES", "0.2"))
signals = []
def leave(*_):
    signals.append(1)
    if len(signals) > 1:
        sys.exit(0)
signal.signal(signal.SIGTERM, leave)
end = time.process_time() + 0.1
while time.process_time() < end:
    pass
names = ("NAME", "MQTT_PORT", "HEALTH_PORT")
print(sys.argv[1], *(os.environ.get("HEADCOUNT_" + name, "-") for name in names), flush=True)
while not signals:
    time.sleep(0.02)
time.sleep(keep)
print("left", flush=True)
"""


@contextlib.asynccontextmanager
async def driver(folder: Path, takes_s: float = 0.2, drain_s: float = 5.0) -> AsyncIterator[ProcessDriver]:
    """A driver of stand-ins."""
    (folder / "stand_in.py").write_text(STAND_IN)
    environment = {**os.environ, "TAKES": str(takes_s), "HEADCOUNT_MQTT_PORT": "1"}
    command = (sys.executable, str(folder / "stand_in.py"))
    async with ProcessDriver(folder / "data", environment, drain_s, command) as opened:
        yield opened


def log_lines(folder: Path, name: str) -> list[str]:
    """The lines of a unit's log."""
    log = folder / "data" / f"{name}.log"
    return log.read_text().splitlines() if log.exists() else []


async def test_units_have_names_ports_and_logs(tmp_path: Path) -> None:
    """Brokers get a name and free ports of their own, workers a name; each has its log."""
    async with driver(tmp_path) as d:
        names = [await d.add("broker"), await d.add("broker"), await d.add("count")]
        assert names == ["broker-1", "broker-2", "count-1"]
        await until(lambda: all(log_lines(tmp_path, name) for name in names))
        first, second, worker = (log_lines(tmp_path, name)[0].split() for name in names)
        assert first[:2] == ["broker", "broker-1"]
        assert len({*first[2:], *second[2:]}) == 4
        assert worker == ["count", "count-1", "1", "-"]
        assert [unit.name for unit in await d.units("broker")] == ["broker-1", "broker-2"]
        pids = d.pids()
    assert not any(map(psutil.pid_exists, pids.values()))


async def test_a_killed_child_is_restarted(tmp_path: Path) -> None:
    """A killed unit is restarted under its name."""
    async with driver(tmp_path) as d:
        await d.add("count")
        await until(lambda: len(log_lines(tmp_path, "count-1")) == 1)
        os.kill(d.pids()["count-1"], signal.SIGKILL)
        await until(lambda: len(log_lines(tmp_path, "count-1")) == 2)
        assert len(await d.units("count")) == 1


async def test_a_removed_unit_may_take_its_time(tmp_path: Path) -> None:
    """A removed unit is `leaving` until it exits and is not restarted; then its name is free."""
    async with driver(tmp_path, takes_s=0.6) as d:
        await d.add("broker")
        await d.add("broker")
        await until(lambda: bool(log_lines(tmp_path, "broker-2")))
        await d.remove("broker", "broker-2")
        await d.remove("broker", "broker-2")
        leaving = {unit.name: unit.leaving for unit in await d.units("broker")}
        assert leaving == {"broker-1": False, "broker-2": True}
        assert await d.add("broker") == "broker-3"
        await until(lambda: "broker-2" not in d.pids())
        await until(lambda: log_lines(tmp_path, "broker-2")[-1] == "left")

        async def others() -> bool:  # once its process has ended, too
            return [unit.name for unit in await d.units("broker")] == ["broker-1", "broker-3"]

        await until(others, "only the others are there")
        assert await d.add("broker") == "broker-2"


async def test_the_end_does_not_wait_for_drains(tmp_path: Path) -> None:
    """When the scaler stops, units soon get a second SIGTERM and exit immediately."""
    async with driver(tmp_path, takes_s=60.0, drain_s=60.0) as d:
        await d.add("broker")
        await until(lambda: bool(log_lines(tmp_path, "broker-1")))
        pids = d.pids()
    assert not any(map(psutil.pid_exists, pids.values()))


async def test_a_missing_program_is_an_error(tmp_path: Path) -> None:
    """A missing program is a ScalingError that names it."""
    async with ProcessDriver(tmp_path, {}, 1.0, (str(tmp_path / "nothing"),)) as d:
        with pytest.raises(ScalingError, match="nothing"):
            await d.add("count")
        assert await d.units("count") == []
