"""`headcount bench`: load tests of a system that scales."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from headcount import __version__
from headcount.settings.proxy import BalanceAlgorithm

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from headcount.lab.load.day_bench import DayPlan, DayRun, Driver

#: Maximum number of differences that are printed.
MAX_PRINTED = 5


@click.group("bench")
def bench() -> None:
    """Run load tests of a system that scales.

    \b
    headcount bench day        a simulated day of a campus in minutes, through the balancer
    headcount bench balance    how evenly the balancer distributes long-lived connections
    """


@bench.command("day")
@click.option(
    "--driver",
    type=click.Choice(["process", "docker"]),
    default="process",
    help="Run brokers and workers as processes, or as containers of Docker Engine.",
)
@click.option("--minutes", type=click.FloatRange(0.2, 60), default=5.0, help="Duration of a day.")
@click.option("--devices", type=click.IntRange(20, 20_000), default=3000, help="Number of devices at a peak.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.2, 600),
    default=1.2,
    help="Seconds between two fixes of a device at a peak.",
)
@click.option(
    "--units",
    type=click.IntRange(2, 10),
    default=3,
    help="Number of brokers, and of workers, that a peak needs.",
)
@click.option("--seed", type=click.IntRange(0), help="Seed of the devices. Default: random.")
@click.option(
    "--fixed/--no-fixed", default=True, help="Run the day again with a fixed number of brokers and workers."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for statistics, figure and logs. Default: headcount-day-<seed> in the current folder.",
)
@click.option("--quiet", is_flag=True, help="Print no progress.")
def day_command(
    driver: Driver,
    minutes: float,
    devices: int,
    every_s: float,
    units: int,
    seed: int | None,
    fixed: bool,
    out: Path | None,
    quiet: bool,
) -> None:
    """Run a simulated day of a campus in minutes, and compare the results with the counting rules.

    \b
    headcount bench day
    headcount bench day --minutes 3 --devices 1000 --no-fixed
    headcount bench day --driver docker

    `headcount up --elastic` runs in its own folder. Phones and cars connect through the balancer, few at night,
    most in the morning and in the afternoon, and the scaler adds and removes brokers and workers. Then the same
    day runs with as many brokers and workers as the peak needs, all day.

    With `--driver docker`, the stack of deploy/compose.yaml runs with its scaler. Run the command in a checkout;
    the image `headcount` must exist.

    The exit code is 1 if an acknowledged fix is lost, or if a result differs from the rules.
    """
    from rich.console import Console

    from headcount.cli.progress import ProgressBar
    from headcount.lab.load import day_plots
    from headcount.lab.load.day_bench import DayPlan, run_day
    from headcount.lab.plots import require_matplotlib
    from headcount.services.measured_sizes import DAY_RESULTS

    require_matplotlib()
    seed = secrets.randbelow(2**32) if seed is None else seed
    out = out or Path(f"headcount-day-{seed}")
    plan = DayPlan(seed, minutes * 60, devices, every_s, units, driver, out.absolute())
    screen = Console(stderr=True)
    screen.print(f"seed {seed}: {devices} devices, {minutes:g} minutes a day", highlight=False)
    with ProgressBar(screen, quiet) as progress:
        elastic = asyncio.run(run_day(plan, "elastic", progress.show))
        other = asyncio.run(run_day(plan, "fixed", progress.show)) if fixed else None
    runs = [run for run in (elastic, other) if run is not None]
    text = _text(plan, elastic, other)
    svg = day_plots.plot_day(elastic, other, plan)
    (out / "day.txt").write_text(text + "\n")
    (out / DAY_RESULTS).write_bytes(_usage(plan, elastic, other))
    (out / "day.svg").write_text(svg)
    (out / "day.html").write_text(day_plots.day_page(svg, text, seed))
    click.echo(text)
    for run in runs:
        for difference in run.verification.comparison.differences[:MAX_PRINTED]:
            click.echo(f"{run.fleet}: wrong: {difference.what} {difference.text}")
        for kind, device, t_ms in run.verification.lost[:MAX_PRINTED]:
            click.echo(f"{run.fleet}: lost: {kind} {device} at {t_ms / 1000:.3f}")
    click.echo(f"statistics, figure and logs: {out}")
    sys.exit(0 if all(run.verification.is_correct for run in runs) else 1)


@bench.command("balance")
@click.option("--connections", type=click.IntRange(20, 10_000), default=600, help="Number of devices.")
@click.option("--seed", type=click.IntRange(0), default=1, help="Seed of their addresses.")
@click.option(
    "--algorithm",
    "algorithms",
    type=click.Choice(get_args(BalanceAlgorithm)),
    multiple=True,
    help="Algorithm to measure; can be repeated. Default: all.",
)
@click.option("--quiet", is_flag=True, help="Print no progress.")
def balance_command(
    connections: int, seed: int, algorithms: tuple[BalanceAlgorithm, ...], quiet: bool
) -> None:
    """Compare HAProxy's algorithms for long-lived connections.

    \b
    headcount bench balance
    headcount bench balance --connections 2000

    For leastconn, roundrobin and source: devices connect to two brokers, a third broker is added, the
    rebalancer runs, a broker is killed and restarted, the rebalancer runs again. Each device has its own address
    in 127.0.0.0/8, which `source` needs.
    """
    from headcount.cli.progress import ProgressBar
    from headcount.lab.load import balance
    from headcount.lab.machine import machine
    from headcount.runtime.logs import configure_logging

    configure_logging("bench", "ERROR")  # brokers are killed on purpose
    with ProgressBar(quiet=quiet) as progress:
        measured = balance.measure(
            connections, seed, lambda text: progress.show(text, 0.0), algorithms or balance.ALGORITHMS
        )
        found = asyncio.run(measured)
    click.echo(f"headcount {__version__}, {machine()}, {datetime.now(UTC).date().isoformat()}")
    click.echo(f"{connections} connections, seed {seed}\n")
    click.echo(balance.table(found))


def _text(plan: DayPlan, elastic: DayRun, fixed: DayRun | None) -> str:
    """All statistics as text, with machine, version and date."""
    from headcount.lab.load.day_statistics import by_hour, compare_fleets, day_statistics, per_thousand
    from headcount.lab.machine import machine

    one = day_statistics(elastic, plan)
    other = None if fixed is None else day_statistics(fixed, plan)
    head = (
        f"headcount {__version__}, {machine()}, {datetime.now(UTC).date().isoformat()}\n"
        f"seed {plan.seed}, a day in {plan.seconds / 60:g} minutes, {plan.devices} devices, "
        f"a fix every {plan.every_s:g} s at a peak, driver {plan.driver}"
    )
    return "\n\n".join(
        [head, by_hour(elastic, plan), compare_fleets(one, other), per_thousand(elastic, plan)]
    )


def _usage(plan: DayPlan, elastic: DayRun, fixed: DayRun | None) -> bytes:
    """The usage of both fleets as JSON."""
    import msgspec

    from headcount.lab.load.day_statistics import day_statistics, day_usage

    other = None if fixed is None else day_statistics(fixed, plan)
    return msgspec.json.encode(day_usage(plan, day_statistics(elastic, plan), other))
