"""A real RabbitMQ with its MQTT plug-in for a test: on free ports, in the test's own folder, gone at the end.

with RabbitMq(tmp_path) as rabbitmq:
    rabbitmq.port, rabbitmq.mqtt_port
    rabbitmq.kill()     # SIGKILL
    rabbitmq.start()    # again, with what it stored
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from headcount.runtime.ports import free_ports
from waiting import LIMIT_S, wait_until

_SERVERS = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))

needs_rabbitmq = pytest.mark.skipif(not _SERVERS, reason="rabbitmq-server is not installed")


class RabbitMq:
    """A broker with the user `guest`, and its own Erlang port mapper."""

    def __init__(self, folder: Path) -> None:
        """Write its configuration."""
        self.folder = folder / "rabbitmq"
        self.folder.mkdir()
        self.port, self.mqtt_port, self._dist_port, self._epmd_port = free_ports(4)
        self.process: subprocess.Popen[bytes] | None = None
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"mqtt.listeners.tcp.default = 127.0.0.1:{self.mqtt_port}\n"
            "mqtt.allow_anonymous = true\n"
            "loopback_users.guest = true\n"
        )
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")

    def __enter__(self) -> Self:
        print(f"RabbitMQ {_SERVERS[-1].parents[1].name.partition('-')[2]}")
        # the server would start one that outlives it
        self._epmd = subprocess.Popen(["epmd", "-port", str(self._epmd_port)], env=self._environment())
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._epmd.kill()
        self._epmd.wait()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [_SERVERS[-1]], env=self._environment(), stdout=output, stderr=output, process_group=0
            )
        wait_until(self._accepts, "RabbitMQ starts", LIMIT_S, 0.2)

    def kill(self) -> None:
        """Kill it with everything that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(LIMIT_S)
            self.process = None

    def _accepts(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "output").read_text()
        with suppress(OSError):
            for port in (self.port, self.mqtt_port):
                socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": f"{folder}/log/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
