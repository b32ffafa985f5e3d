"""The sign of life that a role leaves, and the health check that reads it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from headcount.runtime.health import HANGS_S, PULSE, problem
from headcount.runtime.heartbeat import beating


def check(pulse: Path, *arguments: str) -> tuple[int, str]:
    """What the check of a container ends with and says."""
    done = subprocess.run(
        [sys.executable, "-m", "headcount.runtime.health", *arguments],
        env={**os.environ, PULSE: str(pulse)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_role_is_healthy_while_its_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role without an address is healthy while it touches its file, and not when it has stopped."""
    pulse = tmp_path / "pulse"
    monkeypatch.setenv(PULSE, str(pulse))

    async def role() -> None:
        async with beating():
            await asyncio.sleep(0.2)
            first = pulse.stat().st_mtime_ns
            while pulse.stat().st_mtime_ns == first:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    asyncio.run(role())
    assert check(pulse) == (0, "healthy")
    stopped_s = pulse.stat().st_mtime + HANGS_S + 1
    assert "hangs" in problem(pulse, stopped_s)
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

    pulse = tmp_path / "pulse"
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pulse.write_text(f"http://127.0.0.1:{server.server_port}/healthz")
        os.utime(pulse)  # as the role does, by its own clock
        ended, said = check(pulse)
        server.shutdown()
    assert ended == code
    assert status == 200 or "503 draining" in said
    assert check(pulse, "--alive") == (0, "healthy")
    assert check(pulse)[0] == 1  # nobody listens there any more
