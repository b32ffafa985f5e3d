"""The address to listen on: IPv6, all addresses, and addresses that this machine does not have."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from system.running import UL, Up, headcount
from system.senders import fix, publish
from waiting import wait_until


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("host", "served"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"]), ("localhost", ["127.0.0.1"])]
)
def test_addresses_that_are_served(host: str, served: list[str], tmp_path: Path) -> None:
    """HTTP, MQTT and WebSocket answer on the address; `::` is all addresses, those of IPv4, too."""
    with Up(tmp_path, arguments=["--host", host, "--tls", "off"]) as up:
        for number, address in enumerate(served, 1):
            publish(
                up.mqtt_port, f"headcount/ul/person/a{number}/fix", fix("glucksman-library"), host=address
            )
            publish(
                up.ports["ws"],
                f"headcount/ul/vehicle/b{number}/fix",
                fix("car-park-milford"),
                host=address,
                websocket=True,
            )
            shown = f"[{address}]" if ":" in address else address
            url = f"http://{shown}:{up.ports['http']}/v1/sites/ul/counts"

            def counted(url: str = url, number: int = number) -> bool:
                zones = {zone["zone"]: zone for zone in httpx.get(url, trust_env=False).json()["zones"]}
                site = zones["site"]
                return bool(site["person"]["count"] == site["vehicle"]["count"] == number)

            wait_until(counted, f"counts at {url}")
        assert "connection lost" not in up.printed()


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("203.0.113.9", "203.0.113.9 is not an address of this machine"),
        ("2001:db8::9", "2001:db8::9 is not an address of this machine"),
        ("no-such-name.invalid", "'no-such-name.invalid' cannot be resolved"),
    ],
)
@pytest.mark.parametrize("elastic", [False, True])
def test_an_address_of_another_machine(host: str, problem: str, elastic: bool, tmp_path: Path) -> None:
    """The error is one line that names the setting and is not about a taken port."""
    more = ["--elastic"] if elastic else []
    run = headcount("up", "--site", UL, "--host", host, *more, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith(f"headcount: --host: {problem}")
    assert len(run.stderr.splitlines()) == 1
