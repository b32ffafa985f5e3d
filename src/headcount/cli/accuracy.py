"""`headcount accuracy`: how close counts are to the truth."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

#: The documentation of a checkout.
DOCS = Path("docs")


@click.command("accuracy")
@click.option("--seed", type=click.IntRange(0), default=1, help="Seed of movement and errors.")
@click.option(
    "--people", type=click.IntRange(50, 20_000), default=1000, help="Number of people on each site."
)
@click.option("--hours", type=click.FloatRange(0.25, 8), default=1.5, help="Simulated hours of a run.")
@click.option("--runs", type=click.IntRange(1, 20), default=2, help="Number of runs, each with its own seed.")
@click.option("--quick", is_flag=True, help="One short run with few people, for a first impression.")
@click.option("--write", is_flag=True, help="Update tables and figures in the folder docs of a checkout.")
@click.option("--quiet", is_flag=True, help="Print no progress.")
def accuracy(seed: int, people: int, hours: float, runs: int, quick: bool, write: bool, quiet: bool) -> None:
    """Compare counts with the truth, and with the counts of other rules.

    \b
    headcount accuracy
    headcount accuracy --quick
    headcount accuracy --seed 7 --write

    People and cars move over the bundled campus and over a site with buildings of seven sizes. Their positions
    get errors as under open sky, in a street canyon, indoors, and on a campus. The engine of a running deployment
    and six other rules count them. Prints errors by the size of a zone, wrong events, the coverage of low and
    high, the effect of leave_margin_acc, and the cost of each rule. It takes some minutes.

    If the package eclipse-sumo is installed, the rules count cars of SUMO, too.
    """
    from rich.console import Console

    from headcount.cli.progress import ProgressBar
    from headcount.lab.accuracy.accuracy_page import check_docs, report, write_pages
    from headcount.lab.accuracy.comparison import compare
    from headcount.lab.accuracy.results import AccuracyPlan
    from headcount.lab.machine import machine
    from headcount.lab.plots import require_matplotlib
    from headcount.sites.files import bundled_site, load_site

    if write:
        require_matplotlib()
        check_docs(DOCS)
    if quick:
        people, hours, runs = 100, 0.25, 1
    plan = AccuracyPlan(load_site(bundled_site("ul")), people, hours, runs, seed)
    screen = Console(stderr=True)
    screen.print(f"seed {seed}: {people} people, {runs} runs of {hours:g} hours", highlight=False)
    with ProgressBar(screen, quiet) as bar:
        results = compare(plan, bar.show)
    if results.sumo_missing:
        screen.print(results.sumo_missing, highlight=False)
    date = datetime.now(UTC).date().isoformat()
    click.echo(report(results, machine(), date))
    if write:
        for path in write_pages(DOCS, results, machine(), date):
            click.echo(f"wrote {path}")
