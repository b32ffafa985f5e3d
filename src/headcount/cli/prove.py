"""`headcount prove`: the system under fire, compared with the rules."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headcount.lab.chaos.experiment import ChaosPlan, ChaosProgress, ChaosResult, median, run_chaos_test
from headcount.lab.chaos.fault_schedule import Fault, in_words
from headcount.lab.chaos.report import picture
from headcount.messages.times import iso

#: How many differences are shown in full.
SHOWN = 5


@click.command("prove")
@click.option(
    "--seed", type=click.IntRange(0), help="The same seed, the same load and faults. Default: a random one."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.4, 45),
    default=2.0,
    show_default=True,
    help="How long the system is under fire.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 4),
    default=2,
    show_default=True,
    help="Counting workers at the start.",
)
@click.option(
    "--picture",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to draw what happened. Default: headcount-proof-<seed>.html in this folder.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run in this folder, and leave data and logs there.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def prove(
    seed: int | None, minutes: float, workers: int, file: Path | None, keep: Path | None, quiet: bool
) -> None:
    """Break a real system on purpose, and compare all that it said with the rules.

    \b
    headcount prove
    headcount prove --seed 42 --minutes 5

    A broker, counting workers and the history run in a temporary folder; devices send over MQTT;
    workers join, leave, are killed and paused, the broker is killed, the disk is full. Then every count
    of every tick, every event and every row of the history is compared with a brute-force program that
    follows the counting rules. Ends with 1 if anything differs.

    A seed decides the campus, what devices send and when, and which fault comes when. How long processes
    take, and in which order messages of different connections arrive, the operating system decides: it
    is in the log, and the comparison goes by the log.
    """
    seed = secrets.randbelow(2**32) if seed is None else seed
    screen = Console(stderr=True)
    plan = ChaosPlan(seed, minutes * 60, workers, keep)
    screen.print(f"seed {seed}: {minutes:g} minutes, workers at the start: {workers}", highlight=False)
    with _Shown(screen, quiet) as shown:
        proof = asyncio.run(run_chaos_test(plan, shown.tell))
    file = file or Path(f"headcount-proof-{seed}.html")
    file.write_text(picture(proof))
    _report(proof, Console(soft_wrap=True))
    click.echo(f"picture: {file}")
    sys.exit(0 if proof.is_exact else 1)


class _Shown:
    """Progress on standard error."""

    def __init__(self, screen: Console, quiet: bool) -> None:
        columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._screen = screen
        self._quiet = quiet
        self._bar = Progress(
            *columns, console=screen, transient=True, disable=quiet or not screen.is_terminal
        )
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, stage: ChaosProgress) -> None:
        """Show how far the proof is."""
        if stage.fault is not None and not self._quiet:
            self._screen.print(
                f"  {stage.fault.at_s:6.1f} s  {_words(stage.fault)}", highlight=False, soft_wrap=True
            )
        self._bar.update(self._task, completed=stage.share, description=stage.text)


def _words(fault: Fault) -> str:
    lasts = f", {fault.lasts_s:g} s" if fault.lasts_s else ""
    return f"{in_words(fault)}{lasts}"


def _report(proof: ChaosResult, screen: Console) -> None:
    found = proof.comparison
    screen.print(_faults(proof))
    table = Table(title=f"compared with the rules (seed {proof.plan.seed})", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    for what, number in (
        ("fixes in the log", found.fixes),
        ("markers to forget a device", found.forgotten),
        ("instants (ticks of 0.1 s)", found.ticks),
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
    for name, codes in proof.ended.items():
        screen.print(f"{name} ended by itself with {codes} and was started again")
    if not proof.hours_dropped:
        screen.print("[bold red]hours over a day old are still there, or younger ones are gone")
    for difference in found.differences[:SHOWN]:
        when = iso(difference.at) if difference.at else ""
        screen.print(f"[bold red]{difference.what}[/] {when} {difference.text}", markup=True, highlight=False)
    if found.different > SHOWN:
        screen.print(f"… and {found.different - SHOWN} more differences")
    if found.lost:
        where = ", ".join(
            f"{len(after_s)} with a PUBACK {min(after_s):.1f} to {max(after_s):.1f} s after {fault}"
            for fault, after_s in proof.lost_after().items()
        )
        screen.print(f"[bold red]acknowledged but lost[/]: {where}", highlight=False)
    if proof.is_exact:
        screen.print("[bold green]exact[/]: 0 differences")


def _faults(proof: ChaosResult) -> Table:
    table = Table(title="faults, and how long until all counts were fresh again", title_justify="left")
    for name in ("fault", "survived", "recovery p50", "max"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    for kind, costs_s in sorted(proof.recoveries().items()):
        table.add_row(kind, str(len(costs_s)), f"{median(costs_s):.1f} s", f"{max(costs_s):.1f} s")
    for applied in proof.faults:
        if applied.skipped:
            table.add_row(applied.fault.kind, "left out", applied.skipped, "")
    return table
