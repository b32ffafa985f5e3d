"""The Docker driver against a real engine, with a stand-in for `headcount run`."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from headcount.errors import ScalingError
from headcount.scaling.drivers.docker import (
    LABEL_DEPLOYMENT,
    LABEL_ROLE,
    LABEL_UNIT,
    ContainerOptions,
    DockerDriver,
)
from headcount.settings.scaling import ScaleSettings
from waiting import BUSY_S, until

#: A machine's own Python and nothing else: tests/containers/base_image.py.
IMAGE = os.environ.get("HEADCOUNT_BASE_IMAGE", "headcount-base")
STAND_IN = """
import os, signal, sys, time
def leave(*_):
    time.sleep(0.3)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
if os.environ.get("FAILS"):
    sys.exit("no such luck")
open("/data/mine", "w").close()
open("/tmp/mine", "w").close()
print("works", flush=True)
while True:
    time.sleep(0.1)
"""

pytestmark = pytest.mark.docker


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of the engine; skips the test without an engine or image."""
    socket = Path("/var/run/docker.sock")
    if "DOCKER_HOST" not in os.environ and not socket.exists():
        pytest.skip(f"no Docker engine: {socket} isn't there (tests/containers/engine.sh start)")
    engine: Any = docker.APIClient(version="1.41")
    try:
        engine.ping()
        engine.inspect_image(IMAGE)
    except docker.errors.ImageNotFound:
        engine.close()
        pytest.skip(f"the engine has no image {IMAGE} (tests/containers/engine.sh image)")
    except docker.errors.DockerException as error:
        engine.close()
        pytest.skip(f"no Docker engine answers (tests/containers/engine.sh start): {error}")
    yield engine
    engine.close()


@pytest.fixture
def deployment(client: Any) -> Iterator[str]:
    """A name of this test's own; its containers are removed afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    for container in _ours(client, name):
        client.remove_container(container["Id"], force=True)


def _ours(client: Any, deployment: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.containers(
        all=True, filters={"label": f"{LABEL_DEPLOYMENT}={deployment}"}
    )
    return found


def _options(deployment: str, **more: Any) -> ContainerOptions:
    return ContainerOptions(
        deployment=deployment,
        image=more.pop("image", IMAGE),
        host=os.environ.get("DOCKER_HOST", ScaleSettings().docker_host),
        environment={"HEADCOUNT_PARTITIONS": "4", **more.pop("environment", {})},
        cores={"broker": 0.5, "count": 1.0},
        memory_bytes=64 << 20,
        pids=32,
        drain_s=2.0,
        command=("python3", "-c", STAND_IN),
        **more,
    )


@contextlib.asynccontextmanager
async def _driver(deployment: str, **more: Any) -> AsyncIterator[DockerDriver]:
    async with DockerDriver(_options(deployment, **more)) as driver:
        yield driver


async def _names(driver: DockerDriver) -> list[str]:
    return sorted(unit.name for unit in await driver.units("count") if not unit.leaving)


async def test_all_units_of_a_role_have_its_name_in_their_network(client: Any, deployment: str) -> None:
    """The name `count` resolves to every worker in the network, which is how monitoring finds them."""
    network = client.create_network(deployment)["Id"]

    async def check() -> None:
        async with _driver(deployment, network=deployment) as driver:
            names = [await driver.add("count") for _ in range(2)]
            assert names == ["count-1", "count-2"]
            for container in _ours(client, deployment):
                inside = client.inspect_container(container["Id"])["NetworkSettings"]["Networks"]
                assert "count" in inside[deployment]["Aliases"]

    try:
        await check()
    finally:
        for container in _ours(client, deployment):
            client.remove_container(container["Id"], force=True)
        client.remove_network(network)


async def test_containers_are_configured(client: Any, deployment: str) -> None:
    """Labels, limits, capabilities, stop timeout and environment of a container are as configured."""
    async with _driver(deployment, user="10001:10001") as driver:
        assert await driver.add("broker") == "broker-1"
        assert await driver.add("count") == "count-1"
    by_role = {
        c["Labels"]["headcount.role"]: client.inspect_container(c["Id"]) for c in _ours(client, deployment)
    }
    broker = by_role["broker"]
    host, config = broker["HostConfig"], broker["Config"]
    assert broker["Name"] == f"/{deployment}-broker-1"
    assert config["Labels"] == {
        "headcount.role": "broker",
        "headcount.deployment": deployment,
        "headcount.unit": "broker-1",
    }
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 32)
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["Privileged"] is False
    assert "uid=10001,gid=10001" in host["Tmpfs"]["/data"]
    assert config["User"] == "10001:10001"
    assert config["StopTimeout"] >= 2
    environment = dict(line.split("=", 1) for line in config["Env"])
    assert environment["HEADCOUNT_NAME"] == "broker-1"
    assert environment["HEADCOUNT_ADVERTISE"] == config["Hostname"] == f"{deployment}-broker-1"
    assert environment["HEADCOUNT_PARTITIONS"] == "4"
    assert by_role["count"]["HostConfig"]["NanoCpus"] == 1_000_000_000


async def test_a_unit_can_write_where_it_must(client: Any, deployment: str) -> None:
    """A container of a user other than root can write to /data and /tmp, and keeps running."""
    async with _driver(deployment, user="10001:10001") as driver:
        await driver.add("count")

        (container,) = _ours(client, deployment)
        await until(lambda: b"works" in client.logs(container["Id"]))
    (container,) = _ours(client, deployment)
    assert container["State"] == "running"


async def test_a_later_scaler_takes_over(deployment: str, caplog: pytest.LogCaptureFixture) -> None:
    """Containers outlive a scaler, and the next one finds, counts and removes them."""
    caplog.set_level(logging.INFO)
    async with _driver(deployment) as driver:
        await driver.add("count")
        await driver.add("count")
    async with _driver(deployment) as driver:
        assert await _names(driver) == ["count-1", "count-2"]
        assert await driver.add("count") == "count-3"
        began_s = time.monotonic()
        await driver.remove("count", "count-2")
        assert time.monotonic() - began_s < BUSY_S  # it goes on by itself
        assert await _names(driver) == ["count-1", "count-3"]
        await until(lambda: "count-2 stopped" in caplog.text)  # its name is free again
        assert await driver.add("count") == "count-2"


async def test_a_dead_container_is_removed_and_others_are_left_alone(client: Any, deployment: str) -> None:
    """A killed container is removed at the next step; those of another deployment are not touched."""

    async def check() -> None:
        async with _driver(deployment) as ours, _driver(f"{deployment}-b") as theirs:
            await ours.add("count")
            await theirs.add("count")
            for container in (*_ours(client, deployment), *_ours(client, f"{deployment}-b")):
                client.kill(container["Id"])
            await until(lambda: _empty(ours))
            assert len(_ours(client, deployment)) == 0
            assert len(_ours(client, f"{deployment}-b")) == 1
            assert await _add_after_pause(ours) == "count-1"

    try:
        await check()
    finally:
        for container in _ours(client, f"{deployment}-b"):
            client.remove_container(container["Id"], force=True)


async def test_a_container_that_was_never_started_is_no_unit(client: Any, deployment: str) -> None:
    """A container that was created and never started, because of an interruption, is replaced."""
    labels = {LABEL_DEPLOYMENT: deployment, LABEL_ROLE: "count", LABEL_UNIT: "count-1"}
    name = f"{deployment}-count-1"
    client.create_container(IMAGE, ["true"], name=name, labels=labels)
    async with _driver(deployment) as driver:
        assert await _names(driver) == []
        assert await _add_after_pause(driver) == "count-1"


async def _add_after_pause(driver: DockerDriver) -> str:
    """Add a worker when the pause after an unexpected exit is over."""

    async def add_worker() -> str:
        try:
            return await driver.add("count")
        except ScalingError as error:
            if "exited" not in str(error):
                raise
            return ""

    name: str = await until(add_worker, "a worker is added", every_s=0.05)
    return name


async def _empty(driver: DockerDriver) -> bool:
    return await _names(driver) == []


@pytest.mark.usefixtures("client")
async def test_exiting_containers_are_started_with_pauses(deployment: str) -> None:
    """After each unexpected exit, starting another container is refused for a while."""
    async with _driver(deployment, environment={"FAILS": "1"}) as driver:
        for _ in range(2):
            await _add_after_pause(driver)
            await until(lambda: _empty(driver))
        with pytest.raises(ScalingError, match="exited"):
            await driver.add("count")


async def test_a_missing_image_is_an_error(client: Any, deployment: str) -> None:
    """A missing image is a ScalingError that names it."""
    async with _driver(deployment, image="headcount-not-there") as driver:
        with pytest.raises(ScalingError, match="headcount-not-there"):
            await driver.add("count")
    assert _ours(client, deployment) == []


async def test_a_missing_engine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine, opening the driver is a ScalingError."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(ScalingError, match="reach the engine"):
        async with _driver("test-nothing"):
            pass
