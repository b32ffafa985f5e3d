"""The balancer with a real HAProxy, brokers behind it, and connections that must survive."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import urllib.error
import urllib.request
from pathlib import Path

import aiomqtt
import pytest

from headcount.errors import DataFolderError, PortTakenError, ProxyError, ProxyVersionError
from headcount.proxy.balancer import run
from headcount.proxy.haproxy_process import Haproxy
from headcount.proxy.haproxy_program import find_program
from headcount.proxy.proxy_config import SOCKET_FILE
from headcount.tls.certificates import ensure_server_certificate
from headcount.tls.tls_files import TlsFiles
from nats_fixture import open_broker
from proxy_fixture import Bench, connect_packet, haproxy, scaled, states, stepping_until
from waiting import until


@pytest.fixture(autouse=True, scope="module")
def _program() -> None:
    haproxy()


async def test_brokers_come_drain_and_go_while_connections_stay(tmp_path: Path) -> None:
    """Connections of one broker are not affected when another is added, drains, dies or is removed."""
    async with (
        Bench(tmp_path, limits=scaled()) as bench,
        open_broker(tmp_path / "one") as one,
        open_broker(tmp_path / "two") as two,
        bench.balancer() as role,
    ):
        assert await bench.try_device() is None  # with no broker it runs all the same
        await bench.unit("b1", one.config.mqtt_port)
        await role.step()
        first = [await bench.device() for _ in range(4)]
        await bench.unit("b2", two.config.mqtt_port)
        await role.step()
        second = [await bench.device() for _ in range(4)]
        sessions = {
            name.split("-")[0]: status.sessions
            for name, status in (await role.haproxy.runtime.statuses())["mqtt"].items()
        }
        assert sessions == {"b1": 4, "b2": 4}  # the new broker has fewer: all go there

        bench.drain("b2")
        await stepping_until(role, lambda status: status.get("b2") == "DRAIN")
        for device in [await bench.device() for _ in range(3)]:
            device.close()
        standing = (await role.haproxy.runtime.statuses())["mqtt"]
        assert next(s.sessions for name, s in standing.items() if name.startswith("b2")) == 4
        assert all([await device.alive() for device in first + second])

        for device in second:  # as its paced kicks do
            device.close()
        del bench.units["b2"]
        await stepping_until(role, lambda status: set(status) == {"b1"})
        assert all([await device.alive() for device in first])


async def test_a_reload_keeps_connections_and_states(tmp_path: Path) -> None:
    """A reload keeps connections and the states of servers that were down or draining."""
    async with (
        Bench(tmp_path, limits=scaled()) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        agents = [await bench.unit(name, one.config.mqtt_port) for name in ("b1", "b2", "b3")]
        await role.step()
        agents[1].status = 503
        bench.drain("b3")
        wanted = {"b1": "UP", "b2": "DOWN", "b3": "DRAIN"}
        await stepping_until(role, lambda status: status == wanted)
        device = await bench.device()
        before = role.haproxy.pid
        await role.haproxy.reload()
        assert role.haproxy.pid != before
        assert await states(role) == wanted
        assert await device.alive()
        newer = await bench.device()
        assert await newer.alive()
        device.close()
        await until(lambda: not _runs(before))  # its last connection has ended


async def test_a_reload_without_connections_leaves_one_process(tmp_path: Path) -> None:
    """An idle HAProxy exits as soon as it is replaced, which does not count as a failure."""
    async with Bench(tmp_path, limits=scaled()) as bench, bench.balancer() as role:
        for _ in range(4):
            before = role.haproxy.pid
            await role.haproxy.reload()
            after = role.haproxy.pid
            await until(lambda pid=before: not _runs(pid))  # type: ignore[misc]
            await asyncio.sleep(0.4)  # longer than the supervisor's first pause
            assert role.haproxy.pid == after
        assert role.haproxy.restarts == 0


async def test_a_missing_program_is_retried(tmp_path: Path) -> None:
    """While its program cannot be run, as during an update, starting HAProxy is retried."""
    program = tmp_path / "haproxy"
    program.symlink_to(haproxy().path)
    async with (
        Bench(tmp_path) as bench,
        Haproxy(bench.config, bench.folder, program=program) as running,
    ):
        killed = running.pid
        assert killed is not None
        target = program.readlink()
        program.unlink()
        os.kill(killed, signal.SIGKILL)
        await until(lambda: running.restarts > 1)
        program.symlink_to(target)
        await until(lambda: running.pid not in {None, killed})


async def test_a_killed_haproxy_comes_back(tmp_path: Path) -> None:
    """After kill -9 a new HAProxy has the servers and their states without the core."""
    async with (
        Bench(tmp_path, limits=scaled()) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        await bench.unit("b1", one.config.mqtt_port)
        await bench.unit("b2", one.config.mqtt_port)
        bench.drain("b2")
        await role.step()
        bench.core_away = True
        killed = role.haproxy.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await until(lambda: role.haproxy.pid not in {None, killed})
        assert role.haproxy.restarts == 1
        device = await bench.device()
        assert await device.alive()
        await stepping_until(role, lambda status: status.get("b2") == "DRAIN")


async def test_a_restart_without_the_core_has_the_units(tmp_path: Path) -> None:
    """A balancer that starts without the core has the last known units."""
    async with Bench(tmp_path, limits=scaled()) as bench, open_broker(tmp_path / "one") as one:
        await bench.unit("b1", one.config.mqtt_port)
        async with bench.balancer():
            pass
        bench.core_away = True
        async with bench.balancer():
            device = await bench.device()
            assert await device.alive()


async def test_health_is_that_of_the_agent(tmp_path: Path) -> None:
    """A broker whose agent answers 503 keeps its connections and gets no new ones until it answers 200."""
    async with (
        Bench(tmp_path, limits=scaled()) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        agent = await bench.unit("b1", one.config.mqtt_port)
        await role.step()
        device = await bench.device()
        agent.status = 503
        await stepping_until(role, lambda status: status["b1"] == "DOWN")
        assert await bench.try_device() is None
        assert await asyncio.to_thread(_get, bench.config.health_port, "/readyz") == 503
        assert await device.alive()
        agent.status = 200
        await stepping_until(role, lambda status: status["b1"] == "UP")
        assert await asyncio.to_thread(_get, bench.config.health_port, "/readyz") == 200
        assert await (await bench.device()).alive()


async def test_devices_of_an_abandoned_broker_reconnect_to_others(tmp_path: Path) -> None:
    """A broker without heartbeats that fails its checks loses its connections if another one is healthy."""
    async with (
        Bench(tmp_path, limits=scaled()) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        agent = await bench.unit("b1", one.config.mqtt_port)
        await role.step()
        device = await bench.device()
        await bench.unit("b2", one.config.mqtt_port)
        agent.status = 503
        bench.spoke_s["b1"] = bench.now_s - 100
        await stepping_until(role, lambda status: status["b1"] == "DOWN")

        async def is_disconnected() -> bool:
            await role.step()
            return not await device.alive()

        await until(is_disconnected, "the device is disconnected", every_s=0.1)
        assert await (await bench.device()).alive()


async def test_only_mqtt_passes(tmp_path: Path) -> None:
    """A connection that does not start with a CONNECT is closed immediately, an idle one after a while."""
    async with (
        Bench(tmp_path, limits=scaled(first_packet_s=0.5)) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        await bench.unit("b1", one.config.mqtt_port)
        await role.step()

        async def answer(*pieces: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", bench.config.mqtt_port)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.05)  # so that each piece is a packet of its own
            try:
                return await reader.read(4)
            except ConnectionResetError:
                return b""
            finally:
                writer.close()

        good = connect_packet("pieces")
        assert await answer(good[:3], good[3:9], good[9:]) == b"\x20\x02\x00\x00"
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x10\x04abcd", b"\x30\x02\x00\x00", good[:7], b""):
            assert await answer(garbage) == b""
        standing = (await role.haproxy.runtime.query("show stat -1 4 -1")).splitlines()
        columns = dict(zip(standing[0].split(","), standing[1].split(","), strict=False))
        assert columns["stot"] == "1"  # the broker has received only the valid connection


async def test_connections_of_one_address_are_limited(tmp_path: Path) -> None:
    """A burst of connections is accepted at the rate of the limit, and rejected ones do not count."""
    limits = scaled(new_per_address_10s=10, open_per_address=15)
    async with (
        Bench(tmp_path, limits=limits) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        await bench.unit("b1", one.config.mqtt_port)
        await role.step()
        got = [device for device in [await bench.try_device() for _ in range(40)] if device]
        assert len(got) == 10
        # they go on trying, and come in as the window slides; then the other limit holds

        async def enough() -> bool:
            got.extend(device for device in [await bench.try_device()] if device)
            return len(got) >= 15

        await until(enough, "15 devices are let in", every_s=0.05)
        for _ in range(100):
            assert await bench.try_device() is None
            await asyncio.sleep(0.01)  # more of the window passes
        assert all([await device.alive() for device in got])


async def test_unlimited_addresses_have_no_limit(tmp_path: Path) -> None:
    """An address in `unlimited` is not rejected."""
    limits = scaled(new_per_address_10s=3, open_per_address=3, unlimited=("127.0.0.0/8",))
    async with (
        Bench(tmp_path, limits=limits) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        await bench.unit("b1", one.config.mqtt_port)
        await role.step()
        devices = [await bench.device() for _ in range(10)]
        assert all([await device.alive() for device in devices])


async def test_idle_devices_live_within_their_keepalive(tmp_path: Path) -> None:
    """A connection lives while its keepalive is within the limit, and is closed when it is idle for longer."""
    async with (
        Bench(tmp_path, limits=scaled(device_idle_s=4)) as bench,  # a keepalive of 2 s and some
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        await bench.unit("b1", one.config.mqtt_port, one.config.ws_port)
        await role.step()
        device, silent = [await bench.device() for _ in range(2)]
        async with aiomqtt.Client(
            "127.0.0.1",
            bench.ws_port,
            transport="websockets",
            websocket_path="/mqtt",
            keepalive=2,
        ) as client:
            for _ in range(6):
                await asyncio.sleep(1)  # within the keepalive
                assert await device.alive()
            await client.publish("headcount/ul/person/p1/fix", "{}", qos=1)
        assert not await silent.alive()


async def test_mqtt_over_websocket_passes_and_nothing_else_there(tmp_path: Path) -> None:
    """MQTT is at /mqtt; all other paths of the brokers' port, which serve NATS, are not reachable."""
    async with (
        Bench(tmp_path, limits=scaled()) as bench,
        open_broker(tmp_path / "one") as one,
        bench.balancer() as role,
    ):
        await bench.unit("b1", one.config.mqtt_port, one.config.ws_port)
        await role.step()
        async with aiomqtt.Client(
            "127.0.0.1", bench.ws_port, transport="websockets", websocket_path="/mqtt"
        ) as client:
            await client.publish("headcount/ul/person/p1/fix", "{}", qos=1)
        assert await asyncio.to_thread(_get, bench.config.ws_port, "/") == 404


async def test_the_api_receives_the_address_of_the_client(tmp_path: Path) -> None:
    """X-Forwarded-For of a client is replaced by its address, and a ready API is preferred."""
    async with Bench(tmp_path, limits=scaled()) as bench:
        agent = await bench.agent()
        bench.apis = (f"localhost:{agent.port}",)
        async with bench.balancer():
            assert await asyncio.to_thread(_get, bench.config.http_port, "/v1/sites", "1.2.3.4") == 200
            request = next(text for text in agent.requests if b"/v1/sites" in text).lower()
            assert b"x-forwarded-for: 127.0.0.1\r\n" in request
            assert b"1.2.3.4" not in request
            await until(lambda: any(b"/readyz" in text for text in agent.requests))
            await until(lambda: any(b"/healthz" in text for text in agent.requests))


async def test_metrics_are_for_this_machine_in_any_spelling(tmp_path: Path) -> None:
    """From another address /metrics of the API is not found, also percent-encoded."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but its loopback")
        address = sock.getsockname()[0]
    async with Bench(tmp_path, host="0.0.0.0", limits=scaled()) as bench:
        bench.apis = (f"127.0.0.1:{(await bench.agent()).port}",)
        async with bench.balancer():
            for path, status in (
                ("/v1", 200),
                ("/metrics", 404),
                ("/%6detric%73", 404),
                ("/metrics?a", 404),
            ):
                assert await asyncio.to_thread(_get, bench.config.http_port, path, host=address) == status
            assert await asyncio.to_thread(_get, bench.config.http_port, "/metrics") == 200


async def test_tls_is_passed_through(tmp_path: Path) -> None:
    """With TLS the MQTT port accepts connections that start with TLS, and forwards them unchanged."""
    hello = bytes.fromhex("16030100330100002f0303") + bytes(32) + bytes.fromhex("000002130101000004002b0000")
    heard: list[bytes] = []

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.write(b"said by the broker")
        writer.close()

    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    async with Bench(tmp_path, limits=scaled(first_packet_s=0.5)) as bench, server:
        await bench.unit("b1", server.sockets[0].getsockname()[1])
        pair = ensure_server_certificate(tmp_path / "tls", ["localhost"])
        bench.with_tls(TlsFiles(*pair))
        async with bench.balancer():
            for first in (b"\x10\x04abcd", hello):
                reader, writer = await asyncio.open_connection("127.0.0.1", bench.config.mqtt_port)
                writer.write(first)
                said = await reader.read(100)
                writer.close()
            assert said == b"said by the broker"
            assert heard == [hello]


async def test_health_and_metrics_of_the_balancer(tmp_path: Path) -> None:
    """The internal port serves /healthz, and HAProxy's /metrics if it supports them."""
    async with Bench(tmp_path, limits=scaled()) as bench, bench.balancer():
        assert await asyncio.to_thread(_get, bench.config.health_port, "/healthz") == 200
        assert await asyncio.to_thread(_get, bench.config.health_port, "/readyz") == 503
        figures = 200 if (await find_program()).prometheus else 404
        assert await asyncio.to_thread(_get, bench.config.health_port, "/metrics") == figures


async def test_the_socket_is_the_owners(tmp_path: Path) -> None:
    """Only its owner may use the runtime API, and the folder may have a long path."""
    long = tmp_path / ("long" * 30)
    async with Bench(long) as bench, bench.balancer() as role:
        path = bench.folder / SOCKET_FILE
        assert len(str(path)) > 107 or sys.platform != "linux"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(bench.folder.stat().st_mode) == 0o700
        assert await role.haproxy.runtime.pid() == role.haproxy.pid


async def test_the_role_stops_and_reloads_on_signals(tmp_path: Path) -> None:
    """SIGHUP starts a new process; `stop` ends all processes and frees the ports."""
    async with Bench(tmp_path, limits=scaled()) as bench, open_broker(tmp_path / "one") as one:
        await bench.unit("b1", one.config.mqtt_port)
        stop = asyncio.Event()
        running = asyncio.create_task(run(bench.settings(), stop))
        device = await until(bench.try_device, "a device is let in", every_s=0.1)
        before = await bench.pid()
        os.kill(os.getpid(), signal.SIGHUP)

        async def is_replaced() -> bool:
            return await bench.pid() not in {before, 0}

        await until(is_replaced, "a new process")
        assert await device.alive()
        stop.set()
        await running
        assert not await device.alive()
        assert not _runs(before)
        async with bench.balancer():  # the ports and the folder are free again
            pass


async def test_start_errors(tmp_path: Path) -> None:
    """A taken port, a folder in use and an invalid program are errors with their names."""
    async with Bench(tmp_path) as bench, bench.balancer():
        with pytest.raises(DataFolderError, match="another headcount uses it"):
            async with bench.balancer():
                pass
        with pytest.raises(PortTakenError, match="--mqtt-port"):
            async with Haproxy(bench.config, tmp_path / "other"):
                pass
        with pytest.raises(ProxyVersionError, match=r"2\.6"):
            await find_program(Path(sys.executable))


async def test_what_haproxy_refuses_is_an_error(tmp_path: Path) -> None:
    """An unknown server is an error with HAProxy's message, a missing process one with the folder."""
    async with Bench(tmp_path) as bench:
        async with bench.balancer() as role:
            with pytest.raises(ProxyError, match="No such server"):
                await role.haproxy.runtime.execute("set server mqtt/nobody weight 1")
        with pytest.raises(ProxyError, match="did not answer"):
            await role.haproxy.runtime.statuses()


def _get(port: int | None, path: str, forwarded_for: str = "", host: str = "127.0.0.1") -> int:
    address = f"http://{host}:{port}{path}"
    request = urllib.request.Request(address, headers={"X-Forwarded-For": forwarded_for})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own address
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def _runs(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True
