"""Logging in with an identity provider: a real one (oidc-provider, in Node.js), and one that cheats."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import waiting
from api_fixture import Api, ask, open_api
from headcount.access.oidc import OidcClient, person
from headcount.access.oidc_provider import OidcProvider
from headcount.errors import AccessError
from headcount.runtime.ports import free_ports
from waiting import LIMIT_S

FOLDER = Path(__file__).resolve().parents[1] / "oidc"
CLOSED: dict[str, Any] = {"open": False, "smallest_shown": 5}


@pytest.fixture(scope="module")
def program() -> list[str]:
    """How to start the provider; its packages are installed at the first time."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm and node are needed for an identity provider")
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():

        async def install() -> int | None:
            options = ["--no-audit", "--no-fund", "--ignore-scripts"]
            process = await asyncio.create_subprocess_exec("npm", "ci", *options, cwd=FOLDER)
            return await process.wait()

        if asyncio.run(install()) != 0:
            pytest.skip("npm can't install oidc-provider here")
    return ["node", str(FOLDER / "server.mjs")]


@contextlib.asynccontextmanager
async def provider_and_api(program: list[str], folder: Path) -> AsyncIterator[tuple[Api, httpx.AsyncClient]]:
    """A provider and an API that believes it, and a browser."""
    port, public = free_ports(2)
    # The API's port is unknown before it listens: browsers get another address, which is mapped here.
    public_url = f"http://127.0.0.1:{public}"
    process = await asyncio.create_subprocess_exec(
        *program,
        str(port),
        f"{public_url}/login/callback",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(120):
            assert await process.stdout.readline() == b"ready\n"
        known = OidcProvider(f"http://127.0.0.1:{port}", "headcount", "a secret of tests & more: 7%+7")
        async with (
            open_api(folder, oidc=known, public_url=public_url, **CLOSED) as api,
            httpx.AsyncClient(timeout=60, trust_env=False) as browser,
        ):
            yield api, browser
    finally:
        process.terminate()
        await process.wait()


async def follow(
    api: Api, browser: httpx.AsyncClient, url: str, *, login: str = "alice", until: str = ""
) -> httpx.Response:
    """Go where a browser is sent from an address, log in when asked, and stop before an address with `until`."""
    public = api.settings.public_url
    while True:
        answer = await browser.get(url.replace(public, api.base))
        if answer.status_code in (302, 303):
            url = str(answer.url.join(answer.headers["location"]))
        elif answer.status_code == 200 and "/interaction/" in url and "login=" not in url:
            url = f"{url}?login={login}"
        else:
            return answer
        if until and until in url:
            return answer


async def callback(api: Api, browser: httpx.AsyncClient, login: str = "alice") -> str:
    """The address to which the provider sends the browser back, not yet gone to."""
    answer = await follow(api, browser, f"{api.base}/login", login=login, until="/login/callback")
    return str(answer.headers["location"]).replace(api.settings.public_url, api.base)


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    """A problem's status and detail."""
    return answer.status_code, answer.json()["detail"]


async def test_login_as_a_browser_does(tmp_path: Path, program: list[str]) -> None:
    """A person who logs in has the role of their group and a new session, which ends at logout."""
    async with provider_and_api(program, tmp_path) as (api, browser):
        assert (await api.json("/v1/whoami"))["login"] is True
        fixed = {"headcount": "A" * 43}
        browser.cookies.update(fixed)
        last = await callback(api, browser)
        begun = await browser.get(f"{api.base}/login", params={"next": "/?zone=library"})
        assert begun.headers["cache-control"] == "private, no-store"
        query = parse_qs(urlsplit(begun.headers["location"]).query)
        assert query["code_challenge_method"] == ["S256"]
        assert {"state", "nonce", "code_challenge"} <= set(query)
        last = str(
            (await follow(api, browser, begun.headers["location"], until="/login/callback")).headers[
                "location"
            ]
        )
        answer = await browser.get(last.replace(api.settings.public_url, api.base))
        assert (answer.status_code, answer.headers["location"]) == (303, "/?zone=library")
        session = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("headcount="))
        for attribute in ("HttpOnly", "SameSite=lax", "Path=/"):
            assert attribute in session
        value = session.partition("=")[2].partition(";")[0]
        assert value != fixed["headcount"]
        cookie = {"cookie": f"headcount={value}"}
        who = await api.json("/v1/whoami", headers=cookie)
        assert (who["role"], who["name"], who["subject"]) == ("operator", "alice", "person alice (alice)")
        assert "positions:read" in who["scopes"]
        entry = (await api.services.audit_log.entries())[0][0]
        assert (entry.action, entry.actor) == ("session.login", "person alice (alice)")
        origin = {"origin": api.settings.public_url, "headcount-csrf": who["csrf"]}
        assert (await api.http.post("/logout", headers=cookie | origin)).status_code == 204
        assert (await api.get("/v1/whoami", headers=cookie)).status_code == 401


async def test_what_is_refused_at_the_end_of_a_login(tmp_path: Path, program: list[str]) -> None:
    """Another state, another browser, a code twice, a denial, a person without a role: the login is rejected."""
    async with provider_and_api(program, tmp_path) as (api, browser):
        last = await callback(api, browser)
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as other:
            status, detail = problem_of(await other.get(last))
            assert (status, "was not started in this browser" in detail) == (403, True)
            await other.get(f"{api.base}/login")
            status, detail = problem_of(await other.get(last))
            assert (status, "The state does not match" in detail) == (403, True)
        wrong = last.replace("state=", "state=x")
        assert problem_of(await browser.get(wrong))[0] == 403
        began = dict(browser.cookies)
        assert (await browser.get(last)).status_code == 303
        browser.cookies.clear()
        browser.cookies.update({k: v for k, v in began.items() if k.endswith("-login")})
        status, detail = problem_of(await browser.get(last))  # the code once more
        assert (status, "rejects the code" in detail) == (403, True)
        status, detail = problem_of(await browser.get(await callback(api, browser, "")))
        assert (status, "access_denied" in detail) == (403, True)
        browser.cookies.clear()
        status, detail = problem_of(await browser.get(await callback(api, browser, "mallory")))
        assert (status, "grants you no role" in detail) == (403, True)
        assert "headcount" not in browser.cookies
        assert [entry.action for entry in (await api.services.audit_log.entries())[0]] == ["session.login"]
        browser.cookies.clear()
        answer = await browser.get(await callback(api, browser, "bob"))
        assert answer.status_code == 303
        value = browser.cookies["headcount"]
        who = await api.json("/v1/whoami", headers={"cookie": f"headcount={value}"})
        assert (who["role"], who["sites"]) == ("viewer", ["moon", "ul"])


# --- a provider that cheats ----------------------------------------------------------------------
KEY = RSAKey.generate_key(2048, {"kid": "a"})
OTHER = RSAKey.generate_key(2048, {"kid": "a"})


class Cheat:
    """A provider that signs any claims."""

    def __init__(self, port: int) -> None:
        """Serve at a port of this machine."""
        self.issuer = f"http://127.0.0.1:{port}"
        self.sign: Callable[[dict[str, Any]], Any] = signed
        self.claims: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self.nonce = ""
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/keys", self._keys),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    async def _discovery(self, _: Request) -> JSONResponse:
        here = self.issuer
        said = {"issuer": here, "authorization_endpoint": f"{here}/auth", "token_endpoint": f"{here}/token"}
        return JSONResponse({**said, "jwks_uri": f"{here}/keys", **self.discovery})

    async def _keys(self, _: Request) -> JSONResponse:
        return JSONResponse({"keys": [KEY.as_dict(private=False)]})

    async def _token(self, request: Request) -> JSONResponse:
        form = parse_qs((await request.body()).decode())
        assert len(form["code_verifier"][0]) >= 43
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": "headcount", "sub": "s", "nonce": self.nonce, "iat": now, "exp": now + 300,
            "groups": ["headcount-viewer"],
        }  # fmt: skip
        claims = {name: value for name, value in (claims | self.claims).items() if value is not None}
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": self.sign(claims)})


def signed(claims: dict[str, Any], key: Any = KEY, algorithm: str = "RS256") -> str:
    """An ID token."""
    return jwt.encode({"alg": algorithm, "kid": "a"}, claims, key, algorithms=[algorithm])


def unsigned(claims: dict[str, Any]) -> str:
    """An ID token with the algorithm `none`."""
    _, body, _ = signed(claims).split(".")
    return f"eyJhbGciOiJub25lIiwia2lkIjoiYSJ9.{body}."


def keyed_with_what_is_public(claims: dict[str, Any]) -> str:
    """An ID token with an HMAC, whose key is the provider's public key."""
    public = KEY.as_pem(private=False)
    return signed(claims, OctKey.import_key(public.hex()), "HS256")


NOW = int(time.time())
CHEATS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    "another issuer": ({"iss": "http://127.0.0.1:1"}, signed),
    "no issuer": ({"iss": None}, signed),
    "another audience": ({"aud": "other"}, signed),
    "no audience": ({"aud": None}, signed),
    "more than one audience": ({"aud": ["headcount", "other"]}, signed),
    "made out to another": ({"azp": "other"}, signed),
    "over": ({"exp": NOW - 3600}, signed),
    "no end": ({"exp": None}, signed),
    "another nonce": ({"nonce": "x"}, signed),
    "no nonce": ({"nonce": None}, signed),
    "no subject": ({"sub": None}, signed),
    "another key": ({}, lambda claims: signed(claims, OTHER)),
    "no signature": ({}, unsigned),
    "keyed with what is public": ({}, keyed_with_what_is_public),
    "no token": ({}, lambda _: None),
    "nonsense": ({}, lambda _: "a.b.c"),
    "a number": ({}, lambda _: 7),
}


@contextlib.asynccontextmanager
async def cheating() -> AsyncIterator[tuple[Cheat, OidcClient]]:
    """A provider that cheats, and logins that believe it."""
    (port,) = free_ports(1)
    cheat = Cheat(port)
    server = uvicorn.Server(uvicorn.Config(cheat.app, port=port, log_config=None, ws="none"))
    serving = asyncio.create_task(server.serve())
    try:
        await waiting.until(lambda: server.started, "the provider listens")
        yield cheat, OidcClient(OidcProvider(cheat.issuer, "headcount", "s"), "a secret of tests")
    finally:
        server.should_exit = True
        await serving


async def ended(cheat: Cheat, login: OidcClient, **more: str) -> tuple[Any, str]:
    """Begin and end a login."""
    begun = await login.start("http://127.0.0.1:1/login/callback", "/")
    query = parse_qs(urlsplit(begun.url).query)
    cheat.nonce = query["nonce"][0]
    return await login.finish({"state": query["state"][0], "code": "c", **more}, begun.cookie)


async def test_id_tokens_that_are_not_for_us_are_refused() -> None:
    """Each kind of invalid ID token is rejected; a valid one is accepted."""
    async with cheating() as (cheat, login):
        found, _ = await ended(cheat, login)
        assert (found.role, found.subject) == ("viewer", "s")
        for name, (claims, sign) in CHEATS.items():
            cheat.claims, cheat.sign = claims, sign
            with pytest.raises(AccessError, match="login: "):
                pytest.fail(f"{name}: {await ended(cheat, login)}")
        cheat.claims, cheat.sign = {}, signed
        with pytest.raises(AccessError, match="another identity provider"):
            await ended(cheat, login, iss="http://127.0.0.1:1")
        assert await ended(cheat, login, iss=cheat.issuer)


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "file:///etc/passwd"},
        {"error": "no"},
    ],
)
async def test_the_metadata_of_a_provider_is_checked(said: dict[str, Any]) -> None:
    """A provider under another name, or with addresses that aren't the web's, isn't used."""
    async with cheating() as (cheat, login):
        cheat.discovery = said
        with pytest.raises(AccessError, match="identity provider"):
            await ended(cheat, login)


async def test_metadata_does_not_configure_our_client() -> None:
    """A provider cannot set options of our HTTP client, such as its proxy, by its metadata."""
    async with cheating() as (cheat, login):
        cheat.discovery = {
            "proxy": "http://127.0.0.1:1",
            "timeout": "none",
            "code_challenge_method": "plain",
        }
        assert await ended(cheat, login)


@pytest.mark.parametrize(
    ("groups", "role", "sites"),
    [
        (["headcount-viewer"], "viewer", ()),
        ("headcount-admin", "admin", ()),
        (["headcount-viewer", "headcount-operator-ul"], "operator", ("ul",)),
        (["headcount-operator-ul", "headcount-operator-a-b"], "operator", ("a-b", "ul")),
        (["headcount-operator-ul", "headcount-operator"], "operator", ()),
        (["headcount-", "viewer", "headcount-viewer-", "headcount-viewer-a/b", 7, None], None, ()),
        (["HEADCOUNT-ADMIN", "headcount-admins", " headcount-admin"], None, ()),
        ({"headcount-admin": 1}, None, ()),
        (None, None, ()),
    ],
)
def test_groups_give_roles(groups: Any, role: str | None, sites: tuple[str, ...]) -> None:
    """`headcount-<role>` and `headcount-<role>-<site>` give a role, the highest counts, nothing else does."""
    claims = {"sub": "s", "groups": groups}
    if role is None:
        with pytest.raises(AccessError, match="'groups'"):
            person(claims, "groups")
    else:
        found = person(claims, "groups")
        assert (found.role, found.sites) == (role, sites)


def test_logging_in_needs_a_provider(tmp_path: Path) -> None:
    """Without settings for it, /login is 404 `no-login`."""
    for path in ("/login", "/login/callback"):
        answer = ask(tmp_path, path)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/no-login")


@pytest.mark.parametrize(
    "next_path", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a\nb"]
)
async def test_login_leads_back_to_our_own_pages_only(next_path: str, tmp_path: Path) -> None:
    """Where a login ends is a path of ours, whatever the address that began it asked for."""
    async with cheating() as (cheat, _):
        known = OidcProvider(cheat.issuer, "headcount", "s")
        async with open_api(tmp_path, oidc=known, **CLOSED) as api:
            begun = await api.get("/login", params={"next": next_path})
            assert begun.status_code == 303
            query = parse_qs(urlsplit(begun.headers["location"]).query)
            cheat.nonce = query["nonce"][0]
            end = {"state": query["state"][0], "code": "c"}
            answer = await api.get("/login/callback", params=end)
            assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.usefixtures("no_refill")
async def test_failed_logins_are_limited_and_good_ones_are_not(tmp_path: Path) -> None:
    """After twenty failures an address gets 429 for the next, while any number of people there can log in."""
    async with cheating() as (cheat, _):
        known = OidcProvider(cheat.issuer, "headcount", "s")
        async with open_api(tmp_path, oidc=known, **CLOSED) as api:
            failing = [(await api.get("/login/callback?state=x")).status_code for _ in range(22)]
            assert failing == [failing[0]] * 20 + [429] * 2
            assert failing[0] in range(400, 429)
            for _ in range(25):
                begun = await api.get("/login")
                query = parse_qs(urlsplit(begun.headers["location"]).query)
                cheat.nonce = query["nonce"][0]
                end = {"state": query["state"][0], "code": "c"}
                assert (await api.get("/login/callback", params=end)).status_code == 303
                api.http.cookies.clear()
