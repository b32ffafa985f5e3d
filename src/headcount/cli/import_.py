"""`headcount import`: recordings into the history."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headcount.cli.client import CORE, RunningDeployment, in_site, run_on_deployment
from headcount.cli.export import catalog_of
from headcount.cli.options import takes_settings
from headcount.errors import ExportError, ImportedError, SettingsError
from headcount.messages.topics import KINDS, Kind
from headcount.settings.deployment import Settings

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from headcount.counting.site import Site
    from headcount.devices.pseudonyms import SitePseudonyms
    from headcount.services.audit import Detail
    from headcount.simulate.backfill import BackfillResult
    from headcount.simulate.traces import Trace

    #: The versions of a site with the instants from which they count, and the pseudonyms of its devices.
    Judgement = tuple[list[tuple[float, Site]], SitePseudonyms]

#: Number of rows with a problem that are reported one by one.
MAX_ERRORS = 10
#: A larger file would not fit into memory; rows take about ten times their size in Parquet.
MAX_BYTES = 2 << 30


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@in_site
@click.option(
    "--site-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Site file, if headcount does not run.",
)
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the devices in rows without a kind.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@takes_settings(*CORE, "history", "retain")
def import_(
    file: Path,
    site_id: str | None,
    site_file: Path | None,
    kind: Kind | None,
    quiet: bool,
    settings: Settings,
) -> None:
    """Store a recording in the history.

    FILE is CSV, NDJSON, Parquet, GeoParquet, GeoJSON, GPX or OGC Moving Features JSON, such as `headcount export` writes.
    Fixes are judged by the counting rules and the versions of the site; only those on site are stored, under daily
    pseudonyms. Counts of hours that have none are computed, so curves show them. Live counts do not change. The import
    is complete or not at all, and the same rows are stored once, also from a file of another format. Prints what became
    of the rows.

    \b
    Examples:
      headcount import walk.gpx --kind person
      headcount import buses.parquet --site ul --kind vehicle
      headcount import day.csv --site-file campus.geojson
    """
    from headcount.cli.progress import ProgressBar
    from headcount.history.hours import HOUR_S
    from headcount.messages.times import iso
    from headcount.settings.retention_periods import retention_periods
    from headcount.simulate.backfill import backfill
    from headcount.simulate.clocks import trace_warnings
    from headcount.simulate.traces import read_trace

    if file.stat().st_size > MAX_BYTES:
        raise ExportError(f"{file} is larger than {MAX_BYTES >> 30} GB", "Split it into days")
    trace = read_trace(file, kind)
    for warning in trace_warnings(trace):
        click.echo(f"Warning: {file}: {warning}", err=True)
    now_s = time.time()
    judged = _offline(site_file) if site_file else _running(settings, site_id, trace)
    with ProgressBar(quiet=quiet) as bar:
        try:
            result = backfill(
                catalog_of(settings),
                trace,
                *judged,
                periods=retention_periods(settings.retain),
                now_s=now_s,
                until_s=now_s // HOUR_S * HOUR_S,
                progress=lambda at_s, share: bar.show(iso(at_s), share),
            )
        except ImportedError as error:
            click.echo(str(error), err=True)
            return
    _report(trace, result)


def _offline(file: Path) -> Judgement:
    """The site of a file, with keys that end with this import."""
    from headcount.devices.pseudonyms import Pseudonyms
    from headcount.sites.files import load_site

    site = load_site(file)
    return [(0.0, site)], Pseudonyms({}).on(site.id)


def _running(settings: Settings, site_id: str | None, trace: Trace) -> Judgement:
    """The versions of a site of the running deployment, and its daily keys; the import is recorded first."""

    async def prepare(running: RunningDeployment) -> Judgement:
        from headcount.counting.site_file import parse_site
        from headcount.devices.pseudonym_keys import PseudonymKeys
        from headcount.devices.pseudonyms import Pseudonyms
        from headcount.simulate.backfill import days_of

        chosen = await running.services.sites.chosen(site_id)
        versions = [
            (version.from_s, parse_site(version.file, f"version {version.number} of {version.site}"))
            for version in await running.services.sites.history(chosen.site)
            if version.file is not None
        ]
        keys = PseudonymKeys(running.services.client)
        await keys.load()
        await keys.ensure(days_of(trace))
        detail: Detail = {"rows": len(trace), "digest": trace.digest(chosen.site)}
        await running.services.audit.record(running.actor, "history.import", chosen.site, detail)
        return versions, Pseudonyms(keys.keys).on(chosen.site)

    try:
        return run_on_deployment(settings, prepare)
    except SettingsError as error:
        problem = f"the site is not known: {error}"
        raise ExportError(
            problem, "Start the deployment, or name the site's file with --site-file"
        ) from error


def _report(trace: Trace, result: BackfillResult) -> None:
    """Print what became of the rows, and the first ones with a problem."""
    from headcount.messages.fixes import VERDICTS

    click.echo(f"fixes stored       {result.fixes:>10}")
    if result.expired:
        click.echo(f"older than kept    {result.expired:>10}")
    if result.newer:
        click.echo(f"of this hour       {result.newer:>10}")
    for verdict, rows in zip(VERDICTS, result.verdicts.tolist(), strict=True):
        if rows and verdict != "accepted":
            click.echo(f"{verdict:<18} {rows:>10}")
    click.echo(f"hours with counts  {result.hours:>10}")
    if result.counted_hours:
        click.echo(f"counted before     {result.counted_hours:>10}")
    for error, _ in zip(trace.errors(), range(MAX_ERRORS), strict=False):
        click.echo(f"malformed: {error}", err=True)
