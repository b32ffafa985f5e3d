"""Positions stay on this machine; headers that browsers keep to."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from nats.aio.msg import Msg

import history_batches
from api_fixture import app_without_broker, ask, open_api, site_with
from headcount.api import access, fixes, shapes
from headcount.wire import iso, partition_of

PRIVATE = ("/v1/sites/ul/fixes", "/v1/sites/ul/devices/person/phone-1")


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize(
    "client", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.7", "localhost.example"]
)
def test_other_machines_get_no_positions(tmp_path: Path, path: str, client: str) -> None:
    """A client of another address gets 403, whatever it says of itself."""
    answer = ask(tmp_path, path, client=client)
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/positions-only-local")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("header", access.PROXY_HEADERS)
def test_proxies_get_no_positions(tmp_path: Path, header: str) -> None:
    """Behind a proxy the loopback address proves nothing: any proxy header means 403."""
    answer = ask(tmp_path, PRIVATE[0], headers={header: "127.0.0.1"})
    assert answer.status_code == 403
    assert header in answer.json()["detail"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[", "8.8.8.8"]
)
def test_rebound_names_get_no_positions(tmp_path: Path, host: str) -> None:
    """A name that somebody else made resolve to the loopback address (DNS rebinding) gets 403."""
    assert ask(tmp_path, PRIVATE[0], headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8080"]
)
def test_other_origins_get_no_positions(tmp_path: Path, origin: str) -> None:
    """A page of another origin in a browser on this machine gets 403."""
    assert ask(tmp_path, PRIVATE[0], headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:80", "[::1]:8080"])
def test_this_machine_gets_positions(tmp_path: Path, client: str, host: str) -> None:
    """A direct request from the loopback address to a loopback name passes."""
    answer = ask(tmp_path, PRIVATE[0], client=client, headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_public_paths_are_open_to_all_origins(tmp_path: Path) -> None:
    """Counts may be read by any page, without credentials, and a preflight says so."""
    answer = ask(tmp_path, "/v1/sites", client="192.0.2.7", headers={"origin": "https://example.org"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    preflight = ask(tmp_path, "/v1/sites", method="OPTIONS", headers={"origin": "https://example.org"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-methods"] == "GET"


def test_every_route_of_positions_is_private(tmp_path: Path) -> None:
    """Each route that gives positions asks for the loopback rule and is closed to other origins."""
    routes = [route for route in fixes.router.routes if isinstance(route, APIRoute)]
    assert len(routes) == 2
    for route in routes:
        assert any(d.dependency is access.require_local for d in route.dependencies), route.path
        assert access.PRIVATE.match(route.path)
    schema = app_without_broker(tmp_path).openapi()
    positions = [path for path, item in schema["paths"].items() if "positions" in item["get"].get("tags", [])]
    assert len(positions) == 2


@pytest.mark.parametrize("path", ["/", "/v1/sites", "/healthz", "/v1/nothing", "/openapi.json"])
def test_security_headers(tmp_path: Path, path: str) -> None:
    """Every answer forbids what pages here don't need."""
    headers = ask(tmp_path, path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_page_without_built_map(tmp_path: Path) -> None:
    """Where the map isn't built, the page says how to build it, loads nothing, and its script is allowed."""
    answer = ask(tmp_path, "/")
    assert answer.status_code == 200
    assert "make web" in answer.text
    assert re.search(r"(src|href)=\"(?!/)", answer.text) is None
    assert "'sha256-" in answer.headers["content-security-policy"]


def test_built_map(tmp_path: Path) -> None:
    """Built files are served; hashed ones are kept for ever, and nothing outside of the folder is reached."""
    (tmp_path / "web" / "assets").mkdir(parents=True)
    (tmp_path / "web" / "index.html").write_text("<h1>map</h1>")
    (tmp_path / "web" / "assets" / "a-1.js").write_text("1")
    (tmp_path / "secret").write_text("secret")
    page = ask(tmp_path, "/")
    assert (page.text, page.headers["cache-control"]) == ("<h1>map</h1>", "no-cache")
    asset = ask(tmp_path, "/assets/a-1.js")
    assert "javascript" in asset.headers["content-type"]
    assert "immutable" in asset.headers["cache-control"]
    for path in (
        "/../secret",
        "/%2e%2e/secret",
        "/assets/..%2f..%2fsecret",
        "/assets/nothing.js",
        "/%00",
        "/assets",
    ):
        answer = ask(tmp_path, path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    assert ask(tmp_path, "/", method="POST").status_code == 405


def test_stored_fixes(tmp_path: Path) -> None:
    """Stored fixes come as GeoJSON, chosen by box, circle, zone or polygon, newest first, up to the limit."""
    now = float(int(time.time()))
    where = {"a": (52.6725, -8.5725), "b": (52.6725, -8.5725), "c": (52.665, -8.57)}
    rows = [
        history_batches.Row(n + 1, now - 60 + n, now - 60 + n, name * 16, "person", lat, lon, 0.0, "accepted")
        for n, (name, (lat, lon)) in enumerate(where.items())
    ]
    (tmp_path / "data").mkdir()
    history_batches.write(tmp_path / "data", history_batches.batch(rows=rows), now_s=now)

    def names(**parameters: Any) -> list[str]:
        answer = ask(tmp_path, "/v1/sites/ul/fixes", params=parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/geo+json"
        found = shapes.FixesShape.model_validate(answer.json())
        assert all(f.properties.acc is None for f in found.features)
        return [f.properties.device[:1] for f in found.features]

    assert names() == ["c", "b", "a"]
    assert names(limit=2) == ["c", "b"]
    assert names(within="library") == ["b", "a"]
    assert names(within=json.dumps(site_with(1).geojson["features"][1]["geometry"])) == ["b", "a"]
    assert names(bbox="-8.58,52.66,-8.56,52.67") == ["c"]
    assert names(near="52.6725,-8.5725,10") == ["b", "a"]
    assert names(kind="vehicle") == []
    assert names(at=iso(now - 59.5)) == ["a"]
    assert names(**{"from": iso(now - 59), "to": str(now - 59)}) == ["b"]
    assert ask(tmp_path, "/v1/sites/ul/fixes?limit=2").json()["truncated"] is True


def test_device_is_asked_of_its_worker(tmp_path: Path) -> None:
    """A device's state comes from the worker of its partition; unknown devices and silent workers are told."""

    async def check() -> None:
        async with open_api(tmp_path) as api:
            path = "/v1/sites/ul/devices/person/phone-1"
            silent = await api.get(path)
            assert (silent.status_code, silent.json()["type"]) == (503, "/problems/no-answer")
            state: dict[str, Any] = {
                "present": True, "zones": ["site", "library"], "last_t": 1795525198.0, "lat": 52.67, "lon": -8.57,
                "acc": 5.0, "offline": False, "last_verdict": "accepted", "verdicts": {"accepted": 3},
            }  # fmt: skip

            async def answer(question: Msg) -> None:
                asked = json.loads(question.data)
                known = asked == {"kind": "person", "device": "phone-1"}
                await question.respond(json.dumps(state if known else {}).encode())

            for device in ("phone-1", "nobody"):
                partition = partition_of("ul", device, api.sources.partitions)
                await api.nats.subscribe(f"ask.{partition}", cb=answer)
            await api.nats.flush()
            found = await api.json(path)
            shapes.DeviceShape.model_validate(found)
            assert found["last_t"] == "2026-11-24T12:59:58.000Z"
            assert {**state, "last_t": None} == {**{k: found[k] for k in state}, "last_t": None}
            unknown = await api.get("/v1/sites/ul/devices/person/nobody")
            assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/unknown-device")

    asyncio.run(check())
