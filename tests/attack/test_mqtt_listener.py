"""Malformed MQTT at the public listener, through the load balancer: other clients are still served."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from pathlib import Path

import psutil
import pytest

from attack.mqtt_packets import session
from proxy_fixture import haproxy
from system.running import Up
from system.senders import fix, publish
from waiting import wait_until

SESSIONS = 4_000
AT_ONCE = 40
#: The number of idle connections.
SILENT = 200

pytestmark = pytest.mark.slow


def test_broken_mqtt_harms_no_other_device(tmp_path: Path) -> None:
    """Thousands of broken sessions and silent connections: no server ends, memory stays, counts are right."""
    haproxy()
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    with Up(
        tmp_path, arguments=["--elastic"], variables={"HEADCOUNT_PROXY_NEW_PER_ADDRESS_10S": "100000"}
    ) as up:
        wait_until(lambda: _arrives(up, "before"), "the first is let in")
        before = _servers(up)
        refused = asyncio.run(_attack(up.mqtt_port, random.Random(seed)))
        print(f"{SESSIONS} sessions, {refused} of them answered by closing")
        wait_until(lambda: _arrives(up, "after"), "somebody who behaves is served")
        wait_until(lambda: up.counts()["site"] == (2, 0), "nobody else is counted")
        after = _servers(up)
        assert after.keys() == before.keys()
        grown = {pid: (after[pid] - before[pid]) >> 20 for pid in before}
        print(f"MiB grown: {sorted(grown.values())}")
        assert max(grown.values()) < 150


async def _attack(port: int, choose: random.Random) -> int:
    gate = asyncio.Semaphore(AT_ONCE)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SILENT)]
    for _, writer in silent:
        writer.write(b"\x10\x80")

    async def one(data: bytes) -> bool:
        async with gate:
            return await _send(port, data)

    closed = await asyncio.gather(*(one(session(choose)) for _ in range(SESSIONS)))
    for _, writer in silent:
        writer.close()
    return sum(closed)


async def _send(port: int, data: bytes) -> bool:
    """Whether the other side closes the connection soon."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    try:
        writer.write(data)
        async with asyncio.timeout(0.1):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    except OSError:
        return True
    else:
        return True
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _arrives(up: Up, device: str) -> bool:
    try:
        publish(up.mqtt_port, f"headcount/ul/person/{device}/fix", fix("main-building"))
    except (OSError, RuntimeError, ValueError):
        return False
    return True


def _servers(up: Up) -> dict[int, int]:
    """The memory of each process of ours that takes connections: brokers and balancer."""
    found = {}
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(up.data) in command and ("nats-server" in command or "haproxy" in command):
            found[process.pid] = process.info["memory_info"].rss
    return found
