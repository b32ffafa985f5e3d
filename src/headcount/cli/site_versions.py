"""`headcount site list`, `show`, `update`, `history` and `diff`: the versions of a deployment's site."""

from __future__ import annotations

from pathlib import Path

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.output import as_json, moment, print_json, print_table, private_file, to_file

FILE = click.Path(path_type=Path)


@click.command("list")
@as_json
@on_deployment()
async def list_(running: RunningDeployment, as_json: bool) -> None:
    """List the sites of a running deployment.

    \b
    Example:
      headcount site list --data /var/lib/headcount
    """
    newest = await running.services.sites.newest()
    zones = len(newest.file["features"])
    if as_json:
        print_json([{"site": newest.site, "version": newest.number, "zones": zones, "from_s": newest.from_s}])
        return
    row = (newest.site, str(newest.number), str(zones), moment(newest.from_s))
    print_table(("site", "version", "zones", "in effect from"), [row])


@click.command()
@click.option(
    "--version", "number", type=click.IntRange(1), help="An earlier version.  [default: the newest]"
)
@to_file
@on_deployment()
async def show(running: RunningDeployment, number: int | None, output: Path | None) -> None:
    """Print the site file of a running deployment.

    \b
    Examples:
      headcount site show -o campus.geojson
      headcount site show --version 3 > before.geojson
    """
    from headcount.sites.files import format_geojson

    sites = running.services.sites
    found = await (sites.newest() if number is None else sites.version(number))
    with private_file(output) as out:
        out.write(format_geojson(found.file))


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
    """Change the site of a running deployment.

    Checks FILE and stores it as a new version, which takes effect some seconds later: devices that are present are
    placed in the new zones, and counting goes on without a pause. Prints how it differs. The id of the site must stay the
    same.

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
@as_json
@on_deployment()
async def history(running: RunningDeployment, as_json: bool) -> None:
    """List the versions of a running deployment's site.

    \b
    Example:
      headcount site history
    """
    versions = await running.services.sites.history()
    if as_json:
        print_json(
            [
                {"version": each.number, "by": each.by, "accepted_s": each.stored_s, "from_s": each.from_s}
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
            str(len(each.file["features"])),
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
