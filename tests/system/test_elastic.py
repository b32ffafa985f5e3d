"""`headcount up --elastic`: one machine with a balancer, brokers and workers that come and go."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from headcount.runtime.ports import free_ports
from proxy_fixture import haproxy
from system.running import START_S, UL, environment
from system.senders import fix, publish
from waiting import LIMIT_S, wait_until


@pytest.mark.slow
def test_an_elastic_machine(tmp_path: Path) -> None:
    """A fix with QoS 1 over the public port is counted; a killed broker is replaced; Ctrl-C leaves nothing."""
    haproxy()  # skips where there is none
    names = ("mqtt", "ws", "http", "nats")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    command = [
        sys.executable,
        "-m",
        "headcount",
        "up",
        "--open",
        "--elastic",
        "--site",
        str(UL),
        "--partitions",
        "4",
    ]
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [*command, "--data", str(tmp_path / "data"), *options],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    seen: list[psutil.Process] = []
    try:
        wait_until(lambda: up.poll() is not None or b"Ctrl-C" in log.read_bytes(), "start", START_S)
        assert up.poll() is None, log.read_text()
        assert f":{ports['http']}/v1/system/scaling  1 to 4 brokers, 1 to 4 workers" in log.read_text()
        assert "has no server" not in log.read_text()  # while it starts that is no news
        seen = psutil.Process(up.pid).children(recursive=True)
        _count_one(ports, "before", 1)
        broker = next(one for one in seen if one.cmdline()[-2:] == ["run", "broker"])
        for process in (*broker.children(), broker):
            process.kill()
        _count_one(ports, "after", 2)
        seen += psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGINT)
        assert up.wait(LIMIT_S) == 0, log.read_text()
        wait_until(lambda: not [one for one in seen if _runs(one)], "all have ended")
    finally:
        for process in seen:
            if _runs(process):
                process.kill()
        if up.poll() is None:
            up.kill()
            up.wait()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADCOUNT_PROXY_PROGRAM", "/nowhere/haproxy"),
        ("HEADCOUNT_PROXY_BALANCE", "fair"),
        ("HEADCOUNT_SCALE_MAX_BROKERS", "0"),
        ("HEADCOUNT_SCALE_DRIVER", "docker"),
        ("HEADCOUNT_SCALE_DRY_RUN", "true"),
    ],
)
def test_impossible_settings_are_reported_at_the_start(tmp_path: Path, name: str, value: str) -> None:
    """A part with impossible settings isn't started: one line states the problem, and the exit code is 2."""
    command = [sys.executable, "-m", "headcount", "up", "--open", "--elastic", "--site", str(UL)]
    ports = [
        word
        for port, number in zip(("mqtt", "ws", "http"), free_ports(3), strict=True)
        for word in (f"--{port}-port", str(number))
    ]
    run = subprocess.run(
        [*command, *ports, "--data", str(tmp_path / "data")],
        cwd=tmp_path,
        env={**environment(), name: value},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert run.returncode == 2, run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("headcount: ")
    assert value in line or name in line


def _count_one(ports: dict[str, int], device: str, people: int) -> None:
    """A person connects through the balancer as soon as it accepts connections, and is counted."""

    def sent() -> bool:
        try:
            publish(ports["mqtt"], f"headcount/ul/person/{device}/fix", fix("main-building"))
        except (OSError, RuntimeError, ValueError):
            return False
        return True

    wait_until(sent, "a device is let in", every_s=0.5)
    url = f"http://127.0.0.1:{ports['http']}/v1/sites/ul/counts"

    def counted() -> bool:
        answer = httpx.get(url, trust_env=False, timeout=LIMIT_S)
        zones = answer.json()["zones"] if answer.status_code == httpx.codes.OK else []
        return any(zone["zone"] == "site" and zone["person"]["count"] == people for zone in zones)

    wait_until(counted, f"{people} counted")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
