"""Sign in on the web page with a one-time link or a token, against a real server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from api_fixture import Api, open_api
from headcount.cli.main import main
from headcount.messages.records import AccessRole
from headcount.services.actors import COMMAND_LINE
from system.running import Up
from waiting import until, wait_until

CLOSED: dict[str, Any] = {"open": False, "smallest_shown": 5}


async def new_link(api: Api, role: AccessRole = "operator", sites: tuple[str, ...] = ()) -> str:
    """The code of a new link."""
    _, code = await api.services.sessions.create_link(COMMAND_LINE, role, sites, 600)
    return code


async def sign_in(api: Api, origin: str | None = None, **body: str) -> httpx.Response:
    """The answer to the page's form."""
    return await api.http.post("/login", json=body, headers={"origin": origin or api.base})


async def actions(api: Api) -> list[tuple[str, str]]:
    """Actor and action of all audit entries, the oldest first."""
    return [(entry.actor, entry.action) for entry in reversed((await api.services.audit_log.entries())[0])]


async def test_a_link_signs_one_browser_in(tmp_path: Path) -> None:
    """The first use opens an operator's session in a cookie that scripts cannot read; a second use is rejected."""
    async with open_api(tmp_path, **CLOSED) as api:
        await api.services.access_cache.refresh()
        code = await new_link(api, sites=("ul",))
        answers = await asyncio.gather(*(sign_in(api, code=code) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [204, 403, 403, 403, 403]
        (opened,) = (answer for answer in answers if answer.status_code == 204)
        assert "httponly" in opened.headers["set-cookie"].lower()
        who = await api.json("/v1/whoami")
        assert (who["role"], who["sites"], who["name"]) == ("operator", ["ul"], "One-time link")
        assert "counts:exact" in who["scopes"]
        out = await api.http.post("/logout", headers={"origin": api.base, "headcount-csrf": who["csrf"]})
        assert out.status_code == 204
        api.http.cookies.clear()
        assert (await api.json("/v1/whoami"))["role"] == "public"
        written = await actions(api)
        assert [action for _, action in written] == ["session.link", "session.login", "session.logout"]
        assert written[0][0] == "command line"
        assert written[1][0] == written[2][0] == who["subject"]
        assert who["subject"].startswith("link ")


async def test_an_expired_link_is_rejected(tmp_path: Path) -> None:
    """After its time, a link opens nothing."""
    async with open_api(tmp_path, **CLOSED) as api:
        link, code = await api.services.sessions.create_link(COMMAND_LINE, "viewer", (), 1)
        await until(lambda: _past(link.expires))
        answer = await sign_in(api, code=code)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/login-failed")


async def _past(at_s: float) -> bool:
    return time.time() > at_s


async def test_a_token_opens_a_session_that_ends_with_it(tmp_path: Path) -> None:
    """The session has exactly the token's rights, and its cookie is rejected within 2 s after the token is revoked."""
    async with open_api(tmp_path, **CLOSED) as api:
        token, text = await api.services.tokens.add(COMMAND_LINE, "desk", "viewer", scopes=["counts:exact"])
        assert (await sign_in(api, token=text)).status_code == 204
        who = await api.json("/v1/whoami")
        assert (who["subject"], who["scopes"], who["name"]) == (f"token {token.id}", ["counts:exact"], "desk")
        await api.services.tokens.revoke(COMMAND_LINE, token.id)

        async def rejected() -> bool:
            return (await api.get("/v1/whoami")).status_code == 401

        await until(rejected)


async def test_only_the_page_signs_in(tmp_path: Path) -> None:
    """Another origin, none at all, and what is neither code nor token are rejected, and use up nothing."""
    async with open_api(tmp_path, **CLOSED) as api:
        code = await new_link(api)
        assert (await sign_in(api, "https://evil.example", code=code)).status_code == 403
        assert (await api.http.post("/login", json={"code": code})).status_code == 403
        assert (
            await api.http.post("/login", data={"code": code}, headers={"origin": api.base})
        ).status_code == 422
        assert (await sign_in(api)).status_code == 422
        assert (await sign_in(api, code=code, token="x")).status_code == 422  # noqa: S106
        assert (await sign_in(api, token="nonsense")).json()["type"] == "/problems/login-failed"  # noqa: S106
        assert (await sign_in(api, code=code)).status_code == 204


async def test_guesses_are_limited_and_block_no_valid_link(tmp_path: Path) -> None:
    """After many failures guesses get 429, while a valid link from the same address still works."""
    async with open_api(tmp_path, **CLOSED) as api:
        code = await new_link(api)
        seen = {(await sign_in(api, code="a" * 43)).status_code for _ in range(40)}
        assert seen == {403, 429}
        assert (await sign_in(api, code=code)).status_code == 204


@pytest.mark.slow
def test_login_link_on_a_running_deployment(tmp_path: Path) -> None:
    """`headcount login-link` prints an address whose code is in the fragment; it gives exact counts once, unlogged."""
    with Up(tmp_path, open=False) as up:
        wait_until(up.is_ready, "the counts are live")
        command = [
            sys.executable,
            "-m",
            "headcount",
            "login-link",
            "--role",
            "viewer",
            "--data",
            str(up.data),
        ]
        ports = ["--nats-port", str(up.ports["nats"]), "--http-port", str(up.ports["http"])]
        done = subprocess.run(
            [*command, *ports], capture_output=True, text=True, timeout=120, check=False, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        base, _, code = done.stdout.strip().partition("/#login=")
        assert base == f"http://127.0.0.1:{up.ports['http']}"
        with httpx.Client(base_url=base, trust_env=False, timeout=60) as http:
            assert http.post("/login", json={"code": code}, headers={"origin": base}).status_code == 204
            counts = http.get("/v1/sites/ul/counts").json()
            assert counts["zones"][0]["person"]["low"] == 0  # the public gets null
            again = http.post("/login", json={"code": code}, headers={"origin": base})
            assert again.status_code == 403
        assert code not in up.output.read_text()
        for file in up.data.rglob("*"):
            assert not file.is_file() or code.encode() not in file.read_bytes(), file


def test_the_time_of_a_link_is_limited() -> None:
    """A time beyond a day is an error of the command line."""
    done = CliRunner().invoke(main, ["login-link", "--within", "2d"])
    assert done.exit_code == 2
    assert "--within" in done.output
