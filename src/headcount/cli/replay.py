"""`headcount replay`: a recording counted offline."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headcount.messages.times import iso
from headcount.messages.topics import KINDS
from headcount.simulate.replay import Replay
from headcount.simulate.traces import read_trace
from headcount.sites.files import load_site


def _seconds(_: click.Context, parameter: click.Parameter, text: str) -> float:
    """`60`, `60s`, `5m`, `1h` as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    factor = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}
    if match is None or float(match[1]) <= 0:
        raise click.BadParameter(f"{text!r} is no duration such as 30s, 5m or 1h", param=parameter)
    return float(match[1]) * factor[match[2]]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--site", "site_file", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--every", callback=_seconds, default="60s", show_default=True, help="Count this often.")
@click.option("--kind", type=click.Choice(KINDS), help="The kind of rows that name none.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def replay(file: Path, site_file: Path, every: float, kind: Any, quiet: bool) -> None:
    """Count a recording offline, by the same engine: NDJSON, a line for each tick and zone.

    \b
    headcount replay day.csv --site campus.geojson --every 60s > counts.ndjson
    headcount replay phones.parquet --site campus.geojson --kind person

    FILE is CSV, NDJSON or Parquet (.gz too) with the columns t,device,kind,lat,lon[,acc,received] in
    the order of arrival. Ticks are the multiples of --every.
    """
    site = load_site(site_file)
    trace = read_trace(file, kind)
    counting = Replay(trace, site, every)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("ticks", total=counting.ticks)
        for tick in counting.run():
            lines = [
                msgspec.json.encode(
                    {"at": iso(tick.at_s), "zone": zone.id, "person": person, "vehicle": vehicle}
                ).decode()
                for zone, (person, vehicle) in zip(site.zones, tick.counts[:, :, 0].tolist(), strict=True)
            ]
            sys.stdout.write("\n".join(lines) + "\n")
            bar.advance(task)
    broken = sum(1 for _ in trace.errors())
    if broken:
        first = next(iter(trace.errors()))
        click.echo(f"{broken} rows can't be read and were judged malformed; the first: {first}", err=True)
