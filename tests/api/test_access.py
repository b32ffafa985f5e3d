"""Requests from this machine where everything is open; headers for browsers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from api_fixture import ask
from headcount.api.middleware import local_request

LOCAL = "/v1/sites/ul/devices/person/phone-1"


def is_operator(folder: Path, **options: Any) -> bool:
    """Whether the caller is an operator where everything is open, as programs on this machine are."""
    answer = ask(folder, "/v1/whoami", **options)
    assert answer.status_code == 200
    return bool(answer.json()["role"] == "operator")


@pytest.mark.parametrize(
    "client", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.7", "localhost.example"]
)
def test_other_machines_are_not_this_one(tmp_path: Path, client: str) -> None:
    """A client of another address is a viewer at most, whatever its headers claim, and reads no positions."""
    assert not is_operator(tmp_path, client=client)
    answer = ask(tmp_path, LOCAL, client=client, headers={"headcount-reason": "because"})
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not-allowed")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("header", local_request.PROXY_HEADERS)
def test_proxies_are_not_this_machine(tmp_path: Path, header: str) -> None:
    """Behind a proxy the loopback address proves nothing."""
    assert not is_operator(tmp_path, headers={header: "127.0.0.1"})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[", "8.8.8.8"]
)
def test_rebound_names_are_not_this_machine(tmp_path: Path, host: str) -> None:
    """A foreign name that was made to resolve to the loopback address (DNS rebinding) proves nothing."""
    assert not is_operator(tmp_path, headers={"host": host})


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8080"]
)
def test_other_origins_are_not_this_machine(tmp_path: Path, origin: str) -> None:
    """A page of another origin in a browser on this machine isn't a program on it."""
    assert not is_operator(tmp_path, headers={"origin": origin})


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:80", "[::1]:8080"])
def test_this_machine_is_operator_where_all_is_open(tmp_path: Path, client: str, host: str) -> None:
    """A direct request from the loopback address to a loopback name is an operator's, with --open only."""
    headers = {"host": host, "origin": f"http://{host}"}
    assert is_operator(tmp_path, client=client, headers=headers)
    assert not is_operator(tmp_path, client=client, headers=headers, changes={"open": False})


def test_pages_of_all_origins_may_ask_without_rights_of_their_own(tmp_path: Path) -> None:
    """Counts may be read by any page, without credentials; what isn't for everybody only with a token."""
    answer = ask(tmp_path, "/v1/sites", client="192.0.2.7", headers={"origin": "https://example.org"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    private = ask(tmp_path, "/v1/whoami", headers={"origin": "https://example.org"})
    assert "access-control-allow-origin" not in private.headers
    preflight = ask(tmp_path, "/v1/sites", method="OPTIONS", headers={"origin": "https://example.org"})
    assert preflight.status_code == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "headcount-csrf" not in preflight.headers["access-control-allow-headers"]


def test_tls_stays(tmp_path: Path) -> None:
    """Over TLS, and through our own balancer that ends it, browsers get an HSTS header."""
    assert "strict-transport-security" not in ask(tmp_path, "/").headers
    assert "strict-transport-security" in ask(tmp_path, "/", base_url="https://127.0.0.1").headers
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
    assert "strict-transport-security" in ask(tmp_path, "/", headers=forwarded).headers
    assert (
        "strict-transport-security" not in ask(tmp_path, "/", headers=forwarded, client="192.0.2.7").headers
    )


@pytest.mark.parametrize("path", ["/", "/v1/sites", "/healthz", "/v1/nothing", "/openapi.json"])
def test_security_headers(tmp_path: Path, path: str) -> None:
    """Every answer forbids what pages here don't need."""
    headers = ask(tmp_path, path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_page_without_built_map(tmp_path: Path) -> None:
    """Where the map isn't built, the page explains how to build it, loads nothing, and its script is allowed."""
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


PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("path", "status"), [("/login", 404), ("/login/callback?state=%3Cb%3E", 404), ("/%3Cb%3E", 404)]
)
def test_failures_of_pages_are_pages(tmp_path: Path, path: str, status: int) -> None:
    """A browser gets a page with the reason and a way on, programs a problem document; nothing of the path is HTML."""
    page = ask(tmp_path, path, headers=PAGE, changes={"open": False})
    assert page.status_code == status
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>" in page.text
    assert '<a href="/">' in page.text
    assert "<b>" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    program = ask(tmp_path, path, changes={"open": False})
    assert program.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("path", ["/v1/sites/moon", "/readyz", "/problems/none"])
def test_failures_of_the_api_are_problem_documents(tmp_path: Path, path: str) -> None:
    """The API answers with JSON also in a browser."""
    answer = ask(tmp_path, path, headers=PAGE)
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_only_listed_pages_may_show_the_map_in_a_frame(tmp_path: Path) -> None:
    """The map allows the origins of the setting, other pages none; by default nothing does."""
    (tmp_path / "web").mkdir()
    for name in ("index.html", "me.html"):
        (tmp_path / "web" / name).write_text("page")
    listed = {"embed_origins": ("https://www.example.edu",)}
    allowed = "frame-ancestors 'self' https://www.example.edu"
    assert allowed in ask(tmp_path, "/", changes=listed).headers["content-security-policy"]
    for path, changes in (("/me", listed), ("/v1/sites", listed), ("/", {})):
        policy = ask(tmp_path, path, changes=changes).headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
