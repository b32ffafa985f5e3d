"""`headcount token`: API tokens and sessions."""

from __future__ import annotations

import time

import click

from headcount.access.roles import SCOPES
from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.output import print_table
from headcount.messages.records import ACCESS_ROLES, AccessRole

DAY_S = 86_400


@click.group()
def token() -> None:
    """Manage API tokens, and end sessions.

    Tokens are for programs: over HTTP in the header `Authorization: Bearer hc_…`, over MQTT as the password of the user
    `token`. People sign in on the web page.

    \b
    Examples:
      headcount token add dashboard --role viewer
      headcount token add prometheus --role viewer --scope system:read --days 0
      headcount token list
      headcount token revoke k3vq2hbw5yxa
    """


@token.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ACCESS_ROLES[1:]),
    required=True,
    help="viewer: exact counts; operator: also positions and devices; admin: also tokens.",
)
@click.option("--site", "sites", multiple=True, help="Only this site. Repeatable.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="Only this scope of the role. Repeatable.",
)
@click.option(
    "--days", type=click.IntRange(0, 3650), default=365, help="Days until it expires; 0: it does not expire."
)
@on_deployment()
async def add(
    running: RunningDeployment,
    name: str,
    role: AccessRole,
    sites: tuple[str, ...],
    scopes: tuple[str, ...],
    days: int,
) -> None:
    """Create a token.

    Prints the token. It is shown only here.

    \b
    Examples:
      headcount token add dashboard --role viewer
      headcount token add prometheus --role viewer --scope system:read --days 0
    """
    expires = time.time() + days * DAY_S if days else None
    _, text = await running.services.tokens.add(
        running.actor, name, role, sites=sites, scopes=scopes, expires=expires
    )
    click.echo(text)
    click.echo("Store it where only its program can read it: it is shown only here.", err=True)


@token.command("list")
@on_deployment()
async def list_(running: RunningDeployment) -> None:
    """List all tokens.

    Prints them without their secrets, the oldest first.
    """
    from headcount.access.tokens import is_valid

    rows = []
    for each in await running.services.tokens.all(running.actor):
        expires = "never" if each.expires is None else _day(each.expires)
        expired = "" if is_valid(each) else " (expired)"
        scopes, sites = ", ".join(each.scopes) or "all", ", ".join(each.sites) or "all"
        rows.append((each.id, each.name, each.role, sites, scopes, _day(each.created), expires + expired))
    print_table(("id", "name", "role", "sites", "scopes", "created", "expires"), rows)


@token.command()
@click.argument("token_id", metavar="ID")
@on_deployment()
async def revoke(running: RunningDeployment, token_id: str) -> None:
    """Revoke a token.

    It is rejected within 2 s, and its open connections are closed.
    """
    revoked = await running.services.tokens.revoke(running.actor, token_id)
    click.echo(f"Revoked: {token_id} ({revoked.name})")


@token.command("end-sessions")
@click.argument("subject")
@on_deployment()
async def end_sessions(running: RunningDeployment, subject: str) -> None:
    """Sign a person out everywhere.

    SUBJECT is the identity provider's name for the person, as in the audit log. The identity provider decides whether
    they can sign in again.
    """
    click.echo(f"Sessions ended: {await running.services.sessions.end_all(running.actor, subject)}")


def _day(t_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(t_s))
