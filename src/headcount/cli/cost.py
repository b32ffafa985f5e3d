"""`headcount cost`: what it costs to keep data longer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headcount.cli.client import CORE, run_on_deployment
from headcount.cli.options import SettingsCommand, takes_settings
from headcount.cli.output import as_json, print_json
from headcount.errors import SettingsError
from headcount.settings.deployment import Settings

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from collections.abc import Sequence

    from headcount.services.cost import CostPart, DayUsage, DeploymentSizes, PriceList

MAX_DAYS = 3650


def _days(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """Parse numbers of days with commas between.

    Raises:
        click.BadParameter: one is not a number of days.
    """
    del context, parameter
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= MAX_DAYS for part in parts):
        raise click.BadParameter(f"{text!r} is not a list of days from 1 to {MAX_DAYS}, such as 7,30,365")
    return tuple(int(part) for part in parts)


def _print_example(context: click.Context, parameter: click.Parameter, is_given: bool) -> None:
    """Print the price file that comes with headcount, and exit."""
    from headcount.services.cost import example_prices

    del parameter
    if is_given:
        click.echo(example_prices().read_text(), nl=False)
        context.exit()


@click.command(cls=SettingsCommand)
@click.option("--devices", type=click.IntRange(1), required=True, help="Number of devices.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1, 86_400),
    required=True,
    help="Seconds between two fixes of a device.",
)
@click.option(
    "--hours",
    "active_h",
    type=click.FloatRange(0, 24, min_open=True),
    default=24.0,
    show_default=True,
    help="Hours a day in which a device reports.",
)
@click.option(
    "--days", default="7,30,365", show_default=True, callback=_days, help="For how many days data are kept."
)
@click.option(
    "--prices",
    "price_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Price file.  [default: the example that --example-prices prints]",
)
@click.option(
    "--example-prices",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_example,
    help="Print a price file to edit, and exit.",
)
@click.option(
    "--s3", "is_object_store", is_flag=True, help="Price the history in an object store, not on a disk."
)
@click.option(
    "--replicas",
    type=click.Choice(["1", "3"]),
    default="1",
    show_default=True,
    help="Copies of the log: three in a cluster of three core nodes.",
)
@click.option(
    "--egress-gb", type=click.FloatRange(0), default=0.0, help="GB that applications read each month."
)
@click.option(
    "--bench",
    "bench_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Results of `headcount bench day`: CPU of all parts, and both fleets.",
)
@click.option(
    "--figure", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the table as an SVG file."
)
@as_json
@takes_settings("history", *CORE)
def cost(
    devices: int,
    interval_s: float,
    active_h: float,
    days: tuple[int, ...],
    price_file: Path | None,
    is_object_store: bool,
    replicas: str,
    egress_gb: float,
    bench_folder: Path | None,
    figure: Path | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Estimate what it costs to keep data for 7, 30 and 365 days.

    Reads how many bytes this deployment stores for a fix and an hour, and, while it runs, how much CPU time its
    counting workers use. Multiplies them with your number of devices, interval and prices.

    \b
    headcount cost --data /var/lib/headcount --devices 25000 --interval 15 --hours 8
    headcount cost --example-prices > prices.toml
    headcount cost --devices 25000 --interval 15 --s3 --prices prices.toml --figure cost.svg

    Prints the parts of the cost of a month, when the store has filled up. Parts without a measurement or a
    price are named and not added up.
    """
    from headcount.history.writer import FLUSH_S
    from headcount.services.cost import CostScenario, cost_parts, example_prices, read_prices
    from headcount.services.measured_sizes import read_day
    from headcount.settings.formats import S3_SCHEME

    if not settings.data.is_dir():
        raise SettingsError("data", f"{settings.data} is not a folder")
    prices = read_prices(price_file or example_prices())
    day = None if bench_folder is None else read_day(bench_folder)
    sizes = _measured(settings, day)
    scenario = CostScenario(
        devices,
        interval_s,
        active_h,
        int(replicas),
        is_object_store or settings.history.startswith(S3_SCHEME),
        FLUSH_S,
        egress_gb,
    )
    parts = cost_parts(sizes, scenario, prices, days)
    if figure is not None:
        from headcount.lab.load.cost_plots import plot_cost

        figure.write_text(plot_cost(parts, days, prices.currency))
    if as_json:
        print_json(_document(parts, days, prices, day))
    else:
        click.echo(_text(parts, days, prices, day))
        source = (
            "all parts of the load test" if day else "the counting workers only; --bench adds the other parts"
        )
        click.echo(f"CPU: {source}")


def _measured(settings: Settings, day: DayUsage | None) -> DeploymentSizes:
    """The sizes of the data folder, and the CPU time of a load test or of a running deployment."""
    from headcount.history.catalog import Catalog
    from headcount.history.places import store_at
    from headcount.runtime.private_files import is_locked
    from headcount.services.measured_sizes import measured_sizes, worker_cpu_s_per_million
    from headcount.settings.environment import process_environment

    cpu_s = None
    if day is not None:
        cpu_s = day.elastic.total_cpu_s / max(day.elastic.fixes, 1) * 1e6
    elif is_locked(settings.data / "broker.lock"):
        cpu_s = run_on_deployment(settings, lambda running: worker_cpu_s_per_million(running.services.client))
    try:
        store = store_at(settings.history, settings.data, process_environment())
        return measured_sizes(settings.data, Catalog(store).manifest(), cpu_s)
    except OSError as error:
        raise SettingsError("data", f"{settings.data} cannot be read: {error}") from error


def _document(
    parts: Sequence[CostPart], days: Sequence[int], prices: PriceList, day: DayUsage | None
) -> dict[str, object]:
    from headcount.services.cost import fleet_costs, totals, unknown

    return {
        "currency": prices.currency,
        "days": list(days),
        "parts": [
            {"part": part.name, "unit": part.unit, "amounts": part.amounts, "costs": part.costs()}
            for part in parts
        ],
        "totals": totals(parts),
        "left_out": unknown(parts),
        "fleets": fleet_costs(day, prices) if day else {},
    }


def _text(parts: Sequence[CostPart], days: Sequence[int], prices: PriceList, day: DayUsage | None) -> str:
    from headcount.services.cost import fleet_costs, totals, unknown

    width = max(len(part.name) for part in parts) + 2

    def row(name: str, cells: Sequence[str], end: str = "") -> str:
        return f"{name:<{width}}{''.join(f'{cell:>14}' for cell in cells)}  {end}".rstrip()

    lines = [row("amounts a month", [f"{n} days" for n in days])]
    lines += [row(part.name, [_number(each) for each in part.amounts], part.unit) for part in parts]
    lines += ["", row(f"{prices.currency} a month", [f"{n} days" for n in days])]
    lines += [row(part.name, [_number(each) for each in part.costs()]) for part in parts]
    lines.append(row("sum", [_number(each) for each in totals(parts)]))
    missing = unknown(parts)
    if missing:
        lines.append(f"not in the sum: {', '.join(missing)}")
    if day is not None:
        fleets = fleet_costs(day, prices)
        lines += ["", f"brokers and workers of the load test ({day.devices} devices), a core each:"]
        lines += [row(name, [_number(each)], f"{prices.currency} a month") for name, each in fleets.items()]
        if day.fixed is not None:
            lines.append(row("elastic / fixed", [f"{day.elastic.unit_s / max(day.fixed.unit_s, 1e-9):.2f}"]))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
