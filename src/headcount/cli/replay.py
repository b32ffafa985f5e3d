"""`headcount replay`: count a recording offline."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from headcount.cli.options import takes_settings
from headcount.cli.parameters import duration
from headcount.cli.progress import ProgressBar
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind
from headcount.settings.deployment import Settings
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
@takes_settings("site")
def replay(file: Path, every_s: float, kind: Kind | None, quiet: bool, settings: Settings) -> None:
    """Count a recording offline.

    FILE is CSV, NDJSON or Parquet (also .gz) with the columns t,device,kind,lat,lon[,acc,received] in the order of
    arrival. The engine is that of a running deployment. Prints NDJSON: a line for each zone, at each multiple of --every.

    \b
    Examples:
      headcount replay day.csv --site campus.geojson --every 60s > counts.ndjson
      headcount replay phones.parquet --site campus.geojson --kind person
    """
    site = load_site(settings.site)
    trace = read_trace(file, kind)
    counting = Replay(trace, site, every_s)
    with ProgressBar(quiet=quiet) as bar:
        for number, tick in enumerate(counting.run(), start=1):
            lines = [
                msgspec.json.encode(
                    {"at": iso(tick.at_s), "zone": zone.id, "person": person, "vehicle": vehicle}
                ).decode()
                for zone, (person, vehicle) in zip(site.zones, tick.counts[:, :, 0].tolist(), strict=True)
            ]
            sys.stdout.write("\n".join(lines) + "\n")
            bar.show(f"tick {number} of {counting.ticks}", number / counting.ticks)
    errors = list(trace.errors())
    if errors:
        click.echo(
            f"{len(errors)} rows cannot be read and were judged malformed; the first: {errors[0]}", err=True
        )
