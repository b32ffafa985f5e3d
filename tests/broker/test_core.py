"""Running a NATS server: start, refusals, death, restart, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiomqtt
import nats.errors
import psutil
import pytest
from nats.aio.client import Client

from headcount.broker.core import Broker
from headcount.broker.nats_config import BrokerConfig, render
from headcount.broker.nats_process import check_ports
from headcount.broker.nats_program import find_program
from headcount.errors import (
    BrokerError,
    BrokerVersionError,
    DataFolderError,
    LogError,
    PortTakenError,
    SettingsError,
)
from nats_fixture import config_for, internal_client, open_broker, running_broker, server_program
from waiting import until

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux ends orphans for us, others don't")


def ended(pid: int) -> bool:
    """True when a process is gone, or is only waiting to be noticed."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@asynccontextmanager
async def refused(
    kind: type[Exception], config: BrokerConfig, program: Path | None = None
) -> AsyncIterator[pytest.ExceptionInfo[Exception]]:
    """A start must fail with `kind` and leave no child, no pid file and no lock behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(kind) as info:
        async with Broker(config, program=program):
            pass
    yield info
    left = [c.pid for c in psutil.Process().children(recursive=True) if c.pid not in before]
    assert [pid for pid in left if not ended(pid)] == []
    assert not (config.data / "broker.pid").exists()


@contextmanager
def small_disk(folder: Path, megabytes: int, *, read_only: bool = False) -> Iterator[None]:
    """A file system of that size at `folder`; skips the test where we may not mount one."""
    folder.mkdir()
    options = f"size={megabytes}m" + (",ro" if read_only else "")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"can't mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def script(path: Path, *lines: str) -> Path:
    """A program named nats-server that runs these lines."""
    path.mkdir()
    program = path / "nats-server"
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)
    return program


async def test_it_runs(tmp_path: Path) -> None:
    """Inside the context MQTT and JetStream answer; after it, the process and its pid file are gone."""
    async with open_broker(tmp_path / "new" / "data") as broker:
        print("nats-server", broker.version)
        pid = broker.pid
        assert pid is not None
        assert (broker.config.data / "broker.pid").read_text() == f"{pid}\n"
        client = await internal_client(broker)
        assert (await client.jetstream().account_info()).streams > 0
        await client.close()
        assert broker.restarts == 0
        assert broker.problem is None
    assert ended(pid)
    assert broker.pid is None
    assert not (broker.config.data / "broker.pid").exists()


def test_plain_code_can_have_one(tmp_path: Path) -> None:
    """The fixture for tests that aren't async gives the same broker."""
    with running_broker(tmp_path) as broker:
        assert broker.pid is not None
        socket.create_connection(("127.0.0.1", broker.config.mqtt_port)).close()
    assert broker.pid is None


async def test_its_files_are_private(tmp_path: Path) -> None:
    """Only the owner may read the file with the password."""
    async with open_broker(tmp_path) as broker:
        mode = (broker.config.data / "broker.conf").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


async def test_it_has_a_process_group_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C in the terminal reaches us, not the server."""
    async with open_broker(tmp_path) as broker:
        assert broker.pid is not None
        assert os.getpgid(broker.pid) == broker.pid != os.getpgid(0)


@pytest.mark.parametrize(
    ("purpose", "option", "field"),
    [
        ("MQTT", "--mqtt-port", "mqtt_port"),
        ("WebSocket", "--ws-port", "ws_port"),
        ("NATS", "--nats-port", "nats_port"),
    ],
)
async def test_a_taken_port(tmp_path: Path, purpose: str, option: str, field: str) -> None:
    """The error names what the port is for and the option that changes it; afterwards a start works."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = config_for(tmp_path, **{field: port})
        async with refused(PortTakenError, config) as info:
            error = info.value
            assert isinstance(error, PortTakenError)
            assert (error.purpose, error.option, error.port) == (purpose, option, port)
    async with Broker(config):
        pass


def test_a_port_that_is_taken_on_another_address(tmp_path: Path) -> None:
    """Listening everywhere needs the port to be free on each address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = config_for(tmp_path, host="0.0.0.0", mqtt_port=taken.getsockname()[1])
        with pytest.raises(PortTakenError):
            check_ports(config)


async def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    """The error names the address and the option."""
    async with refused(SettingsError, config_for(tmp_path, host="192.0.2.1")) as info:
        assert str(info.value).startswith("host: 192.0.2.1 is not an address of this machine")


async def test_a_folder_under_a_file(tmp_path: Path) -> None:
    """A data folder that can't be made is named, with the remedy."""
    (tmp_path / "file").write_text("")
    async with refused(DataFolderError, config_for(tmp_path / "file" / "data")) as info:
        assert "is a file" in str(info.value)
        assert "--data" in str(info.value)


async def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """The same for a file in the folder's own place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="is a file"):
        async with Broker(config_for(tmp_path / "file")):
            pass


async def test_a_read_only_folder(tmp_path: Path) -> None:
    """A folder on a read-only disk is refused with that word."""
    with small_disk(tmp_path / "disk", 200, read_only=True):
        async with refused(DataFolderError, config_for(tmp_path / "disk")) as info:
            assert "read-only" in str(info.value)


async def test_a_full_folder(tmp_path: Path) -> None:
    """A folder without room is refused before the server starts."""
    with small_disk(tmp_path / "disk", 16):
        async with refused(DataFolderError, config_for(tmp_path / "disk")) as info:
            assert "full" in str(info.value)


async def test_a_folder_in_use(tmp_path: Path) -> None:
    """Two headcounts never share a data folder, and the first one isn't disturbed."""
    async with open_broker(tmp_path) as first:
        pid = first.pid
        with pytest.raises(DataFolderError, match="another headcount uses it"):
            async with open_broker(tmp_path):
                pass
        assert first.pid == pid
        assert first.restarts == 0
    async with open_broker(tmp_path):
        pass


async def test_another_number_of_partitions(tmp_path: Path) -> None:
    """A log with other partitions is refused, with both ways out; nothing keeps running."""
    async with open_broker(tmp_path, partitions=3):
        pass
    async with refused(LogError, config_for(tmp_path, partitions=4)) as info:
        assert "--partitions 3" in str(info.value)
    async with open_broker(tmp_path, partitions=3):
        pass


async def test_an_old_server(tmp_path: Path) -> None:
    """A version below the needed one is refused, with both numbers."""
    old = script(tmp_path / "bin", "echo nats-server: v2.10.0")
    async with refused(BrokerVersionError, config_for(tmp_path / "data"), old) as info:
        assert "2.10.0" in str(info.value)
        assert "2.15.1" in str(info.value)


@pytest.mark.parametrize("lines", [["exit 1"], ["echo something else"], ["echo"]])
async def test_a_program_that_is_no_nats_server(tmp_path: Path, lines: list[str]) -> None:
    """A program that doesn't print its version is refused."""
    program = script(tmp_path / "bin", *lines)
    async with refused(BrokerVersionError, config_for(tmp_path / "data"), program):
        pass
    async with refused(BrokerVersionError, config_for(tmp_path / "data"), tmp_path / "nothing"):
        pass


async def test_a_server_that_ends_at_once(tmp_path: Path) -> None:
    """A server that doesn't come up is reported with how it ended and its last words."""
    program = script(
        tmp_path / "bin",
        'if [ "$1" = --version ]; then echo nats-server: v2.99.0; exit; fi',
        "echo the last words",
        "exit 3",
    )
    async with refused(BrokerError, config_for(tmp_path / "data"), program) as info:
        assert "exit code 3" in str(info.value)
        assert "the last words" in str(info.value)


async def test_the_next_newer_server_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old nats-server on PATH doesn't hide the one of the package."""
    old = script(tmp_path / "bin", "echo nats-server: v2.10.0")
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    program, version = await find_program()
    assert program != old
    assert tuple(map(int, version.split("."))) >= (2, 15, 1)


async def test_errors_of_the_body_come_through_unchanged(tmp_path: Path) -> None:
    """The caller gets the exception that is raised inside the context."""

    async def check() -> None:
        async with open_broker(tmp_path):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await check()


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the server starts ends it."""
    slow = script(
        tmp_path / "bin",
        'if [ "$1" = --version ]; then echo nats-server: v2.99.0; exit; fi',
        "exec sleep 600",
    )
    config = config_for(tmp_path / "data")
    task = asyncio.create_task(Broker(config, program=slow).__aenter__())
    await until((config.data / "broker.pid").exists)
    pid = int((config.data / "broker.pid").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended(pid)
    assert not (config.data / "broker.pid").exists()


async def test_a_killed_server_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After kill -9 of the server all stored messages are there, and so are the streams kept in memory."""
    caplog.set_level(logging.INFO)
    async with open_broker(tmp_path) as broker:
        client = await internal_client(broker)
        jetstream = client.jetstream()
        for number in range(50):
            await jetstream.publish("history.0", str(number).encode())
        await client.close()
        old = broker.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        await until(lambda: broker.restarts == 1 and broker.pid not in {None, old})
        client = await internal_client(broker, connect_timeout=60)
        await until_stream(client, "COUNT")
        assert (await client.jetstream().stream_info("HISTORY")).state.messages == 50
        await client.jetstream().publish("count.0.ul", b"new")
        await client.close()
    assert "killed by SIGKILL" in caplog.text


async def test_what_the_log_has_survives_a_kill(tmp_path: Path) -> None:
    """Every fix that the log had shown before kill -9 of the server is there after it."""

    async def fixes(broker: Broker) -> int:
        client = await internal_client(broker)
        infos = [await client.jetstream().stream_info(f"FIX_{partition}") for partition in range(4)]
        await client.close()
        return sum(info.state.messages for info in infos)

    async with open_broker(tmp_path) as broker:
        async with aiomqtt.Client("127.0.0.1", broker.config.mqtt_port) as device:
            for number in range(500):
                await device.publish(f"headcount/ul/person/d{number}/fix", b"x", qos=0)

        async def all_logged() -> bool:
            return await fixes(broker) == 500

        await until(all_logged, "all fixes are in the log")
        old = broker.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        await until(lambda: broker.restarts == 1 and answers(broker.config.nats_port))
        client = await internal_client(broker)
        await until_stream(client, "COUNT")
        await client.close()
        assert await fixes(broker) == 500


async def test_it_tries_again_until_it_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A restart that fails, here since another program took the port, is repeated, later each time."""
    caplog.set_level(logging.INFO)
    async with open_broker(tmp_path) as broker:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await until(lambda: broker.pid is None)
        with socket.create_server(("127.0.0.1", broker.config.mqtt_port)):
            await until(lambda: broker.restarts >= 2)
        await until(lambda: "runs as" in caplog.text.rpartition("doesn't start")[2])
        client = await internal_client(broker)
        await client.close()
    assert "again in 0.2 s" in caplog.text
    assert "again in 0.4 s" in caplog.text


async def test_a_server_that_does_not_react_is_killed(tmp_path: Path) -> None:
    """A server that hangs is killed when its time to stop is over."""
    async with Broker(config_for(tmp_path), stop_s=0.5) as broker:
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert ended(pid)


_HOLD = """
import asyncio, sys
from headcount.broker.nats_config import BrokerConfig
from headcount.broker.core import Broker
from pathlib import Path

async def hold():
    mqtt, ws, nats = map(int, sys.argv[2:5])
    config = BrokerConfig(Path(sys.argv[1]), sys.argv[5], mqtt_port=mqtt, ws_port=ws, nats_port=nats, partitions=4, anonymous=True)
    async with Broker(config) as broker:
        print(broker.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


@linux_only
async def test_the_server_dies_with_us(tmp_path: Path) -> None:
    """After kill -9 of our own process no server is left, and the next start just works."""
    config = config_for(tmp_path)
    ports = map(str, (config.mqtt_port, config.ws_port, config.nats_port))
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path), *ports, config.password],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None
    try:
        with holder.stdout:
            pid = int(holder.stdout.readline())
    finally:
        holder.kill()
        holder.wait()
    async with Broker(config) as broker:
        assert broker.pid != pid
        assert ended(pid)


async def test_a_left_over_server_is_ended(tmp_path: Path) -> None:
    """A server that an earlier headcount left in the folder is ended before the new one starts."""
    config = config_for(tmp_path)
    (tmp_path / "broker.conf").write_text(render(config))
    left = subprocess.Popen([server_program(), "-c", tmp_path / "broker.conf"])
    (tmp_path / "broker.pid").write_text(str(left.pid))

    async def check() -> None:
        await until(lambda: answers(config.nats_port))
        async with Broker(config) as broker:
            assert broker.pid != left.pid
            assert ended(left.pid)

    try:
        await check()
    finally:
        left.kill()
        left.wait()


async def test_a_stranger_with_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    """A pid file from before a reboot may name any program: that one lives on."""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (tmp_path / "broker.pid").write_text(str(stranger.pid))

        async def check() -> None:
            async with open_broker(tmp_path):
                assert stranger.poll() is None

        try:
            await check()
        finally:
            stranger.kill()


async def test_a_full_disk_heals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that a full disk has stopped is logged, and works again once there is room."""

    async def check() -> None:
        config = config_for(tmp_path / "disk" / "data")
        async with Broker(config, check_every_s=0.2) as broker:
            client = await internal_client(broker)
            filler = tmp_path / "disk" / "filler"
            fill(filler)
            for _ in range(20):
                await client.publish("history.0", b"x" * 60_000)
            await client.flush()
            await client.close()
            await until(lambda: broker.problem is not None)
            assert broker.restarts == 0
            filler.unlink()
            await until(lambda: broker.restarts == 1 and answers(config.nats_port))
            client = await internal_client(broker)
            await until_stream(client, "COUNT")
            await client.jetstream().publish("history.0", b"x")
            await client.close()

    with small_disk(tmp_path / "disk", 120):
        await check()
    assert "no space left" in caplog.text


def fill(filler: Path) -> None:
    """Leave half a megabyte of room beside the filler."""
    left = os.statvfs(filler.parent)
    filler.write_bytes(b"\0" * (left.f_bavail * left.f_frsize - 500_000))


def answers(port: int) -> bool:
    """Whether a process listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def until_stream(client: Client, name: str) -> None:
    """Wait until a stream is there: they come a moment after the server."""

    async def exists() -> bool:
        with suppress(nats.errors.Error):
            await client.jetstream().stream_info(name)
            return True
        return False

    await until(exists, f"the stream {name}")
