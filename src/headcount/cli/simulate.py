"""`headcount simulate`, `publish`: movement over MQTT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headcount.cli import CONFIG
from headcount.cli.options import Command
from headcount.cli.parameters import duration, time_of_day
from headcount.errors import SettingsError
from headcount.messages.topics import KINDS
from headcount.settings.layers import Layers
from headcount.simulate import CONNECTIONS

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from headcount.cli.progress import ProgressBar
    from headcount.simulate.fleet import BrokerAddress, SendStats
    from headcount.simulate.pacing import RunProgress

Result = TypeVar("Result")
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


def _target_options(function: Command) -> Command:
    """Where to send."""
    for option in (
        click.option("--site", "site_id", help="Id of the site, if the broker has several."),
        click.option(
            "--ca",
            type=_FILE,
            show_default="the system's",
            help="Certificates to trust (PEM); implies --tls.",
        ),
        click.option("--tls", is_flag=True, help="Connect over TLS."),
        click.option(
            "--port",
            type=click.IntRange(1, 65535),
            show_default="the setting mqtt_port, else 1883, with TLS 8883",
            help="MQTT port.",
        ),
        click.option("--host", default="127.0.0.1", help="MQTT host."),
    ):
        function = option(function)
    return function


def _sending_options(function: Command) -> Command:
    """How to send."""
    for option in (
        click.option("--quiet", is_flag=True, help="Show no progress."),
        click.option("--qos", type=click.IntRange(0, 1), default=0, help="MQTT quality of service."),
        click.option(
            "--connections",
            type=click.IntRange(1, 20_000),
            default=CONNECTIONS,
            help="Maximum number of MQTT connections; further devices share them.",
        ),
    ):
        function = option(function)
    return function


@click.command()
@_target_options
@click.option(
    "--people", type=click.IntRange(0, 1_000_000), default=1000, help="Number of people with a phone."
)
@click.option("--vehicles", type=click.IntRange(0, 1_000_000), default=300, help="Number of vehicles.")
@click.option("--seed", type=click.IntRange(0), default=1, help="Seed; the same seed gives the same day.")
@click.option(
    "--start",
    "start_s",
    type=time_of_day,
    metavar="HH:MM",
    default="09:30",
    help="Simulated time of day at the start.",
)
@click.option(
    "--duration",
    "duration_s",
    type=duration,
    metavar="TIME",
    help="Real time after which to stop: 90s, 5m, 2h.  [default: never]",
)
@click.option(
    "--speed",
    type=click.FloatRange(0, 3600, min_open=True),
    help="Simulated seconds per real second; it must be that of the deployment.  [default: that of the deployment]",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the true place of each device to this file, as CSV.",
)
@_sending_options
def simulate(quiet: bool, **values: Any) -> None:
    """Publish a simulated campus day over MQTT.

    People follow a timetable, walk between buildings, eat and read. Cars enter by road, park and stop reporting.
    Each device is an MQTT client with a last will, whose GPS has errors and reports their size. Site and speed are read
    from the running deployment. Prints the number of fixes sent.

    \b
    Examples:
      headcount simulate
      headcount simulate --people 5000 --vehicles 1500 --start 08:00 --truth truth.csv
      headcount up --speed 60   and then   headcount simulate --duration 10m
    """
    from headcount.cli.progress import ProgressBar
    from headcount.simulate.runs import CrowdRun, run_crowd

    broker = _broker(values)
    run = CrowdRun(broker=broker, **values)
    run = replace(run, connections=min(run.connections, max(1, run.people + run.vehicles)))
    with ProgressBar(quiet=quiet) as bar:
        progress = _SendProgress(bar, _crowd_text)
        sent = _run(lambda stop: run_crowd(run, stop, progress.report))
    click.echo(_summary(sent), err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_target_options
@click.option("--user", default="", show_default=False, help="Id of the registered device that sends.")
@click.option("--password-file", type=_FILE, help="File with its secret.")
@click.option(
    "--speed",
    type=click.FloatRange(0, 100_000, min_open=True),
    default=1.0,
    help="Seconds of the recording per real second.",
)
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the devices in rows without a kind.")
@click.option("--loop", is_flag=True, help="Start again at the end.")
@_sending_options
def publish(quiet: bool, **values: Any) -> None:
    """Publish a recording over MQTT as if it happened now.

    FILE is .csv, .ndjson, .geojson, .gpx or .mfjson (also .gz), or .parquet with the columns t,device,kind,lat,lon and
    optionally acc, vel (m/s) and received. Rows are sent in the order of the file; a time t becomes now + (t - t0) / speed. Rows that are not valid are
    skipped and reported. Prints the number of fixes sent.

    \b
    Examples:
      headcount publish buses.csv.gz --speed 10
      headcount publish walk.ndjson --kind person --loop
      headcount publish walk.ndjson --ca server.crt --user 4dh2m7qk3x5vtbn6zwcy --password-file secret

    Where devices need accounts, a recording must be of one device, and is sent as the device of the account.
    """
    from headcount.cli.progress import ProgressBar
    from headcount.simulate.runs import TraceRun, run_trace

    broker = _broker(values)
    run = TraceRun(broker=broker, **values)
    with ProgressBar(quiet=quiet) as bar:
        progress = _SendProgress(bar, _trace_text)
        end = _run(lambda stop: run_trace(run, stop, progress.report))
    for warning in end.warnings:
        click.echo(f"Warning: {warning}", err=True)
    for error in end.errors:
        click.echo(f"skipped: {error}", err=True)
    if end.broken:
        click.echo(f"{end.broken} of {end.rows} rows are not valid and were skipped", err=True)
    if abs(run.speed - end.system_speed) > 1e-9:
        click.echo(
            f"The deployment runs at speed {end.system_speed:g}, the recording was sent at {run.speed:g}: "
            "movement may be judged implausible, and devices that stop reporting leave at another time. "
            f"For the same speed, start it with `headcount up --speed {run.speed:g}`.",
            err=True,
        )
    click.echo(_summary(end.sent), err=True)


def _broker(values: dict[str, Any]) -> BrokerAddress:
    """Take the options of the broker, and of an account there, out of those of a command."""
    from headcount.simulate.fleet import BrokerAddress
    from headcount.tls.contexts import client_context

    host, port, tls, ca = (values.pop(name) for name in ("host", "port", "tls", "ca"))
    user, password = values.pop("user", ""), _secret(values.pop("password_file", None))
    encrypted = tls or ca is not None
    context = client_context(ca) if encrypted else None
    port = port or _configured_port() or (8883 if encrypted else 1883)
    return BrokerAddress(host, port, context, user, password)


def _configured_port() -> int | None:
    """The MQTT port that a variable or the configuration file sets."""
    layers = Layers.read({}, click.get_current_context().meta.get(CONFIG))
    return layers.load(("mqtt_port",)).mqtt_port if layers.has("mqtt_port") else None


def _secret(file: Path | None) -> str:
    try:
        return "" if file is None else file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("--password-file", f"{file} cannot be read: {error}") from error


def _run(work: Callable[[asyncio.Event], Awaitable[Result]]) -> Result:
    """Run a coroutine until it ends; Ctrl-C and SIGTERM set its stop event."""
    from headcount.runtime.signals import stop_on_signals

    async def main() -> Result:
        stop = asyncio.Event()
        stop_on_signals(stop)
        return await work(stop)

    return asyncio.run(main())


class _SendProgress:
    """A progress bar with the rate of the last second."""

    def __init__(self, bar: ProgressBar, text: Callable[[RunProgress, float], str]) -> None:
        self._bar = bar
        self._text = text
        self._last: tuple[float, int] | None = None
        self._rate = 0.0

    def report(self, progress: RunProgress) -> None:
        """Show the progress of the run."""
        now_s, sent = time.monotonic(), progress.sent.sent
        if self._last is None:
            self._last = now_s, sent
        elif now_s - self._last[0] >= 1:
            self._rate = (sent - self._last[1]) / (now_s - self._last[0])
            self._last = now_s, sent
        self._bar.show(self._text(progress, self._rate), progress.share)


def _crowd_text(progress: RunProgress, rate: float) -> str:
    minutes = int(progress.clock_s % 86_400) // 60
    return (
        f"{minutes // 60:02}:{minutes % 60:02} on the campus, {progress.people} people and {progress.vehicles} "
        f"vehicles there, {_sent_text(progress.sent)}, {rate:.0f}/s"
    )


def _trace_text(progress: RunProgress, rate: float) -> str:
    return f"{progress.clock_s:.0f} s of the recording, {_sent_text(progress.sent)}, {rate:.0f}/s"


def _sent_text(sent: SendStats) -> str:
    waiting = f", {sent.waiting} waiting" if sent.waiting > 100 else ""
    dropped = f", {sent.dropped} dropped" if sent.dropped else ""
    return f"{sent.sent} fixes sent{waiting}{dropped} over {sent.connected} connections"


def _summary(sent: SendStats) -> str:
    lost = f", {sent.dropped} could not be sent" if sent.dropped else ""
    broken = f"; connections broke {sent.broken} times" if sent.broken else ""
    return f"{sent.sent} fixes sent{lost}{broken}"
