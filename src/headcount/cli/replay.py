"""`headcount replay`: count a recording offline."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from headcount.cli.options import takes_settings
from headcount.cli.parameters import duration, site_change
from headcount.cli.progress import ProgressBar
from headcount.messages.counts import KindCount
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind
from headcount.settings.deployment import Settings
from headcount.simulate.clocks import trace_warnings
from headcount.simulate.replay import Replay
from headcount.simulate.traces import read_trace
from headcount.sites.files import load_site


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--every", "every_s", type=duration, default="60s", show_default=True, help="Time between two counts."
)
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the devices in rows without a kind.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--all", "all_numbers", is_flag=True, help="Print low, high and stale beside each count.")
@click.option("--changed", is_flag=True, help="Print a zone only when its numbers changed.")
@click.option(
    "--change",
    "changes",
    type=site_change,
    multiple=True,
    metavar="TIME=FILE",
    help="Another version of the site, and when it takes effect. Repeatable.",
)
@takes_settings("site")
def replay(
    file: Path,
    every_s: float,
    kind: Kind | None,
    quiet: bool,
    all_numbers: bool,
    changed: bool,
    changes: tuple[tuple[float, Path], ...],
    settings: Settings,
) -> None:
    """Count a recording offline.

    FILE is CSV, NDJSON, GeoJSON, GPX or Moving Features JSON (also .gz), Parquet or GeoParquet with the columns
    t,device,kind,lat,lon[,acc,received] in the order of arrival; t and received are Unix seconds or ISO 8601. The engine is that of a running deployment. Prints NDJSON: a
    line for each zone, at each multiple of --every; with --changed, only for zones whose numbers changed. Times without
    any device and without rows for more than a day are skipped.

    \b
    Examples:
      headcount replay day.csv --site campus.geojson --every 60s > counts.ndjson
      headcount replay phones.parquet --site campus.geojson --kind person --all
      headcount replay day.csv --site campus.geojson --every 1s --changed
      headcount replay day.csv --site old.geojson --change 2026-11-27T10:40:00Z=new.geojson
    """
    site = load_site(settings.site)
    versions = sorted(((at_s, load_site(path)) for at_s, path in changes), key=lambda version: version[0])
    trace = read_trace(file, kind)
    for warning in trace_warnings(trace):
        click.echo(f"Warning: {file}: {warning}", err=True)
    counting = Replay(trace, site, every_s, versions, bounds=all_numbers)
    encoder = msgspec.json.Encoder()
    before: dict[str, list[list[int]]] = {}
    with ProgressBar(quiet=quiet) as bar:
        for tick in counting.run():
            at = iso(tick.at_s)
            now = {zone.id: n for zone, n in zip(tick.site.zones, tick.counts.tolist(), strict=True)}
            lines = [
                {"at": at, "zone": zone, **_counts(numbers, all_numbers=all_numbers)}
                for zone, numbers in now.items()
                if not changed or numbers != before.get(zone)
            ]
            sys.stdout.write(encoder.encode_lines(lines).decode())
            before = now
            bar.show(at, tick.rows / len(counting))
    errors = list(trace.errors())
    if errors:
        click.echo(
            f"{len(errors)} rows cannot be read and were judged malformed; the first: {errors[0]}", err=True
        )


def _counts(numbers: list[list[int]], *, all_numbers: bool) -> dict[str, int | KindCount]:
    """The counts of each kind of one zone, alone or with their bounds."""
    return {
        kind: KindCount(*of_kind) if all_numbers else of_kind[0]
        for kind, of_kind in zip(KINDS, numbers, strict=True)
    }
