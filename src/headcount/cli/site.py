"""`headcount site`: check and import site files, and change the site of a running deployment."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from headcount.adapters.osm import ImportedSite, site_from_osm
from headcount.cli.site_versions import add, diff, history, list_, remove, show, update
from headcount.counting.site import Site
from headcount.counting.site_feature import BOUNDARY
from headcount.counting.site_file import ZONE_TYPES, check_site, parse_site
from headcount.counting.site_warnings import site_warnings
from headcount.errors import SettingsError
from headcount.messages.topics import KINDS
from headcount.sites.files import format_geojson, read_geojson

#: At most this many areas that were not chosen are listed.
MAX_CANDIDATES = 20
FILE = click.Path(path_type=Path)


@click.group()
def site() -> None:
    """Check and import site files; add, change and remove sites of a running deployment."""


for _command in (list_, show, add, update, remove, history, diff):
    site.add_command(_command)


@site.command()
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Check a site file.

    Prints a summary of FILE if it is valid. Otherwise prints all problems, each with its remedy; the exit code is then 2.

    \b
    Example:
      headcount site check sites/ul.geojson
    """
    geojson = read_geojson(file)
    problems = check_site(geojson, str(file))
    if problems:
        for problem in problems:
            click.echo(str(problem), err=True)
        noun = "problem" if len(problems) == 1 else "problems"
        click.echo(f"{file} is not valid: {len(problems)} {noun}", err=True)
        raise click.exceptions.Exit(2)
    checked = parse_site(geojson, str(file))
    _describe(checked, file)
    _print_warnings(checked)


@site.command("import")
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, help="Write the site file here.  [default: standard output]")
@click.option(
    "--boundary",
    "--campus",
    "boundary",
    help="Name of the area that is the boundary, or way/12 or relation/34.",
)
@click.option("--id", "site_id", help="Id of the site.  [default: made from its name]")
@click.option("--timezone", help="Time zone of the site, such as Europe/Dublin; OpenStreetMap has none.")
@click.option("--with-sheds", is_flag=True, help="Import sheds, garages and the like without a name, too.")
def import_(
    file: Path,
    output: Path | None,
    boundary: str | None,
    site_id: str | None,
    timezone: str | None,
    with_sheds: bool,
) -> None:
    """Import a site file from OpenStreetMap data.

    FILE is .osm, .osm.gz, .osm.bz2, .osm.pbf, or .json: an answer of the Overpass API to `out geom;`. The boundary is an
    area tagged amenity=university or amenity=college, or the one that --boundary (or --campus) names. If there are
    several, they are listed with their areas, and the one nearest to the middle of the data is used. Buildings and car
    parks with more than half of their area inside become zones. Entrances are not imported: draw them where you want to
    count. Prints the site file, and on standard error what was imported and what was left out.

    \b
    Examples:
      headcount site import campus.osm.pbf -o sites/campus.geojson --timezone Europe/Dublin
      headcount site import ireland.osm.pbf --boundary "University of Limerick" --id ul -o ul.geojson
      headcount site import overpass.json --boundary relation/1234 > campus.geojson
    """
    with Console(stderr=True).status("reading") as status:
        found = site_from_osm(
            file,
            boundary,
            site_id,
            timezone,
            lambda step: status.update(f"{file}: {step}"),
            with_sheds=with_sheds,
        )
    _write(found.geojson, output)
    _print_imported(found)


def _write(geojson: dict[str, Any], output: Path | None) -> None:
    text = format_geojson(geojson)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            "--output", f"{output} cannot be written: {error.strerror or error}; choose another path"
        ) from error


def _print_imported(found: ImportedSite) -> None:
    boundary, *zones = [feature["properties"] for feature in found.geojson["features"]]
    kinds = Counter(zone["type"] for zone in zones)
    click.echo(f'Boundary: {boundary["name"]} ({boundary["osm"]}), id "{boundary["id"]}"', err=True)
    click.echo(f"Imported: buildings {kinds['building']}, car parks {kinds['car_park']}", err=True)
    chosen, *others = found.candidates
    if others:
        _print_list(
            "Several areas may be the campus; choose another one with --campus:",
            [
                f"{chosen} (used)",
                *others[:MAX_CANDIDATES],
                *([f"and {len(others) - MAX_CANDIDATES} more"] if len(others) > MAX_CANDIDATES else []),
            ],
        )
    _print_list("Left out:", found.left_out)
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)


def _print_list(title: str, lines: list[str]) -> None:
    if lines:
        click.echo("\n  ".join([title, *lines]), err=True)


def _print_warnings(checked: Site) -> None:
    for warning in site_warnings(checked):
        click.echo(f"Warning: {warning}")


def _describe(checked: Site, file: Path) -> None:
    console = Console(highlight=False, markup=False)
    boundary, *zones = checked.zones
    click.echo(f"{file} is valid: {checked.name}, id {checked.id}, time zone {checked.timezone}")
    table = Table("type", "zones", "area", "capacity person", "capacity vehicle")
    for column in table.columns[1:]:
        column.justify = "right"
    for zone_type in (BOUNDARY, *ZONE_TYPES):
        chosen = [zone for zone in (boundary, *zones) if zone.type == zone_type]
        if chosen:
            spaces = [sum(zone.capacity[k] or 0 for zone in chosen) for k in range(len(KINDS))]
            area_m2 = sum(zone.plane.area for zone in chosen)
            table.add_row(
                zone_type, str(len(chosen)), f"{area_m2:,.0f} m²", *(f"{s:,}" if s else "-" for s in spaces)
            )
    console.print(table)
    for line in _defaults(checked):
        click.echo(line)


def _defaults(checked: Site) -> list[str]:
    def per_kind(pair: tuple[float, float], unit: str) -> str:
        return ", ".join(f"{kind} {value:g} {unit}" for kind, value in zip(KINDS, pair, strict=True))

    leave = [kind for kind, leaves in zip(KINDS, checked.on_offline_leave, strict=True) if leaves]
    return [
        f"A device that stops reporting stays present for (hold_s): {per_kind(checked.hold_s, 's')}",
        f"A member leaves beyond (leave_margin_m): {checked.leave_margin_m:g} m",
        f"and beyond this multiple of its accuracy (leave_margin_acc): {checked.leave_margin_acc:g}",
        f"A fix is too inaccurate above (max_accuracy_m): {checked.max_accuracy_m:g} m",
        f"A move is implausible above (max_speed_mps): {per_kind(checked.max_speed_mps, 'm/s')}",
        f"Inaccurate fixes keep a position for (max_position_age_s): {checked.max_position_age_s:g} s",
        f"A fix is fresh for (fresh_s): {per_kind(checked.fresh_s, 's')}",
        f"Offline ends a stay of (on_offline): {', '.join(leave) or 'no kind'}"
        + (f", after {checked.offline_grace_s:g} s" if leave else ""),
    ]
