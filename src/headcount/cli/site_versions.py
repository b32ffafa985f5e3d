"""`headcount site list`, `show`, `add`, `update`, `remove`, `history` and `diff`: the sites of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.output import as_json, moment, print_json, print_table, private_file, to_file

if TYPE_CHECKING:
    from headcount.messages.history import EraseReply

FILE = click.Path(path_type=Path)


SITE = click.argument("site", required=False)


@click.command("list")
@as_json
@on_deployment()
async def list_(running: RunningDeployment, as_json: bool) -> None:
    """List the sites of a running deployment.

    \b
    Example:
      headcount site list --data /var/lib/headcount
    """
    sites = await running.services.sites.sites()
    found = [(each.site, each.number, len((each.file or {})["features"]), each.from_s) for each in sites]
    if as_json:
        names = ("site", "version", "zones", "from_s")
        print_json([dict(zip(names, each, strict=True)) for each in found])
        return
    rows = [(site, str(number), str(zones), moment(from_s)) for site, number, zones, from_s in found]
    print_table(("site", "version", "zones", "in effect from"), rows)


@click.command()
@SITE
@click.option(
    "--version", "number", type=click.IntRange(1), help="An earlier version.  [default: the newest]"
)
@to_file
@on_deployment()
async def show(running: RunningDeployment, site: str | None, number: int | None, output: Path | None) -> None:
    """Print the site file of a running deployment.

    SITE is the id of a site; it can be left out where there is one only.

    \b
    Examples:
      headcount site show -o campus.geojson
      headcount site show ul --version 3 > before.geojson
    """
    from headcount.sites.files import format_geojson

    sites = running.services.sites
    if number is None:
        found = await sites.chosen(site)
    else:
        found = await sites.version(site or (await sites.chosen(None)).site, number)
    with private_file(output) as out:
        out.write(format_geojson(found.file or {}))


@click.command()
@click.argument("file", type=FILE)
@as_json
@on_deployment()
async def add(running: RunningDeployment, file: Path, as_json: bool) -> None:
    """Add a site to a running deployment.

    Checks FILE, whose id names the new site, and stores it. Fixes of the site are counted some seconds later. Prints when.

    \b
    Example:
      headcount site add second-campus.geojson
    """
    from headcount.messages.times import iso
    from headcount.sites.files import load_site

    added = await running.services.sites.add(running.actor, load_site(file))
    if as_json:
        print_json({"site": added.site, "version": added.number, "effective": iso(added.from_s)})
        return
    click.echo(f"Site {added.site} is counted from {moment(added.from_s)}.")


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--if-version",
    "expected",
    type=click.IntRange(1),
    help="Only if this is still the newest version.  [default: whichever is]",
)
@as_json
@on_deployment()
async def update(running: RunningDeployment, file: Path, expected: int | None, as_json: bool) -> None:
    """Change a site of a running deployment.

    Checks FILE and stores it as a new version of the site with its id. It takes effect some seconds later: devices that
    are present are placed in the new zones, and counting goes on without a pause. Prints how it differs.

    \b
    Examples:
      headcount site update campus.geojson
      headcount site update campus.geojson --if-version 3
    """
    from headcount.messages.times import iso
    from headcount.sites.files import load_site

    site = load_site(file)
    found = await running.services.sites.update(running.actor, site, expected)
    if as_json:
        print_json({"version": found.version, "effective": iso(found.from_s), "changes": found.changes})
        return
    for line in found.changes.lines():
        click.echo(line)
    if found.changes.is_empty:
        click.echo(f"{file} is version {found.version} of {site.id} already.")
    else:
        click.echo(f"Version {found.version} of {site.id} takes effect at {moment(found.from_s)}.")


@click.command()
@click.argument("site")
@click.option("--erase", is_flag=True, help="Also erase its history, and wait for it.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_json
@on_deployment()
async def remove(running: RunningDeployment, site: str, erase: bool, yes: bool, as_json: bool) -> None:
    """Remove a site from a running deployment.

    Some seconds later all devices leave the site with the given id, and its fixes are counted no longer. Its history
    expires after 24 hours, or is erased with --erase, also of a site that is removed already; its devices stay
    registered. Prints when it takes effect. The last site cannot be removed.

    \b
    Examples:
      headcount site remove second-campus
      headcount site remove second-campus --erase
    """
    from headcount.messages.times import iso

    sites = running.services.sites
    removed = (await sites.history(site))[-1]
    if removed.file is not None or not erase:
        await sites.chosen(site)
        if not yes:
            click.confirm(f"All devices will leave {site}. Continue?", abort=True, err=True)
        removed = await sites.remove(running.actor, site)
        if not as_json:
            click.echo(f"Site {site} is counted until {moment(removed.from_s)}.")
    erased = await _erased_rows(running, site, removed.from_s) if erase else None
    if as_json:
        effective = {"site": site, "version": removed.number, "effective": iso(removed.from_s)}
        print_json(effective | ({} if erased is None else {"rows": erased.rows, "held": erased.held}))
    elif erased is not None:
        held = f" {erased.held} rows stay under a legal hold." if erased.held else ""
        click.echo(f"Erased {erased.rows} rows of its history.{held}")


async def _erased_rows(running: RunningDeployment, site: str, removed_s: float) -> EraseReply:
    """Erase the history of a removed site."""
    from headcount.privacy.erasure import erase_site
    from headcount.worker.snapshots import Snapshots

    client = running.services.client
    erased = await erase_site(client, site, removed_s, Snapshots(client))
    detail = {"rows": erased.rows, "held": erased.held}
    await running.services.audit.record(running.actor, "site.erase", site, detail)
    return erased


@click.command()
@SITE
@as_json
@on_deployment()
async def history(running: RunningDeployment, site: str | None, as_json: bool) -> None:
    """List the versions of a site of a running deployment.

    SITE is the id of a site, which may be removed; it can be left out where there is one only.

    \b
    Examples:
      headcount site history
      headcount site history second-campus
    """
    sites = running.services.sites
    versions = await sites.history(site or (await sites.chosen(None)).site)
    if as_json:
        print_json(
            [
                {
                    "version": each.number,
                    "by": each.by,
                    "accepted_s": each.stored_s,
                    "from_s": each.from_s,
                    "removed": each.file is None,
                }
                for each in versions
            ]
        )
        return
    rows = [
        (
            str(each.number),
            each.by,
            moment(each.stored_s),
            moment(each.from_s),
            "removed" if each.file is None else str(len(each.file["features"])),
        )
        for each in versions
    ]
    print_table(("version", "by", "accepted", "in effect from", "zones"), rows)


@click.command()
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@as_json
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Compare two site files.

    Prints the zones that were added, removed, renamed or moved, with their areas, and other properties that differ.

    \b
    Example:
      headcount site diff before.geojson campus.geojson
    """
    from headcount.counting.site_diff import site_diff
    from headcount.sites.files import load_site

    found = site_diff(load_site(before), load_site(after))
    if as_json:
        print_json(found)
        return
    for line in found.lines() or ["no differences"]:
        click.echo(line)
