"""Tokens and sessions: against a real server, over a copy that follows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headcount.access.access_cache import AccessCache
from headcount.access.roles import Caller, caller, scopes_of
from headcount.access.sessions import SessionStore, caller_of_session
from headcount.access.tokens import TOKEN, TokenStore, caller_of_token
from headcount.cli import main
from headcount.errors import AccessError, UnknownTokenError
from headcount.messaging.connection import Connection
from nats_fixture import PASSWORD, internal_client, open_broker, running_broker
from waiting import BUSY_S, until


@asynccontextmanager
async def copies(folder: Path, number: int = 2) -> AsyncIterator[list[AccessCache]]:
    """Copies of the bucket of as many APIs, on a real broker, each following it."""
    async with open_broker(folder) as broker:
        client = await internal_client(broker)
        kept = [AccessCache(Connection(client)) for _ in range(number)]
        loops = [asyncio.create_task(each.run()) for each in kept]
        try:
            yield kept
        finally:
            for loop in loops:
                loop.cancel()
            await client.close()


async def test_a_token_is_checked_and_revoked_everywhere_in_2_s(tmp_path: Path) -> None:
    """A token is valid at every API when it is created, and rejected within 2 s of its revocation."""

    async def check() -> None:
        async with copies(tmp_path) as kept:
            here, there = (TokenStore(each) for each in kept)
            token, text = await here.add("dashboard", "viewer")
            assert text.startswith(f"hc_{token.id}_")
            found = await there.check(text)
            assert found is not None
            assert found.id == token.id
            assert there.is_still_valid(found)
            assert text.rpartition("_")[2] not in repr(await there.all())
            wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
            for bad in (wrong, text[:-1], f"{text}x", "", "hc_", "hc_aaaaaaaaaaaa_" + text[-43:], "é" * 60):
                assert await there.check(bad) is None
            await here.revoke(token.id)
            assert await here.check(text) is None

            async def is_rejected() -> bool:
                return await there.check(text) is None

            await until(is_rejected, "the other copy rejects the token", BUSY_S)
            assert not there.is_still_valid(found)
            with pytest.raises(AccessError, match="headcount token list"):
                await here.revoke(token.id)

    await check()


async def test_a_token_ends_at_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time a token is refused, without anybody doing anything; it is still listed."""

    async def check() -> None:
        async with copies(tmp_path, 1) as (kept,):
            tokens = TokenStore(kept)
            _, text = await tokens.add("short", "viewer", expires=time.time() + 3600)
            found = await tokens.check(text)
            assert found is not None
            assert tokens.is_still_valid(found)
            now_s = time.time() + 3601
            monkeypatch.setattr(time, "time", lambda: now_s)
            assert not tokens.is_still_valid(found)
            assert await tokens.check(text) is None
            assert len(await tokens.all()) == 1

    await check()


ADMIN = caller("admin", "token a")
ADMIN_HERE = caller("admin", "token b", sites=["ul"])
MAKER = caller("admin", "token c", ["tokens:write", "counts:exact"])


@pytest.mark.parametrize(
    ("by", "wanted", "refused"),
    [
        (ADMIN, {"role": "admin"}, None),
        (ADMIN, {"role": "operator", "scopes": ["tokens:write"]}, "scope tokens:write"),
        (ADMIN, {"role": "public"}, "public"),
        (ADMIN, {"role": "viewer", "name": ""}, "name"),
        (ADMIN, {"role": "viewer", "name": "a\nb"}, "name"),
        (ADMIN, {"role": "viewer", "sites": ["no such/site"]}, "sites"),
        (ADMIN, {"role": "viewer", "expires": 1.0}, "expires"),
        (ADMIN_HERE, {"role": "viewer", "sites": ["ul"]}, None),
        (ADMIN_HERE, {"role": "viewer"}, "sites"),
        (ADMIN_HERE, {"role": "viewer", "sites": ["ul", "dcu"]}, "sites"),
        (MAKER, {"role": "viewer", "scopes": ["counts:exact"]}, None),
        (MAKER, {"role": "viewer"}, "scopes"),
        (MAKER, {"role": "admin"}, "scopes"),
    ],
)
async def test_a_caller_can_only_grant_its_own_permissions(
    tmp_path: Path, by: Caller, wanted: dict[str, Any], refused: str | None
) -> None:
    """A token never has a scope or a site that its maker hasn't, and nothing of it is nonsense."""
    async with copies(tmp_path, 1) as (kept,):
        tokens = TokenStore(kept)
        options = {"name": "x", **wanted}
        if refused is None:
            token, _ = await tokens.add(by=by, **options)
            assert caller_of_token(token).scopes <= by.scopes
        else:
            with pytest.raises(AccessError, match=refused):
                await tokens.add(by=by, **options)
            assert await tokens.all() == []


async def test_tokens_of_others_are_neither_seen_nor_revoked(tmp_path: Path) -> None:
    """A caller sees the tokens of their sites, and cannot revoke one with more rights than their own."""
    async with copies(tmp_path, 1) as (kept,):
        tokens = TokenStore(kept)
        everywhere, _ = await tokens.add("all", "viewer")
        here, _ = await tokens.add("here", "viewer", sites=["ul"])
        assert [token.id for token in await tokens.all(ADMIN_HERE)] == [here.id]
        with pytest.raises(UnknownTokenError):
            await tokens.revoke(everywhere.id, ADMIN_HERE)
        with pytest.raises(AccessError, match="scopes"):
            await tokens.revoke(everywhere.id, MAKER)
        await tokens.revoke(here.id, ADMIN_HERE)
        for nonsense in ("", ">", "*", "x" * 1000):
            with pytest.raises(UnknownTokenError):
                await tokens.revoke(nonsense)
        assert len(await tokens.all()) == 1


async def test_sessions(tmp_path: Path) -> None:
    """A session is known in every API, each has its own value, and ends by logout or for all of a person."""

    async def check() -> None:
        async with copies(tmp_path) as kept:
            here, there = (SessionStore(each) for each in kept)
            opened = [await here.open("sub-1", "Alice", "operator", ["ul"]) for _ in range(3)]
            values = [value for value, _ in opened]
            assert len(set(values)) == 3
            assert len({session.csrf for _, session in opened}) == 3
            found = await there.check(values[0])
            assert found == opened[0][1]
            assert found is not None
            who = caller_of_session(found)
            assert (who.subject, set(who.sites)) == ("person Alice (sub-1)", {"ul"})
            assert who.scopes == scopes_of("operator")
            assert await there.check("A" * 43) is None
            assert await there.check("nonsense") is None
            await here.close(values[0])
            assert await here.check(values[0]) is None
            assert await there.close_all("sub-1", ["other"]) == 0  # who has another site ends none of these
            assert await there.close_all("sub-1") == 2

            async def are_closed() -> bool:
                return not any([await each.check(value) for each in (here, there) for value in values])

            await until(are_closed, "both copies have closed the sessions", BUSY_S)

    await check()


def test_command_line(tmp_path: Path) -> None:
    """`headcount token` makes a token that is printed alone, lists it without its secret, revokes it, writes it down."""
    (tmp_path / "secret").write_text(PASSWORD)
    with running_broker(tmp_path / "broker") as broker:
        where = ["--data", str(tmp_path), "--nats-port", str(broker.config.nats_port)]

        def run(*arguments: str) -> tuple[int, str]:
            result = CliRunner().invoke(main.main, [*arguments, *where])
            return result.exit_code, result.stdout

        code, text = run(
            "token", "add", "Prometheus", "--role", "viewer", "--scope", "system:read", "--site", "ul"
        )
        assert code == 0
        assert TOKEN.fullmatch(text.strip())
        id_, secret = text.strip().split("_", 2)[1:]
        code, listed = run("token", "list")
        assert (code, id_ in listed, "Prometheus" in listed, secret in listed) == (0, True, True, False)
        assert run("token", "add", "x", "--role", "viewer", "--scope", "tokens:write")[0] == 2
        assert run("token", "revoke", id_) == (0, f"Revoked: {id_} (Prometheus)\n")
        assert run("token", "revoke", id_)[0] == 2
        assert run("token", "end-sessions", "nobody") == (0, "Sessions ended: 0\n")
        actions = [line.split()[2] for line in run("audit", "list")[1].splitlines()]
        assert actions == ["session.end", "token.revoke", "token.add"]
    assert run("token", "list")[0] == 2  # no deployment runs
