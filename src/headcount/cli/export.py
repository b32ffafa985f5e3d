"""`headcount export` and `headcount history`: the stored history for other programs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headcount.cli.client import CORE, RunningDeployment, run_on_deployment
from headcount.cli.options import Command, takes_settings
from headcount.cli.parameters import instant
from headcount.errors import ExportError, SettingsError
from headcount.messages.times import iso_or_none
from headcount.messages.topics import KINDS, Kind
from headcount.settings.deployment import Settings
from headcount.settings.environment import process_environment

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from headcount.exports.stored_fixes import FixSelection
    from headcount.history.catalog import Catalog
    from headcount.history.manifest import Box
    from headcount.services.audit import Detail

FORMAT_NAMES = ("csv", "ndjson", "geojson", "gpx", "mfjson", "parquet", "geoparquet", "geoparquet2")
#: Limit of the wait for fixes that are not stored yet.
STORE_S = 10.0
DATASETS = ("fixes", "counts", "events", "minutes", "flows")


def _degrees(text: str) -> Box:
    """Return the box `west,south,east,north`.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        west = math.nan
    if not (abs(west) <= 180 and abs(east) <= 180 and -90 <= south <= north <= 90):
        raise click.BadParameter(f"{text!r} is not west,south,east,north in degrees")
    return west, south, east, north


def _spanned(function: Command) -> Command:
    """The options of a site and a span."""
    for option in (
        click.option(
            "--to", "to_s", type=instant, metavar="TIME", help="The latest time; Unix seconds or ISO 8601."
        ),
        click.option("--from", "from_s", type=instant, metavar="TIME", help="The earliest time."),
        click.option("--site", "site_id", metavar="ID", help="Only this site.  [default: all]"),
    ):
        function = option(function)
    return function


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Write to this new file, which only you can read.",
)
@click.option(
    "--format",
    "name",
    type=click.Choice(FORMAT_NAMES),
    help="Format of the file.  [default: by its ending; .parquet is geoparquet]",
)
@click.option("--reason", required=True, help="Why you need exact positions, for the audit log.")
@_spanned
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option(
    "--device", "devices", multiple=True, metavar="PSEUDONYM", help="Only this daily pseudonym. Repeatable."
)
@click.option("--bbox", type=_degrees, metavar="W,S,E,N", help="Only within this box, in degrees.")
@click.option("--zone", metavar="ID", help="Only within this zone of the running deployment.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@takes_settings(*CORE, "history")
def export(
    output: Path,
    name: str | None,
    reason: str,
    site_id: str | None,
    from_s: float | None,
    to_s: float | None,
    kind: Kind | None,
    devices: tuple[str, ...],
    bbox: Box | None,
    zone: str | None,
    quiet: bool,
    settings: Settings,
) -> None:
    """Write stored fixes to a file for other programs.

    The formats are CSV, NDJSON, GeoJSON, Parquet and GeoParquet (1.1, or 2.0 with geoparquet2) with a row for each fix,
    and GPX and OGC Moving Features JSON (mfjson) with a track for each device. Devices have their daily pseudonyms. The
    export is recorded in the audit log before the first fix is read; if headcount does not run, there is a warning
    instead. Prints the number of fixes.

    \b
    Examples:
      headcount export --reason "Bus lane study" -o day.parquet
      headcount export --reason "Lost child" --device 8c1f5a3e9b7d2046 -o track.gpx
      headcount export --reason "Bus lane study" --zone car-park-a --kind vehicle --from 2026-11-27T08:00Z -o cars.csv
    """
    from headcount.cli.progress import ProgressBar
    from headcount.exports.export import export as write
    from headcount.exports.export import format_of, new_file
    from headcount.exports.stored_fixes import FixSelection

    if not reason.strip():
        raise SettingsError("--reason", "is empty; state why you need exact positions")
    name = name or format_of(output)
    selection = FixSelection(site_id, from_s, to_s, kind, frozenset(devices), bbox)
    selection = _recorded(settings, selection, zone, {"reason": reason, "format": name})
    catalog = catalog_of(settings)
    segments = selection.segments(catalog.manifest())
    with new_file(output) as file, ProgressBar(quiet=quiet) as bar:
        rows = write(
            catalog.store,
            segments,
            selection,
            file,
            name,
            lambda rows, share: bar.show(f"{rows:,} fixes", share),
        )
    click.echo(f"{rows} fixes written to {output}", err=True)


def catalog_of(settings: Settings) -> Catalog:
    """The stored history of a deployment, running or not."""
    from headcount.history.catalog import Catalog
    from headcount.history.places import store_at

    return Catalog(store_at(settings.history, settings.data, process_environment()))


def _recorded(settings: Settings, selection: FixSelection, zone: str | None, detail: Detail) -> FixSelection:
    """The selection, within a zone of its site, after it was recorded in the audit log of a running deployment.

    Rows that wait to be stored are stored then, too.
    """
    from headcount.services.stored_rows import wait_stored

    async def record(running: RunningDeployment) -> FixSelection:
        chosen = selection if zone is None else await _within_zone(running, selection, zone)
        more: Detail = {
            "kind": chosen.kind,
            "zone": zone,
            "bbox": chosen.box and ",".join(map(str, chosen.box)),
            "from": iso_or_none(chosen.from_s),
            "to": iso_or_none(chosen.to_s),
            "devices": ",".join(sorted(chosen.devices)) or None,
        }
        known = {key: value for key, value in {**detail, **more}.items() if value is not None}
        await running.services.audit.record(running.actor, "history.export", chosen.site or "", known)
        if not await wait_stored(running.services.client, STORE_S):
            click.echo("Warning: no writer of the history answers; the newest fixes are missing", err=True)
        return chosen

    try:
        return run_on_deployment(settings, record)
    except SettingsError as error:
        if zone is not None:
            problem = f"the zones of the deployment are not known: {error}"
            raise ExportError(problem, "Start it, or use --bbox") from error
        click.echo(f"Warning: this export is not in the audit log: {error}", err=True)
        return selection


async def _within_zone(running: RunningDeployment, selection: FixSelection, zone: str) -> FixSelection:
    from headcount.counting.site_file import parse_site

    stored = await running.services.sites.chosen(selection.site)
    zones = {each.id: each.geometry for each in parse_site(stored.file, stored.site).zones}
    if zone not in zones:
        raise ExportError(f"{stored.site} has no zone {zone!r}", f"Choose one of {', '.join(sorted(zones))}")
    return replace(selection, site=stored.site, area=zones[zone])


@click.group()
def history() -> None:
    """List the files of the stored history."""


@history.command()
@click.option("--dataset", type=click.Choice(DATASETS), default="fixes", help="The rows of interest.")
@_spanned
@takes_settings(*CORE, "history")
def files(
    dataset: str, site_id: str | None, from_s: float | None, to_s: float | None, settings: Settings
) -> None:
    """Print the Parquet files of the stored history, one a line.

    DuckDB, Polars and Spark read them as they are, from a folder or S3. Other files in the store are not part of the
    history, so use this list instead of a pattern. A file may hold rows of other sites and of the whole hour, and may be
    replaced by another one after some minutes.

    \b
    Examples:
      headcount history files
      headcount history files --dataset counts --from 2026-11-27T08:00Z
    """
    catalog = catalog_of(settings)
    for segment in catalog.manifest().of(dataset, from_s, to_s, site_id):
        click.echo(f"{catalog.store.url}/{segment.name}")
