"""`headcount token`: what programs sign in with at the API and at the MQTT door."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import click
from rich.console import Console
from rich.table import Table

from headcount.access.access_cache import AccessCache
from headcount.access.audit_log import AuditLog
from headcount.access.roles import SCOPES
from headcount.access.sessions import SessionStore
from headcount.access.tokens import TokenStore, is_valid
from headcount.cli.core import at_the_core, core_options
from headcount.messages.records import ACCESS_ROLES, AccessRole, ApiToken
from headcount.roles.secret import secret_of
from headcount.settings.deployment import Settings

DAY_S = 86_400
#: Of the audit log: whoever has the deployment's secret.
ACTOR = "command line"
T = TypeVar("T")


@click.group("token")
def token() -> None:
    """API tokens: add, list, revoke.

    \b
    headcount token add dashboard --role viewer
    headcount token add prometheus --role viewer --scope system:read --days 0
    headcount token list
    headcount token revoke k3vq2hbw5yxa

    They are for programs, at the API (`Authorization: Bearer hc_…`) and over MQTT (user `token`, password
    the token). People log in on the web page.
    """


@token.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ACCESS_ROLES[1:]),
    required=True,
    help="viewer: numbers as they are; operator: also positions and devices; admin: also tokens.",
)
@click.option("--site", "sites", multiple=True, help="Only this site; may be given more than once.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="Only this of what the role may; may be given more than once.",
)
@click.option(
    "--days", type=click.IntRange(0, 3650), default=365, show_default=True, help="How long; 0 = for ever."
)
@core_options
def add(
    name: str,
    role: AccessRole,
    sites: tuple[str, ...],
    scopes: tuple[str, ...],
    days: int,
    settings: Settings,
) -> None:
    """Make a token. It is printed here and never again."""
    expires = time.time() + days * DAY_S if days else None

    async def work(tokens: TokenStore, audit: AuditLog) -> str:
        made, text = await tokens.add(name, role, sites=sites, scopes=scopes, expires=expires)
        detail = {"role": role, "sites": ", ".join(made.sites), "scopes": ", ".join(made.scopes)}
        await audit.record("token.add", ACTOR, f"token {made.id}", detail)
        return text

    click.echo(_with_tokens(settings, work))
    click.echo("Keep it where only its program reads it: it isn't shown again.", err=True)


@token.command("list")
@core_options
def list_(settings: Settings) -> None:
    """All tokens, without their secrets."""

    async def work(tokens: TokenStore, _: AuditLog) -> list[ApiToken]:
        return await tokens.all()

    table = Table("id", "name", "role", "sites", "scopes", "made", "until", box=None)
    for each in _with_tokens(settings, work):
        until = "always" if each.expires is None else _day(each.expires)
        scopes, sites = ", ".join(each.scopes) or "all of it", ", ".join(each.sites) or "all"
        over = "" if is_valid(each) else " (over)"
        table.add_row(each.id, each.name, each.role, sites, scopes, _day(each.created), until + over)
    Console(soft_wrap=True).print(table)


@token.command()
@click.argument("token_id", metavar="ID")
@core_options
def revoke(token_id: str, settings: Settings) -> None:
    """Take a token back. It is refused within 2 s, and what it has open is closed."""

    async def work(tokens: TokenStore, audit: AuditLog) -> str:
        gone = await tokens.revoke(token_id)
        await audit.record("token.revoke", ACTOR, f"token {gone.id}")
        return gone.name

    click.echo(f"{token_id} ({_with_tokens(settings, work)}) is no token any more.")


@token.command("end-sessions")
@click.argument("subject")
@core_options
def end_sessions(subject: str, settings: Settings) -> None:
    """Log a person out everywhere; SUBJECT is what the identity provider calls them, as in the audit log.

    Whether they can log in again is the identity provider's to say.
    """

    async def work() -> int:
        async with at_the_core(settings) as client:
            ended = await SessionStore(AccessCache(client)).close_all(subject)
            audit = AuditLog(client, secret_of(settings))
            await audit.record("session.end", ACTOR, f"person {subject}", {"sessions": ended})
            return ended

    click.echo(f"{asyncio.run(work())} sessions ended.")


def _with_tokens(settings: Settings, work: Callable[[TokenStore, AuditLog], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with at_the_core(settings) as client:
            audit = AuditLog(client, secret_of(settings))
            return await work(TokenStore(AccessCache(client)), audit)

    return asyncio.run(connected())


def _day(t_s: float) -> str:
    return datetime.fromtimestamp(t_s, UTC).strftime("%Y-%m-%d")
