"""The sign of life that a role leaves, and the health check that reads it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from headcount.runtime.health import HANGS_S, problem
from headcount.runtime.heartbeat import beating
from headcount.settings.environment import HEARTBEAT_FILE
from waiting import until


def check(file: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of the check of a container."""
    done = subprocess.run(
        [sys.executable, "-m", "headcount.runtime.health", *arguments],
        env={**os.environ, HEARTBEAT_FILE: str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


async def test_a_role_is_healthy_while_its_loop_runs(tmp_path: Path) -> None:
    """A role without an address is healthy while it touches its file, and not when it has stopped."""
    file = tmp_path / "file"
    async with beating(file):
        await until(file.exists, "the file")
        first = file.stat().st_mtime_ns
        await until(lambda: file.stat().st_mtime_ns != first, "the next heartbeat")
    assert check(file) == (0, "healthy")
    stopped_s = file.stat().st_mtime + HANGS_S + 1
    assert "hangs" in problem(file, stopped_s)
    assert "no sign of life" in problem(tmp_path / "nothing", time.time())


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_a_role_with_an_address_is_asked(status: int, code: int, tmp_path: Path) -> None:
    """The address in the file decides; asked only whether it is alive, the file does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"draining")

        def log_message(self, *_: object) -> None:
            pass

    file = tmp_path / "file"
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file.write_text(f"http://127.0.0.1:{server.server_port}/healthz")
        os.utime(file)  # as the role does, by its own clock
        ended, said = check(file)
        server.shutdown()
    assert ended == code
    assert status == 200 or "503 draining" in said
    assert check(file, "--alive") == (0, "healthy")
    assert check(file)[0] == 1  # no program listens there any more
