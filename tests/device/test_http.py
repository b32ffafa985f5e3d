"""Answers over HTTP that a device must understand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from device.make_vectors import LAT, LON, sites
from headcount.device import DeviceClient, DevicePosition, credentials_of, run
from headcount.errors import DeviceLibraryError
from headcount.runtime.ports import free_port
from waiting import wait_until


class ScriptedApi(ThreadingHTTPServer):
    """An API that gives prepared answers to fixes, and then stores all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        #: Status, headers and verdict of the next answers.
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.requests: list[tuple[float, dict[str, str], Any]] = []


class ScriptedHandler(BaseHTTPRequestHandler):
    """One connection of a device."""

    server: ScriptedApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # named by the library
        """Answer with the site."""
        self._answer(200, {}, sites()["campus"])

    def do_POST(self) -> None:
        """Answer as prepared."""
        fixes = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((time.monotonic(), dict(self.headers), fixes))
        status, headers, verdict = self.server.answers.pop(0) if self.server.answers else (200, {}, "stored")
        self._answer(
            status,
            headers,
            {"type": "/problems/fixes-rejected", "fixes": [{"verdict": verdict}] * len(fixes)},
        )
        self.close_connection = True  # as a server does with idle connections, without notice

    def _answer(self, status: int, headers: dict[str, str], body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """A running API."""
    server = ScriptedApi()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def device_of(api: ScriptedApi) -> DeviceClient:
    """A device of this API."""
    account = {"device": "phone", "secret": "secret", "site": "campus", "kind": "person"}
    url = f"http://127.0.0.1:{api.server_address[1]}"
    return DeviceClient(credentials_of({**account, "url": url}, "test"), transport="http")


def report(device: DeviceClient, *seconds: float) -> None:
    """Report positions on site."""
    for t in seconds:
        device.report(DevicePosition(1_795_532_400 + t, LAT, LON, 5))


def test_fixes_are_repeated_after_the_time_that_the_server_names(api: ScriptedApi) -> None:
    """After 429 and 503, the same fixes are sent again, not before Retry-After, with the same key."""
    api.answers = [(429, {"Retry-After": "1"}, ""), (503, {}, "")]
    with device_of(api) as device:
        wait_until(lambda: device.status.knows_site, "the site")
        report(device, 0)
        wait_until(lambda: device.status.acknowledged == 1, "the fix is stored")
        report(device, 100)
        wait_until(
            lambda: device.status.acknowledged == 2, "an idle connection that was closed is opened again"
        )
    (one, headers, fixes), (two, *_), (_, again, repeated), (*_, later) = api.requests
    assert two - one >= 1
    assert fixes == repeated
    assert fixes[0]["tst"] == 1_795_532_400
    assert later[0]["tst"] == 1_795_532_500
    assert headers["Idempotency-Key"] == again["Idempotency-Key"]
    assert headers["Authorization"] == "Basic cGhvbmU6c2VjcmV0"


@pytest.mark.parametrize("status", [207, 422])
def test_fixes_that_can_never_be_stored_are_not_repeated(api: ScriptedApi, status: int) -> None:
    """A verdict other than `stored` is final, and counted."""
    api.answers = [(status, {}, "inactive")]
    with device_of(api) as device:
        report(device, 0)
        wait_until(lambda: device.status.refused == 1, "the verdict")
        assert device.status.waiting == 0
    assert len(api.requests) == 1


def test_a_redirect_is_not_followed(api: ScriptedApi) -> None:
    """Credentials never go to another address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), ScriptedHandler) as other:
        api.answers = [(307, {"Location": f"http://127.0.0.1:{other.server_address[1]}/v1/fixes"}, "")]
        device = device_of(api)
        device.start()
        report(device, 0)
        wait_until(lambda: device.status.problem, "the refusal")
        device.close()
    assert all(headers["Host"].endswith(str(api.server_address[1])) for _, headers, _ in api.requests)


def test_fixes_that_cannot_be_delivered_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends with undelivered fixes in memory fails; with a file, it succeeds and retains them."""
    monkeypatch.setattr(run, "FLUSH_END_S", 0.3)
    account = {"device": "phone", "secret": "secret", "site": "campus", "kind": "person"}
    url = f"http://127.0.0.1:{free_port(0)}"
    position = DevicePosition(1_795_532_400, LAT, LON)
    for buffer in (None, tmp_path / "fixes.db"):
        device = DeviceClient(
            credentials_of({**account, "url": url}, "test"), transport="http", buffer=buffer
        )
        if buffer is None:
            with pytest.raises(DeviceLibraryError, match=r"^1 fixes: could not be delivered: .*refused"):
                run.report_all(device, iter([position]), threading.Event(), print)
        else:
            text = run.report_all(device, iter([position]), threading.Event(), print)
            assert "1 positions, site unknown, 1 reported, 0 delivered, 1 waiting" in text
