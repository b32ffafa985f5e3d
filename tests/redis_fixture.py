"""A real Redis server for tests: on a free port, every write on disk before its answer.

with running_redis(folder) as redis:       # skips where no redis-server is installed
    redis.client().xadd("fixes", {...})
    redis.kill(); redis.start()            # what it has confirmed stays
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from headcount.runtime.ports import free_ports
from headcount.tls.certificates import ensure_server_certificate

#: The account that clients with TLS use, with the rights that the guide lists; without TLS they need none.
USER, PASSWORD = "bridge", "a-password-for-tests-only"
_COMMANDS = ("+xgroup", "+xreadgroup", "+xack", "+xautoclaim", "+client", "+select")
_START_S = 60.0


class RedisServer:
    """A server with its folder; it can be killed and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        """Choose a port; `start` starts the server."""
        self._port, self._tls_port = free_ports(2)
        self.url, self.tls_url = f"redis://127.0.0.1:{self._port}", f"rediss://127.0.0.1:{self._tls_port}"
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = ensure_server_certificate(folder, ["127.0.0.1"])

    def start(self) -> None:
        """Start the server and wait until it has loaded its file."""
        command = [
            self._program,
            "--port",
            str(self._port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._folder),
        ]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        command += ["--tls-port", str(self._tls_port), "--tls-auth-clients", "no"]
        command += ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(self._key)]
        command += ["--tls-ca-cert-file", str(self.certificate)]
        command += ["--user", USER, "on", f">{PASSWORD}", "~*", *_COMMANDS]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + _START_S
        while True:
            try:
                self.client().ping()
            except (redis.ConnectionError, redis.BusyLoadingError):
                text = (self._folder / "redis.log").read_text()[-2000:]
                assert self._process.poll() is None, text
                assert time.monotonic() < deadline_s, text
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill the server without a shutdown."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        """A client with all rights."""
        return redis.Redis.from_url(self.url, decode_responses=True)


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """A server in a folder; its version is printed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server is installed")
    server = RedisServer(program, folder)
    try:
        server.start()
        print(f"Redis {server.client().info('server')['redis_version']}")
        yield server
    finally:
        server.kill()
