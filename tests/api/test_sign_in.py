"""Signing in over HTTP: tokens, sessions with their cookies, limits; against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api_fixture import Api, ask, open_api
from headcount.access.audit_log import AuditLog
from headcount.access.client_address import parse_networks
from headcount.api.schemas import access, audit
from headcount.messages.records import AccessRole
from headcount.messaging.connection import Connection
from waiting import BUSY_S, until

CLOSED: dict[str, Any] = {"open": False, "smallest_shown": 5}
NONSENSE = [
    {"authorization": "Bearer nonsense"},
    {"authorization": f"Bearer hc_{'a' * 12}_{'b' * 43}"},
    {"authorization": "Bearer"},
    {"authorization": "Basic YTpi"},
    {"authorization": ""},
    {"cookie": "headcount=nonsense"},
    {"cookie": f"headcount={'a' * 43}"},
]


async def bearer(api: Api, role: AccessRole, **options: Any) -> dict[str, str]:
    """The header of a new token."""
    _, text = await api.services.token_store.add("test", role, **options)
    return {"authorization": f"Bearer {text}"}


async def logged_in(api: Api, role: AccessRole = "admin", sites: tuple[str, ...] = ()) -> tuple[str, str]:
    """The cookie and the CSRF token of a new session."""
    value, session = await api.services.session_store.open("sub-1", "Alice", role, sites)
    return f"headcount={value}", session.csrf


async def test_what_is_no_token_is_refused_everywhere(tmp_path: Path) -> None:
    """A wrong token or session is 401 on public endpoints, too, and never becomes the public's answer."""
    async with open_api(tmp_path, **CLOSED) as api:
        for path in ("/v1/sites", "/healthz", "/openapi.json", "/v1/tokens", "/metrics", "/v1/whoami"):
            for headers in NONSENSE:
                answer = await api.get(path, headers=headers)
                while answer.status_code == 503:  # the API has no answer from the core yet
                    answer = await api.get(path, headers=headers)
                if "cookie" in headers and path == "/healthz":
                    continue
                assert answer.status_code in (401, 429), (path, headers)
                assert answer.headers["cache-control"].startswith(("no-store", "private"))
        cookie = await api.get("/", headers={"cookie": "headcount=nonsense"})
        assert cookie.status_code in (200, 404)


async def test_tokens_over_http(tmp_path: Path) -> None:
    """Tokens are made, shown once, listed without secrets, revoked within 2 s, and all of it is written down."""
    async with open_api(tmp_path, **CLOSED) as api:
        admin = await bearer(api, "admin")
        wanted = {"name": "Prometheus", "role": "viewer", "scopes": ["system:read"]}
        made = await api.http.post("/v1/tokens", json=wanted, headers=admin)
        assert made.status_code == 201, made.text
        token = access.TokenCreatedResponse.model_validate(made.json())
        own = {"authorization": f"Bearer {token.token}"}
        listed = await api.json("/v1/tokens", headers=admin)
        assert len(listed["tokens"]) == 2
        assert token.token.rpartition("_")[2] not in str(listed)
        assert (await api.get("/metrics", headers=own)).status_code == 200
        assert (await api.get("/v1/system/scaling", headers=own)).status_code == 404
        assert (await api.get("/v1/tokens", headers=own)).status_code == 403
        who = access.WhoAmIResponse.model_validate(await api.json("/v1/whoami", headers=own))
        assert (who.role, who.scopes, who.csrf) == ("viewer", ["system:read"], None)
        revoked = await api.http.delete(f"/v1/tokens/{token.id}", headers=admin)
        assert (revoked.status_code, revoked.content) == (204, b"")
        assert (await api.get("/metrics", headers=own)).status_code == 401
        again = await api.http.delete(f"/v1/tokens/{token.id}", headers=admin)
        assert again.json()["type"] == "/problems/unknown-token"
        actions = [entry.action for entry in (await api.services.audit_log.entries())[0]]
        assert actions == ["token.revoke", "token.add"]


async def test_a_token_has_no_more_permissions_than_its_creator(tmp_path: Path) -> None:
    """403 for scopes and sites that one hasn't; 422 for what is no role, scope, site or time."""
    async with open_api(tmp_path, **CLOSED) as api:
        maker = await bearer(api, "admin", scopes=["tokens:write", "counts:exact"], sites=["ul"])
        elsewhere = await bearer(api, "admin", sites=["moon"])
        for headers, wanted, status in (
            (maker, {"role": "viewer", "scopes": ["counts:exact"], "sites": ["ul"]}, 201),
            (maker, {"role": "viewer", "sites": ["ul"]}, 403),
            (maker, {"role": "admin", "sites": ["ul"]}, 403),
            (maker, {"role": "viewer", "scopes": ["counts:exact"]}, 403),
            (maker, {"role": "viewer", "scopes": ["tokens:write"], "sites": ["ul"]}, 422),
            (maker, {"role": "king"}, 422),
            (maker, {"role": "viewer", "scopes": ["nonsense"]}, 422),
            (maker, {"role": "viewer", "sites": ["a/b"]}, 422),
            (maker, {"role": "viewer", "expires": "2020-01-01T00:00:00Z"}, 422),
            (maker, {"role": "viewer", "more": 1}, 422),
            (elsewhere, {"role": "viewer", "sites": ["moon"]}, 403),
            ({}, {"role": "viewer"}, 401),
        ):
            answer = await api.http.post("/v1/tokens", json={"name": "x", **wanted}, headers=headers)
            assert answer.status_code == status, (wanted, answer.text)


def test_tokens_in_addresses_are_refused(tmp_path: Path) -> None:
    """A token in a query is a problem of its own, whatever the parameter is called, even a good one."""
    text = f"hc_{'a' * 12}_{'b' * 43}"
    for query in ("access_token=x", f"token={text}", f"anything=Bearer%20{text}", f"a=1&reason={text}"):
        answer = ask(tmp_path, f"/v1/sites?{query}")
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/token-in-url"), query
        assert text not in answer.text
    harmless = ask(tmp_path, "/v1/sites?every=hc_1")
    assert (harmless.status_code, harmless.json()["type"]) == (422, "/problems/invalid-parameter")


async def test_changing_with_a_cookie_needs_our_own_page(tmp_path: Path) -> None:
    """With a session, what changes something needs its CSRF token and our origin; reading needs neither."""
    async with open_api(tmp_path, **CLOSED) as api:
        cookie, csrf = await logged_in(api)
        who = await api.json("/v1/whoami", headers={"cookie": cookie})
        assert (who["subject"], who["csrf"]) == ("person Alice (sub-1)", csrf)
        answer = await api.get("/v1/tokens", headers={"cookie": cookie, "origin": "https://evil.example"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cache-control"] == "private, no-store"
        assert "Cookie" in answer.headers["vary"]
        body = {"name": "x", "role": "viewer"}
        for headers, status in (
            ({}, 403),
            ({"headcount-csrf": csrf}, 403),
            ({"origin": api.base}, 403),
            ({"origin": api.base, "headcount-csrf": csrf[:-1]}, 403),
            ({"origin": "https://evil.example", "headcount-csrf": csrf}, 403),
            ({"origin": "null", "headcount-csrf": csrf}, 403),
            ({"origin": api.base.replace("http:", "https:"), "headcount-csrf": csrf}, 403),
            ({"origin": api.base, "headcount-csrf": csrf}, 201),
        ):
            answer = await api.http.post("/v1/tokens", json=body, headers={"cookie": cookie, **headers})
            assert answer.status_code == status, headers
        token = await bearer(api, "admin")
        answer = await api.http.post(
            "/v1/tokens", json=body, headers={**token, "origin": "https://x.example"}
        )
        assert answer.status_code == 201  # a token isn't sent by itself
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_logout_ends_the_session(tmp_path: Path) -> None:
    """After logout the cookie is 401, in the page it is cleared; others can end all sessions of a person."""
    async with open_api(tmp_path, **CLOSED) as api:
        cookie, csrf = await logged_in(api)
        other, _ = await logged_in(api)
        headers = {"cookie": cookie, "origin": api.base, "headcount-csrf": csrf}
        assert (await api.http.post("/logout", headers={"cookie": cookie})).status_code == 403
        answer = await api.http.post("/logout", headers=headers)
        assert answer.status_code == 204
        assert "Max-Age=0" in answer.headers["set-cookie"]
        over = await api.get("/v1/sites", headers={"cookie": cookie})
        assert over.status_code == 401
        assert "Max-Age=0" in over.headers["set-cookie"]
        assert (await api.get("/v1/sites", headers={"cookie": other})).status_code == 200
        admin = await bearer(api, "admin")
        ended = await api.http.post("/v1/sessions/end", json={"subject": "sub-1"}, headers=admin)
        assert ended.json() == {"ended": 1}
        assert (await api.get("/v1/sites", headers={"cookie": other})).status_code == 401


def test_cookies_over_tls_are_bound_to_the_host(tmp_path: Path) -> None:
    """Over TLS only the cookie with the prefix `__Host-` counts, and it is cleared as a secure one."""
    for name, refused in (("__Host-headcount", True), ("headcount", False)):
        answer = ask(
            tmp_path,
            "/v1/sites",
            base_url="https://127.0.0.1",
            headers={"cookie": f"{name}=nonsense"},
            changes=CLOSED,
        )
        assert (answer.status_code == 401) is refused
        if refused:
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith('__Host-headcount="";')
            for attribute in ("Path=/", "HttpOnly", "SameSite=lax", "Secure"):
                assert attribute in cookie


async def test_the_audit_log_over_http(tmp_path: Path) -> None:
    """Admins read it in pages and detect forged entries; others may not read it."""
    async with open_api(tmp_path, **CLOSED) as api:
        admin = await bearer(api, "admin")
        operator = await bearer(api, "operator")
        for path in ("/v1/audit", "/v1/audit/verify"):
            assert (await api.get(path)).status_code == 401
            assert (await api.get(path, headers=operator)).status_code == 403
        for n in range(5):
            await api.services.audit_log.record("device.add", "command line", str(n))
        page = audit.AuditListResponse.model_validate(await api.json("/v1/audit?limit=3", headers=admin))
        assert ([entry.n for entry in page.entries], page.before) == ([5, 4, 3], 3)
        rest = await api.json(f"/v1/audit?before={page.before}&action=device", headers=admin)
        assert [entry["n"] for entry in rest["entries"]] == [2, 1]
        found = audit.AuditVerificationResponse.model_validate(
            await api.json("/v1/audit/verify", headers=admin)
        )
        assert (found.intact, found.entries) == (True, 5)
        forger = AuditLog(Connection(api.nats), "another secret")
        await forger.record("device.add", "command line")
        found = audit.AuditVerificationResponse.model_validate(
            await api.json("/v1/audit/verify", params={"from_head": found.head}, headers=admin)
        )
        assert [problem.entry for problem in found.problems] == [6]
        for bad in ("limit=0", "before=x", "action=A", "action=a..b"):
            assert (await api.get(f"/v1/audit?{bad}", headers=admin)).status_code == 422


@contextlib.asynccontextmanager
async def stream(api: Api, headers: dict[str, str]) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of a live stream."""
    async with api.http.stream("GET", "/v1/sites/ul/stream", headers=headers) as answer:
        assert answer.status_code == 200
        yield answer.aiter_lines()


async def _end(lines: AsyncIterator[str]) -> None:
    async for _ in lines:
        pass


async def _receive(socket: websockets.ClientConnection) -> None:
    while True:
        await socket.recv()


async def test_streams_end_when_their_token_or_session_does(tmp_path: Path) -> None:
    """A live stream and a WebSocket are cut off within 2 s of the revocation; others go on."""
    async with open_api(tmp_path, ping_s=0.2, **CLOSED) as api:
        admin = await bearer(api, "admin")
        token, text = await api.services.token_store.add("test", "viewer")
        cookie, _ = await logged_in(api)
        own = {"authorization": f"Bearer {text}"}
        url = f"{api.base.replace('http:', 'ws:')}/v1/sites/ul/ws"
        async with (
            stream(api, own) as mine,
            stream(api, {"cookie": cookie}) as session,
            stream(api, {}) as public,
            websockets.connect(url, additional_headers=own) as socket,
        ):
            for lines in (mine, session, public):
                assert (await anext(lines)).startswith("retry")
            await api.http.delete(f"/v1/tokens/{token.id}", headers=admin)
            start = time.monotonic()
            async with asyncio.timeout(BUSY_S):
                await _end(mine)
                with pytest.raises(ConnectionClosed) as closed:
                    await _receive(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert time.monotonic() - start < BUSY_S
            await api.http.post("/v1/sessions/end", json={"subject": "sub-1"}, headers=admin)
            async with asyncio.timeout(BUSY_S):
                await _end(session)
            assert await anext(public) is not None


async def test_websockets_sign_in_as_requests_do(tmp_path: Path) -> None:
    """A wrong token is 401 on a WebSocket; a session's cookie only counts from our own pages."""
    async with open_api(tmp_path, **CLOSED) as api:
        cookie, _ = await logged_in(api)
        url = f"{api.base.replace('http:', 'ws:')}/v1/sites/ul/ws"

        async def status(headers: dict[str, str], origin: str | None = None) -> int:
            try:
                async with websockets.connect(url, additional_headers=headers, origin=origin):  # type: ignore[arg-type]
                    return 101
            except InvalidStatus as error:
                return error.response.status_code

        assert await status({}) == 101
        assert await status(await bearer(api, "viewer")) == 101
        assert await status({"authorization": "Bearer nonsense"}) == 401
        assert await status({"cookie": cookie}, "https://evil.example") == 403
        assert await status({"cookie": cookie}) == 403
        assert await status({"cookie": cookie}, api.base) == 101


@pytest.mark.usefixtures("no_refill")
async def test_each_address_and_token_has_a_rate_limit(tmp_path: Path) -> None:
    """Beyond the limit: 429 with Retry-After, by address behind our balancer, and by token wherever it is used."""
    limits = {"requests_per_s": 0.4, "trusted": parse_networks("10.0.0.0/8"), **CLOSED}
    async with open_api(tmp_path, **limits) as api:

        async def statuses(number: int, **headers: str) -> list[int]:
            return [(await api.get("/v1/sites", headers=headers)).status_code for _ in range(number)]

        assert set(await statuses(20)) == {200}  # this machine's own programs
        assert await statuses(3, **{"x-forwarded-for": "192.0.2.1"}) == [200, 200, 429]
        assert await statuses(1, **{"x-forwarded-for": "192.0.2.2"}) == [200]
        answer = await api.get("/v1/sites", headers={"x-forwarded-for": "192.0.2.1"})
        assert answer.json()["type"] == "/problems/too-many-requests"
        assert int(answer.headers["retry-after"]) >= 1
        answer = await api.get("/v1/sites", headers={"x-forwarded-for": "192.0.2.3"})
        assert answer.headers["ratelimit-policy"] == '"address";q=2;w=5'
        assert answer.headers["ratelimit"].startswith('"address";r=1;')
        token = await bearer(api, "viewer")
        assert await statuses(2, **token) == [200, 200]
        assert await statuses(1, **token, **{"x-forwarded-for": "192.0.2.9"}) == [429]
        assert (await api.get("/healthz", headers={"x-forwarded-for": "192.0.2.1"})).status_code == 200


@pytest.mark.usefixtures("no_refill")
async def test_failed_sign_ins_are_limited_and_good_ones_are_not(tmp_path: Path) -> None:
    """After twenty failures an address gets 429 for the next, while a good token from there still works."""
    async with open_api(tmp_path, **CLOSED) as api:
        token = await bearer(api, "viewer")
        bad = {"authorization": f"Bearer hc_{'a' * 12}_{'b' * 43}"}
        statuses = [(await api.get("/v1/sites", headers=bad)).status_code for _ in range(25)]
        assert statuses == [401] * 20 + [429] * 5

        async def works() -> bool:  # once the API's copy of the tokens has it
            return (await api.get("/v1/sites", headers=token)).status_code == 200

        await until(works)
        assert (await api.get("/v1/sites")).status_code == 200


@pytest.mark.usefixtures("no_refill")
async def test_the_host_header_does_not_affect_the_path(tmp_path: Path) -> None:
    """A host name with a path in it neither lifts the limits nor hides a wrong token."""
    async with open_api(tmp_path, requests_per_s=0.4, **CLOSED) as api:
        for host in ("x/healthz?", "x/v1/me/", "x/v1/provision?"):
            bad = {"host": host, "authorization": "Bearer nonsense"}
            assert (await api.get("/v1/tokens", headers=bad)).status_code in (400, 401)
        statuses = [
            (
                await api.get("/v1/sites", headers={"host": "x/healthz?", "x-forwarded-for": "192.0.2.1"})
            ).status_code
            for _ in range(4)
        ]
        assert set(statuses) <= {200, 400, 429}
        assert 200 not in statuses[2:]


async def test_sessions_and_devices_do_not_meet(tmp_path: Path) -> None:
    """Where devices show their own credentials, a session's cookie neither counts nor asks for its CSRF token."""
    async with open_api(tmp_path, **CLOSED) as api:
        cookie, _ = await logged_in(api)
        answer = await api.http.post("/v1/me/resume", headers={"cookie": cookie})
        assert answer.status_code == 401
        assert answer.json()["type"] != "/problems/cross-site"


async def test_bodies_have_a_limit(tmp_path: Path) -> None:
    """A body with too large a Content-Length is 413 immediately; without one, reading stops at the limit."""
    async with open_api(tmp_path, **CLOSED) as api:
        admin = await bearer(api, "admin")
        told = await api.http.post("/v1/tokens", content=b" " * (2 << 20), headers=admin)
        assert (told.status_code, told.json()["type"]) == (413, "/problems/too-long")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b" " * (64 << 10)

        untold = await api.http.post("/v1/tokens", content=chunks(), headers=admin)
        assert (untold.status_code, untold.json()["type"]) == (413, "/problems/too-long")
        assert (await api.get("/v1/sites")).status_code == 200


def test_the_public_does_not_see_what_is_missing(tmp_path: Path) -> None:
    """Whether it is ready anybody learns; what is missing, those who may see the system."""
    public = ask(tmp_path, "/readyz", changes=CLOSED).json()
    viewer = ask(tmp_path, "/readyz").json()
    assert public["status"] == viewer["status"] == 503
    assert "partition" not in public["detail"]
    assert "partition" in viewer["detail"]


@pytest.mark.parametrize("path", ["/metrics", "/v1/system/scaling"])
def test_the_system_is_for_those_who_may(tmp_path: Path, path: str) -> None:
    """Metrics and the fleet are 401 for the public."""
    assert ask(tmp_path, path, changes=CLOSED).status_code == 401
