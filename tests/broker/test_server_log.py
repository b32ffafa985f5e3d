"""The server's log reports events without identifying clients."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.broker.core import Broker
from headcount.broker.nats_config import Limits
from headcount.broker.server_log import keep_log, without_names
from headcount.errors import BrokerError
from nats_fixture import config_for, open_broker

HEAD = '[7] 2026/11/24 22:58:34.309783 [{}] 127.0.0.1:42907 - mid:187 - "{}" - {}'


@given(st.text(min_size=8), st.sampled_from(["ERR", "WRN", "INF", "DBG"]))
def test_no_name_of_a_connection_is_written(name: str, level: str) -> None:
    """The name of a client is removed from its log line."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    line = HEAD.format(level, quoted, f'authentication error - User "{quoted}"').encode(errors="replace")
    told = without_names(line).decode(errors="replace")
    assert told == HEAD.format(level, "…", 'authentication error - User "…"')


def test_messages_about_the_server_itself_are_kept() -> None:
    """Paths and names of streams stay in the log; a handle is removed everywhere."""
    line = b'[7] 2026/11/24 22:58:34.309783 [INF]   Store Directory: "/data/jetstream"'
    assert without_names(line) == line
    assert b"k7wqz2mfa5ujxh3teyn4" not in without_names(line + b" k7wqz2mfa5ujxh3teyn4")
    session = b'[7] 2026/11/24 22:58:34.309783 [ERR] for account "HEADCOUNT", session "Zaphod"'
    assert b"Zaphod" not in without_names(session)


async def refused(port: int, user: str, name: str) -> None:
    """A client that isn't let in."""
    with suppress(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", port, username=user, password="wrong", identifier=name):  # noqa: S106
            pass


async def test_the_log_of_a_real_server_has_no_device_ids(tmp_path: Path) -> None:
    """The log reports refused and replaced clients without their names."""
    async with open_broker(tmp_path) as broker:
        port = broker.config.mqtt_port
        async with asyncio.TaskGroup() as attempts:
            for user in ("Zaphod-user", "k7wqz2mfa5ujxh3teyn4"):
                attempts.create_task(refused(port, user, f"Trillian-{user}"))
        # the second client with this id replaces the first
        async with aiomqtt.Client("127.0.0.1", port, identifier="Ford"):
            with suppress(aiomqtt.MqttError):
                async with aiomqtt.Client("127.0.0.1", port, identifier="Ford"):
                    pass
    said = (tmp_path / "broker.log").read_text()
    assert "Server is ready" in said
    assert "authentication error" in said
    assert not [name for name in ("Zaphod", "Trillian", "Ford", "k7wqz2mfa5ujxh3teyn4") if name in said]


async def test_the_log_is_rotated(tmp_path: Path) -> None:
    """The log is renamed at its size, and the configured number of old logs stays."""
    source = asyncio.StreamReader()
    source.feed_data(b"".join(b"[1] line %d\n" % number for number in range(1000)))
    source.feed_data(b"x" * 200_000 + b"\n[1] the end\n")
    source.feed_eof()
    await keep_log(source, tmp_path / "broker.log", Limits(max_log_bytes=2000, max_logs=2))
    assert {path.name for path in tmp_path.iterdir()} == {"broker.log", "broker.log.1", "broker.log.2"}
    assert (tmp_path / "broker.log").read_text().endswith("the end\n")


async def test_the_reason_for_a_failed_start_is_kept(tmp_path: Path) -> None:
    """The error contains the server's last output."""

    async def check() -> None:
        config = config_for(tmp_path)
        (tmp_path / "jetstream").write_text("in the way")
        async with Broker(config):
            pass

    with pytest.raises(BrokerError, match="storage directory"):
        await check()


async def test_a_full_disk_is_one_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines of the server that cannot be written are reported once, and not as tracebacks."""
    source = asyncio.StreamReader()
    source.feed_data(b"[1] 2026/11/28 07:00:00.000000 [INF] Server is ready\n" * 50)
    source.feed_eof()
    await keep_log(source, Path("/dev/full"), Limits())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "/dev/full cannot be written ([Errno 28] No space left on device)" in caplog.text
    assert capsys.readouterr().err == ""
