"""The balancer in a real cluster: core and brokers are processes, devices come in through HAProxy."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest

from headcount.lab.chaos.chaos_system import RestartedRole
from headcount.proxy.runtime_api import HaproxyRuntime
from headcount.runtime.ports import free_ports
from headcount.settings.deployment import Settings
from headcount.sites.files import bundled_site
from proxy_fixture import Device, haproxy
from waiting import until

pytestmark = pytest.mark.slow


class Cluster:
    """A core, a balancer, and brokers that the test starts and ends."""

    def __init__(self, folder: Path, opened: AsyncExitStack) -> None:
        """Use `cluster`."""
        self.folder = folder
        self.opened = opened
        nats, leaf, mqtt, ws, http, spare, self.port = free_ports(7)
        self.settings = Settings(
            site=bundled_site("ul"),
            data=folder / "data",
            nats_port=nats,
            leaf_port=leaf,
            mqtt_port=mqtt,
            ws_port=ws,
            http_port=http,
            cluster_port=spare,
            partitions=2,
            devices=False,
            open=True,
            core=f"127.0.0.1:{nats}",
            drain_s=2,
        )

    async def core(self) -> RestartedRole:
        """The core, started."""
        return await self._role("core", "core", self.settings)

    async def broker(self, name: str) -> RestartedRole:
        """A broker unit, started."""
        mqtt, ws, health, nats = free_ports(4)
        own = replace(self.settings, name=name, mqtt_port=mqtt, ws_port=ws)
        own = replace(own, health_port=health, nats_port=nats)
        return await self._role(name, "broker", own)

    async def balancer(self) -> RestartedRole:
        """The balancer, started."""
        ws, http, health = free_ports(3)
        own = replace(self.settings, name="proxy", mqtt_port=self.port, ws_port=ws)
        return await self._role("proxy", "proxy", replace(own, http_port=http, health_port=health))

    async def _role(self, name: str, role: str, settings: Settings) -> RestartedRole:
        variables = settings.environment() | {"HEADCOUNT_PROXY_OPEN_PER_ADDRESS": "4321"}
        process = RestartedRole(name, role, self.folder, variables)
        self.opened.push_async_callback(process.stop)
        await process.start()
        return process

    async def balanced(self, *names: str) -> None:
        """Return when HAProxy has these brokers up, and no other."""

        async def are_up() -> bool:
            try:
                # the role has its options from the variables
                assert "4321" in (self.settings.data / "proxy" / "haproxy.cfg").read_text()
                standing = (await HaproxyRuntime(self.settings.data / "proxy").statuses()).get("mqtt", {})
            except Exception:  # noqa: BLE001 - not yet
                return False
            if not all(s.status == "UP" and s.weight for s in standing.values()):
                return False
            return sorted(name.split("-127")[0] for name in standing) == sorted(names)

        try:
            await until(are_up, f"the brokers {names} are up", every_s=0.1)
        except AssertionError:
            for log in sorted(self.folder.glob("*.log")):
                print(f"== {log.name}", *log.read_text().splitlines()[-40:], sep="\n")
            raise

    async def devices(self, number: int) -> list[Device]:
        """Devices behind the balancer, gone at the end."""
        devices = [await Device.open(self.port) for _ in range(number)]
        for device in devices:
            self.opened.callback(device.close)
        return devices

    async def try_device(self) -> Device | None:
        """A device behind the balancer; None: it was not let in."""
        try:
            (device,) = await self.devices(1)
        except (OSError, EOFError):  # a broker that starts or ends may close a connection
            return None
        return device

    async def load(self) -> dict[str, int]:
        """Connections of each broker through HAProxy."""
        standing = (await HaproxyRuntime(self.settings.data / "proxy").statuses())["mqtt"]
        return {name.split("-127")[0]: status.sessions for name, status in standing.items()}


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """A balancer without a core, at first."""
    async with AsyncExitStack() as opened:
        made = Cluster(folder, opened)
        await made.balancer()
        yield made


async def test_brokers_of_a_cluster_come_and_go_behind_the_balancer(tmp_path: Path) -> None:
    """Brokers appear by themselves, a drained one moves its devices to others, and a core outage cuts off none."""
    haproxy()
    async with cluster(tmp_path) as made:
        core = await made.core()
        await made.broker("b1")
        await made.balanced("b1")
        devices = await made.devices(6)
        second = await made.broker("b2")
        await made.balanced("b1", "b2")
        devices += await made.devices(6)
        assert await made.load() == {"b1": 6, "b2": 6}

        core.send(signal.SIGKILL)  # it is started again
        assert all([await device.alive() for device in devices])
        await made.balanced("b1", "b2")
        assert all([await device.alive() for device in devices])

        await second.stop()
        await made.balanced("b1")
        stayed = [device for device in devices if await device.alive()]
        assert len(stayed) == 6
        async with aiomqtt.Client("127.0.0.1", made.port) as client:
            await client.publish("headcount/ul/person/p1/fix", "{}", qos=1)
        await made.devices(6)
        assert await made.load() == {"b1": 12}


async def test_a_killed_brokers_devices_come_back_to_others(tmp_path: Path) -> None:
    """After kill -9 of a broker its devices' connections end, and the balancer connects them to other brokers."""
    haproxy()
    async with cluster(tmp_path) as made:
        await made.core()
        first, _ = await made.broker("b1"), await made.broker("b2")
        await made.balanced("b1", "b2")
        devices = await made.devices(8)
        await first.kill()
        cut = [device for device in devices if not await device.alive()]
        assert len(cut) == 4
        back = [await until(made.try_device, "a device is let in") for _ in range(4)]
        assert all([await device.alive() for device in back])
