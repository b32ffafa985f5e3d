"""`headcount prove`: a chaos test whose results are compared with the counting rules."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headcount.messages.times import iso

if TYPE_CHECKING:  # loaded when the command runs, so that --help is fast
    from rich.console import Console
    from rich.table import Table

    from headcount.lab.chaos.experiment import ChaosProgress, ChaosResult
    from headcount.lab.chaos.fault_schedule import Fault

#: Maximum number of differences that are printed in full.
MAX_PRINTED = 5


@click.command("prove")
@click.option("--seed", type=click.IntRange(0), help="Seed of the load and the faults. Default: random.")
@click.option("--minutes", type=click.FloatRange(0.4, 45), default=2.0, help="Duration of the load.")
@click.option(
    "--workers", type=click.IntRange(1, 4), default=2, help="Number of counting workers at the start."
)
@click.option(
    "--report",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Path of the report. Default: headcount-prove-<seed>.html in the current folder.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run in this folder and keep its data and logs.",
)
@click.option("--quiet", is_flag=True, help="Print no progress.")
def prove(
    seed: int | None, minutes: float, workers: int, file: Path | None, keep: Path | None, quiet: bool
) -> None:
    """Run a chaos test and compare the results with the counting rules.

    \b
    headcount prove
    headcount prove --seed 42 --minutes 5

    A broker, counting workers and the history run in a temporary folder, and devices publish over MQTT. Workers join,
    leave, are killed and paused; the broker is killed; the disk is full; a site is changed, another added and removed. Then every count
    of every tick, every event and every row of the history is compared with a brute-force program that follows the
    counting rules. The exit code is 1 if anything differs.

    The seed determines the campus, the messages with their times, and the faults. Scheduling of processes and
    the order of messages from different connections vary: they are in the log, and the comparison follows
    the log.
    """
    from rich.console import Console

    from headcount.cli.progress import ProgressBar
    from headcount.lab.chaos.experiment import ChaosPlan, run_chaos_test
    from headcount.lab.chaos.report import report_page
    from headcount.lab.plots import require_matplotlib

    require_matplotlib()
    seed = secrets.randbelow(2**32) if seed is None else seed
    screen = Console(stderr=True)
    plan = ChaosPlan(seed, minutes * 60, workers, keep)
    screen.print(f"seed {seed}: {minutes:g} minutes, {workers} workers at the start", highlight=False)
    with ProgressBar(screen, quiet) as bar:

        def show(progress: ChaosProgress) -> None:
            if progress.fault is not None and not quiet:
                text = f"  {progress.fault.at_s:6.1f} s  {_words(progress.fault)}"
                screen.print(text, highlight=False, soft_wrap=True)
            bar.show(progress.text, progress.share)

        result = asyncio.run(run_chaos_test(plan, show))
    file = file or Path(f"headcount-prove-{seed}.html")
    file.write_text(report_page(result))
    _print_result(result, Console(soft_wrap=True))
    click.echo(f"report: {file}")
    sys.exit(0 if result.is_exact else 1)


def _words(fault: Fault) -> str:
    from headcount.lab.chaos.fault_schedule import describe

    lasts = f", {fault.lasts_s:g} s" if fault.lasts_s else ""
    return f"{describe(fault)}{lasts}"


def _print_result(result: ChaosResult, screen: Console) -> None:
    from rich.table import Table

    found = result.comparison
    screen.print(_faults(result))
    table = Table(title=f"comparison with the rules (seed {result.plan.seed})", title_justify="left")
    table.add_column("compared")
    table.add_column("number", justify="right")
    for what, number in (
        ("fixes in the log", found.fixes),
        ("erasures of a device", found.erasures),
        ("instants", found.ticks),
        ("counts of a partition at an instant", found.counts),
        ("totals", found.totals),
        ("events", found.events),
        ("fixes in the history", found.rows),
        ("counts in the history", found.recorded),
        ("acknowledged QoS 1 fixes", found.acknowledged),
        ("acknowledged but lost", len(found.lost)),
        ("differences", found.different),
    ):
        bad = what in {"acknowledged but lost", "differences"} and number
        table.add_row(what, f"{number:,}", style="bold red" if bad else None)
    screen.print(table)
    screen.print("verdicts: " + ", ".join(f"{name} {n:,}" for name, n in sorted(found.verdicts.items())))
    for name, codes in result.ended.items():
        screen.print(f"{name} exited with {codes} and was restarted")
    if not result.hours_dropped:
        screen.print("[bold red]retention kept hours older than a day, or removed younger ones")
    for difference in found.differences[:MAX_PRINTED]:
        when = iso(difference.at) if difference.at else ""
        screen.print(f"[bold red]{difference.what}[/] {when} {difference.text}", markup=True, highlight=False)
    if found.different > MAX_PRINTED:
        screen.print(f"… and {found.different - MAX_PRINTED} more differences")
    if found.lost:
        where = ", ".join(
            f"{len(after_s)} with a PUBACK {min(after_s):.1f} to {max(after_s):.1f} s after {fault}"
            for fault, after_s in result.lost_after().items()
        )
        screen.print(f"[bold red]acknowledged but lost[/]: {where}", highlight=False)
    if result.is_exact:
        screen.print("[bold green]exact[/]: 0 differences")


def _faults(result: ChaosResult) -> Table:
    from rich.table import Table

    table = Table(title="faults, and the time until all counts were fresh again", title_justify="left")
    for name in ("fault", "times", "recovery p50", "max"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    for kind, costs_s in sorted(result.recoveries().items()):
        table.add_row(kind, str(len(costs_s)), f"{statistics.median(costs_s):.1f} s", f"{max(costs_s):.1f} s")
    for applied in result.faults:
        if applied.skipped:
            table.add_row(applied.fault.kind, "skipped", applied.skipped, "")
    return table
