"""How much is sent: compression of pages, documents and streams, revalidation, and HEAD."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from pathlib import Path

import httpx
import pytest

from api_fixture import app_without_broker, ask, open_api, site_with
from headcount.api import openapi
from headcount.api.api_settings import WEB


def plain_and_compressed(folder: Path, path: str, **changes: object) -> tuple[int, int]:
    """The bytes of a path's body for clients without and with compression."""
    sizes = []
    for coding in ("identity", "gzip"):
        answer = ask(folder, path, headers={"accept-encoding": coding}, changes=changes)
        assert answer.status_code == 200
        assert answer.headers.get("content-encoding", "identity") == coding
        assert "Accept-Encoding" in answer.headers["vary"]
        sizes.append(int(answer.headers["content-length"]))
    print(f"{path}: {sizes[0]} bytes, compressed {sizes[1]}")
    return sizes[0], sizes[1]


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/sites/ul"])
def test_documents_are_compressed(tmp_path: Path, path: str) -> None:
    """Documents take at most a third of their size."""
    plain, compressed = plain_and_compressed(tmp_path, path, site=site_with(80))
    assert compressed < plain / 3


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/sites", "/v1/sites/ul"])
def test_unchanged_documents_are_not_sent_again(tmp_path: Path, path: str) -> None:
    """A browser that has the document gets 304 and no body."""
    first = ask(tmp_path, path)
    assert first.headers["cache-control"] == "no-cache"
    again = ask(tmp_path, path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert ask(tmp_path, path, headers={"if-none-match": '"other"'}).status_code == 200


def test_files_are_served_as_the_build_compressed_them(tmp_path: Path) -> None:
    """Brotli where the browser accepts it, then gzip, else the file; each with its own ETag, revalidated by it."""
    assets = tmp_path / "web" / "assets"
    assets.mkdir(parents=True)
    for suffix, content in (("", b"let a;"), (".br", b"brotli"), (".gz", gzip.compress(b"let a;"))):
        (assets / f"a-1.js{suffix}").write_bytes(content)
    etags = set()
    for accepted, coding in (("br, gzip", "br"), ("gzip", "gzip"), ("identity", None)):
        answer = raw(tmp_path, "/assets/a-1.js", accepted)
        assert answer.headers.get("content-encoding") == coding
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "Accept-Encoding" in answer.headers["vary"]
        etags.add(answer.headers["etag"])
        known = {"accept-encoding": accepted, "if-none-match": answer.headers["etag"]}
        assert ask(tmp_path, "/assets/a-1.js", headers=known).status_code == 304
    assert len(etags) == 3


def raw(folder: Path, path: str, accepted: str) -> httpx.Response:
    """An answer whose body is not decoded."""

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app_without_broker(folder), client=("127.0.0.1", 1))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as http,
            http.stream("GET", path, headers={"accept-encoding": accepted}) as answer,
        ):
            return answer

    return asyncio.run(get())


@pytest.mark.skipif(not (WEB / "index.html").exists(), reason="the map is not built: make web")
def test_built_pages_are_small(tmp_path: Path) -> None:
    """All that the map loads is below 450 kB; /docs and its licence come with the package, from this server only."""
    files = [file for file in WEB.rglob("*") if file.suffix in (".js", ".css", ".html")]
    shown = [file for file in files if not file.name.startswith(("docs", "me"))]
    plain, packed = (sum(Path(f"{f}{suffix}").stat().st_size for f in shown) for suffix in ("", ".br"))
    print(f"the map: {plain} bytes, compressed {packed}")
    assert packed < 450_000
    docs = ask(tmp_path, "/docs", changes={"web": WEB})
    assert docs.status_code == 200
    assert "//" not in docs.text.replace("<!doctype html>", "")
    assert "Apache License" in (WEB / "assets" / "swagger-ui-LICENSE.txt").read_text()


async def test_streams_are_compressed_event_by_event(tmp_path: Path) -> None:
    """A stream takes at most a third of the bytes, and every event can be read as soon as it is sent."""
    async with open_api(tmp_path, zones=80) as api:
        sizes = {}
        for coding in ("identity", "gzip"):
            at = await api.count({"site": (5, 1)})
            received, decoded = b"", b""
            unpack = zlib.decompressobj(31)
            headers = {"accept-encoding": coding}
            async with (
                asyncio.timeout(60),
                api.http.stream("GET", "/v1/sites/ul/stream?every=0.1", headers=headers) as answer,
            ):
                assert answer.headers.get("content-encoding", "identity") == coding
                async for chunk in answer.aiter_raw():
                    received += chunk
                    decoded += chunk if coding == "identity" else unpack.decompress(chunk)
                    events = decoded.count(b"event: counts")
                    if decoded.endswith(b"\n\n") and events == 3:
                        break
                    if decoded.endswith(b"\n\n") and events:
                        # the next one is not published before this one was received completely
                        numbers = {zone.id: (events + 1, events + 2) for zone in api.site.zones}
                        at = await api.count(numbers)
            assert at
            sizes[coding] = len(received)
        print(f"three events with 81 zones: {sizes['identity']} bytes, compressed {sizes['gzip']}")
        assert sizes["gzip"] < sizes["identity"] / 3
        counts = {}
        for coding in sizes:
            answer = await api.get("/v1/sites/ul/counts", headers={"accept-encoding": coding})
            counts[coding] = int(answer.headers["content-length"])
        print(f"counts of 81 zones: {counts['identity']} bytes, compressed {counts['gzip']}")
        assert counts["gzip"] < counts["identity"] / 3


async def test_head_wherever_get_is(tmp_path: Path) -> None:
    """HEAD returns status and headers of GET without a body, also where GET is a stream that does not end."""
    async with open_api(tmp_path, web=tmp_path) as api:
        await api.count({"site": (5, 1)})
        paths = ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/sites/ul/stream"]
        app = app_without_broker(tmp_path)
        paths += [
            route.path.replace("{site}", "ul").replace("{zone}", "library")
            for route in openapi.routes(app)
            if "GET" in (route.methods or ())
        ]
        for path in paths:
            head = await asyncio.wait_for(api.http.head(path), 60)
            assert head.content == b""
            async with api.http.stream("GET", path) as got:
                assert head.status_code == got.status_code, path
                assert head.headers.get("content-type") == got.headers.get("content-type"), path
        assert (await api.http.head("/healthz")).status_code == 200
        assert (await api.http.head("/v1/sites/ul/counts")).status_code == 200
