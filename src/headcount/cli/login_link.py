"""`headcount login-link`: sign a browser in without an identity provider."""

from __future__ import annotations

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.output import as_json, print_json
from headcount.cli.parameters import duration
from headcount.messages.records import ACCESS_ROLES, AccessRole
from headcount.messages.times import iso


def _lifetime(text: str) -> int:
    within_s = int(duration(text))
    if not 60 <= within_s <= 86_400:
        raise click.BadParameter("use 1m to 24h")
    return within_s


@click.command("login-link")
@click.option(
    "--role",
    type=click.Choice(ACCESS_ROLES[1:]),
    default="operator",
    help="viewer: exact counts; operator: also positions and devices; admin: also tokens.",
)
@click.option("--site", "sites", multiple=True, help="Only this site. Repeatable.")
@click.option(
    "--within", "within_s", type=_lifetime, default="10m", help="Time until it expires, at most 24h."
)
@as_json
@on_deployment("public_url", "http_port", "tls_cert", "tls_key")
async def login_link(
    running: RunningDeployment, role: AccessRole, sites: tuple[str, ...], within_s: int, as_json: bool
) -> None:
    """Create a one-time link that signs a browser in.

    The first person who opens it has the role's rights in that browser: the map shows exact counts. The session ends
    after 8 hours, or 1 hour without use. The audit log records link and login. The code is in the part of the address
    that browsers send to no server, so that no log has it.

    \b
    Examples:
      headcount login-link
      headcount login-link --role viewer --within 1h --public-url https://count.example.org
    """
    settings = running.settings
    scheme = "http" if settings.tls_cert is None else "https"
    base = settings.public_url.rstrip("/") or f"{scheme}://127.0.0.1:{settings.http_port}"
    link, code = await running.services.sessions.create_link(running.actor, role, sites, within_s)
    url, expires = f"{base}/#login={code}", iso(link.expires)
    if as_json:
        print_json({"id": link.id, "url": url, "role": role, "sites": link.sites, "expires": expires})
        return
    click.echo(url)
    click.echo(f"Works once, until {expires}. Open it in the browser that shall be signed in.", err=True)
