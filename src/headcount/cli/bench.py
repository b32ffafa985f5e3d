"""`headcount bench`: measure a system that grows and shrinks."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headcount import __version__
from headcount.lab.load import balance, day_plots
from headcount.lab.load.day_bench import DayPlan, DayRun, Driver, run_day
from headcount.lab.load.day_statistics import DayStatistics, by_hour, compared, day_statistics, per_thousand
from headcount.runtime.logs import configure_logging
from headcount.settings.proxy import BalanceAlgorithm

#: How many differences are shown.
SHOWN = 5


@click.group("bench")
def bench() -> None:
    """Measure a system that grows and shrinks with its load.

    \b
    headcount bench day        a day of a campus within minutes, through the balancer
    headcount bench balance    how evenly the balancer spreads long connections
    """


@bench.command("day")
@click.option(
    "--driver",
    type=click.Choice(get_args(Driver)),
    default="process",
    show_default=True,
    help="What brokers and workers are: processes, or containers of Docker Engine.",
)
@click.option(
    "--minutes", type=click.FloatRange(0.2, 60), default=5.0, show_default=True, help="How long a day lasts."
)
@click.option(
    "--devices", type=click.IntRange(20, 20_000), default=3000, show_default=True, help="Devices at a peak."
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.2, 600),
    default=1.2,
    show_default=True,
    help="Seconds between two fixes of a device, at a peak.",
)
@click.option(
    "--most",
    type=click.IntRange(2, 10),
    default=3,
    show_default=True,
    help="Brokers, and workers, that a peak needs.",
)
@click.option(
    "--seed", type=click.IntRange(0), help="The same seed, the same devices. Default: a random one."
)
@click.option("--fixed/--no-fixed", default=True, help="Run the day a second time, against a fixed fleet.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for figures, picture and logs. Default: headcount-day-<seed> in this folder.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def day_command(
    driver: Driver,
    minutes: float,
    devices: int,
    every_s: float,
    most: int,
    seed: int | None,
    fixed: bool,
    out: Path | None,
    quiet: bool,
) -> None:
    """Live through a day of a campus within minutes, and compare all that was said with the rules.

    \b
    headcount bench day
    headcount bench day --minutes 3 --devices 1000 --no-fixed
    headcount bench day --driver docker

    `headcount up --elastic` runs in a folder of its own; phones and cars connect through the balancer,
    few at night, most in the morning and in the afternoon; brokers and workers come and go. Then the
    same day again with as many brokers and workers as the peak needs, all day long.

    With `--driver docker` it is the stack of deploy/compose.yaml with its scaler, so run it in a checkout;
    the image `headcount` must be there.

    Ends with 1 if a fix that was acknowledged is lost, or anything that was said is wrong.
    """
    seed = secrets.randbelow(2**32) if seed is None else seed
    out = out or Path(f"headcount-day-{seed}")
    plan = DayPlan(seed, minutes * 60, devices, every_s, most, driver, out)
    screen = Console(stderr=True)
    screen.print(f"seed {seed}: {devices} devices, {minutes:g} minutes a day", highlight=False)
    with _Shown(screen, quiet) as shown:
        elastic = asyncio.run(run_day(plan, "elastic", shown.tell))
        other = asyncio.run(run_day(plan, "fixed", shown.tell)) if fixed else None
    runs = [run for run in (elastic, other) if run is not None]
    text = _text(plan, elastic, other)
    svg = day_plots.plot_day(elastic, other, plan)
    (out / "day.txt").write_text(text + "\n")
    (out / "day.svg").write_text(svg)
    (out / "day.html").write_text(day_plots.day_page(svg, text, seed))
    click.echo(text)
    for run in runs:
        for difference in run.judgement.comparison.differences[:SHOWN]:
            click.echo(f"{run.fleet}: wrong: {difference.what} {difference.text}")
        for kind, device, t_ms in run.judgement.lost[:SHOWN]:
            click.echo(f"{run.fleet}: lost: {kind} {device} at {t_ms / 1000:.3f}")
    click.echo(f"figures, picture and logs: {out}")
    sys.exit(0 if all(run.judgement.is_good for run in runs) else 1)


@bench.command("balance")
@click.option(
    "--connections", type=click.IntRange(20, 10_000), default=600, show_default=True, help="How many devices."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of their addresses.")
@click.option(
    "--way",
    "ways",
    type=click.Choice(balance.WAYS),
    multiple=True,
    help="Only this way to choose; may be given more than once. Default: all.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def balance_command(connections: int, seed: int, ways: tuple[BalanceAlgorithm, ...], quiet: bool) -> None:
    """Compare HAProxy's ways to choose a broker for connections that last.

    \b
    headcount bench balance
    headcount bench balance --connections 2000

    For leastconn, roundrobin and source: devices connect to two brokers, a third one comes, the
    rebalancer works, a broker is killed and comes back, the rebalancer works again. Each device has an
    address of its own in 127.0.0.0/8, so that `source` has something to choose by.
    """
    configure_logging("bench", "ERROR")  # that brokers are killed here is no news
    screen = Console(stderr=True)
    with _Shown(screen, quiet) as shown:
        measured = balance.measure(
            connections, seed, lambda text: shown.tell(text, 0.0), ways or balance.WAYS
        )
        found = asyncio.run(measured)
    click.echo(f"headcount {__version__}, {machine()}, {datetime.now(UTC).date().isoformat()}")
    click.echo(f"{connections} connections, seed {seed}\n")
    click.echo(balance.table(found))


def _text(plan: DayPlan, elastic: DayRun, fixed: DayRun | None) -> str:
    """All figures as text, with where they come from."""
    one: DayStatistics = day_statistics(elastic, plan)
    other = None if fixed is None else day_statistics(fixed, plan)
    head = (
        f"headcount {__version__}, {machine()}, {datetime.now(UTC).date().isoformat()}\n"
        f"seed {plan.seed}, a day in {plan.seconds / 60:g} minutes, {plan.devices} devices, "
        f"a fix every {plan.every_s:g} s at a peak, driver {plan.driver}"
    )
    return "\n\n".join([head, by_hour(elastic, plan), compared(one, other), per_thousand(elastic, plan)])


def machine() -> str:
    """Processor, cores, memory, system, Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{names[0] if names else platform.processor() or 'unknown processor'}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    )


class _Shown:
    """Progress on standard error."""

    def __init__(self, screen: Console, quiet: bool) -> None:
        columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._bar = Progress(
            *columns, console=screen, transient=True, disable=quiet or not screen.is_terminal
        )
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, text: str, share: float) -> None:
        """Show how far it is."""
        self._bar.update(self._task, completed=share, description=text)
