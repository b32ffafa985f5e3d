"""`headcount simulate` and `headcount publish`: movement to count."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from headcount.errors import HeadcountError
from headcount.messages.topics import KINDS, Kind
from headcount.runtime.signals import stop_on_signals
from headcount.simulate.fleet import CONNECTIONS, BrokerAddress, SendStats
from headcount.simulate.pacing import RunProgress
from headcount.simulate.runs import CrowdRun, TraceRun, run_crowd, run_trace
from headcount.tls.contexts import client_context

Result = TypeVar("Result")
HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Where the system's MQTT port is.")
PORT = click.option(
    "--port", type=click.IntRange(1, 65535), show_default="1883, with TLS 8883", help="The MQTT port."
)
TLS = click.option("--tls", is_flag=True, help="Speak TLS.")
CA = click.option(
    "--ca",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    show_default="the system's own",
    help="Certificates that are trusted (PEM); means --tls.",
)
USER = click.option("--user", default="", help="Id of the registered device that sends.")
PASSWORD = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with its secret.",
)
SITE = click.option("--site", "site_id", help="Id of the site, where the broker has several.")
QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")
QOS = click.option(
    "--qos", type=click.IntRange(0, 1), default=0, show_default=True, help="MQTT quality of service."
)
CONNECTIONS_OPTION = click.option(
    "--connections",
    type=click.IntRange(1, 20_000),
    default=CONNECTIONS,
    show_default=True,
    help="MQTT connections: one a device, up to that many; beyond, devices share them.",
)


class _UnusableError(click.ClickException):
    """End the program with 2, as every error of headcount does."""

    exit_code = 2


def _clock(text: str) -> float:
    """Seconds since midnight of a time of day."""
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    if not found or int(found[1]) > 23 or int(found[2]) > 59:
        raise click.BadParameter(f"{text!r} is no time of day such as 09:30")
    return 3600.0 * int(found[1]) + 60.0 * int(found[2])


def _duration(text: str) -> float:
    """Seconds of a duration."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found:
        raise click.BadParameter(f"{text!r} is no duration such as 90, 90s, 5m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


@click.command()
@HOST
@PORT
@TLS
@CA
@SITE
@click.option("--people", type=click.IntRange(0, 1_000_000), default=1000, show_default=True, help="Phones.")
@click.option("--vehicles", type=click.IntRange(0, 1_000_000), default=300, show_default=True, help="Cars.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same day.")
@click.option(
    "--start",
    type=_clock,
    metavar="HH:MM",
    default="09:30",
    show_default=True,
    help="Simulated time of day at the start.",
)
@click.option(
    "--duration",
    type=_duration,
    metavar="TIME",
    help="Real time after which to end (90, 5m, 2h); without it, never.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0, 3600, min_open=True),
    help="Simulated seconds in a real one; must be the system's own, which is the default.",
)
@click.option(
    "--truth", type=click.Path(path_type=Path, dir_okay=False), help="Write who really was where, as CSV."
)
@CONNECTIONS_OPTION
@QOS
@QUIET
def simulate(
    host: str,
    port: int | None,
    tls: bool,
    ca: Path | None,
    site_id: str | None,
    people: int,
    vehicles: int,
    seed: int,
    start: float,
    duration: float | None,
    speed: float | None,
    truth: Path | None,
    connections: int,
    qos: int,
    quiet: bool,
) -> None:
    """Send a believable campus day over MQTT.

    People come and go by timetable, walk between buildings, eat, read; cars come through the gates,
    park and fall silent. Every device is a real MQTT client with a last will; its GPS errs, and says
    honestly how much. The site, and how fast its time runs, are asked of the running system.

    \b
    Examples:
      headcount simulate
      headcount simulate --people 5000 --vehicles 1500 --start 08:00 --truth truth.csv
      headcount up --speed 60   and then   headcount simulate --duration 10m
    """
    run = CrowdRun(
        broker=_broker(host, port, tls=tls, ca=ca),
        site_id=site_id,
        people=people,
        vehicles=vehicles,
        seed=seed,
        start_s=start,
        speed=speed,
        duration_s=duration,
        connections=min(connections, max(1, people + vehicles)),
        qos=qos,
        truth=truth,
    )
    with _Shown(quiet, _crowd_line) as shown:
        sent = _run(lambda stop: run_crowd(run, stop, shown.report))
    click.echo(_summary(sent), err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@HOST
@PORT
@TLS
@CA
@USER
@PASSWORD
@SITE
@click.option(
    "--speed",
    type=click.FloatRange(0, 100_000, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds of the recording in a real one.",
)
@click.option("--kind", type=click.Choice(KINDS), help="Kind of rows that don't name one.")
@click.option("--loop", is_flag=True, help="Begin again at the end.")
@CONNECTIONS_OPTION
@QOS
@QUIET
def publish(
    file: Path,
    host: str,
    port: int | None,
    tls: bool,
    ca: Path | None,
    user: str,
    password_file: Path | None,
    site_id: str | None,
    speed: float,
    kind: Kind | None,
    loop: bool,
    connections: int,
    qos: int,
    quiet: bool,
) -> None:
    """Send a recording over MQTT as if it happened now.

    FILE is .csv, .csv.gz, .ndjson or .parquet with columns t,device,kind,lat,lon and maybe acc, vel
    (m/s), received. Rows go out in the order of the file; a time t becomes now + (t - t0) / speed.
    Broken rows are left out and named.

    \b
    Examples:
      headcount publish buses.csv.gz --speed 10
      headcount publish walk.ndjson --kind person --loop
      headcount publish walk.ndjson --ca server.crt --user 4dh2m7qk3x5vtbn6zwcy --password-file secret

    Where devices need accounts a recording is of one device, and is sent as that of the account.
    """
    run = TraceRun(
        file=file,
        kind=kind,
        broker=_broker(host, port, tls=tls, ca=ca, user=user, password=_secret(password_file)),
        site_id=site_id,
        speed=speed,
        loop=loop,
        connections=connections,
        qos=qos,
    )
    with _Shown(quiet, _trace_line) as shown:
        end = _run(lambda stop: run_trace(run, stop, shown.report))
    for error in end.errors:
        click.echo(f"left out: {error}", err=True)
    if end.broken:
        click.echo(f"{end.broken} of {end.rows} rows are broken and were left out", err=True)
    if abs(speed - end.system_speed) > 1e-9:
        click.echo(
            f"The system runs at speed {end.system_speed:g}, the recording was sent at {speed:g}: "
            "movement may be judged implausible, and who falls silent leaves at another time. "
            f"Start it with `headcount up --speed {speed:g}` to have both alike.",
            err=True,
        )
    click.echo(_summary(end.sent), err=True)


def _broker(
    host: str, port: int | None, *, tls: bool, ca: Path | None, user: str = "", password: str = ""
) -> BrokerAddress:
    encrypted = tls or ca is not None
    try:
        context = client_context(ca) if encrypted else None
    except HeadcountError as error:
        raise _UnusableError(str(error)) from error
    return BrokerAddress(host, port or (8883 if encrypted else 1883), context, user, password)


def _secret(file: Path | None) -> str:
    try:
        return "" if file is None else file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _UnusableError(f"--password-file {file} can't be read: {error}") from error


def _run(work: Callable[[asyncio.Event], Awaitable[Result]]) -> Result:
    """Run a coroutine until it ends; Ctrl-C and SIGTERM set its stop event."""

    async def main() -> Result:
        stop = asyncio.Event()
        stop_on_signals(stop)
        return await work(stop)

    try:
        return asyncio.run(main())
    except HeadcountError as error:
        raise _UnusableError(str(error)) from error


class _Shown:
    """Progress on standard error, while a terminal is there to show it."""

    def __init__(self, quiet: bool, line: Callable[[RunProgress, float], str]) -> None:
        self._line = line
        columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(stderr=True), disable=quiet, refresh_per_second=5)
        self._task: TaskID | None = None
        self._last: tuple[float, int] | None = None
        self._rate = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, progress: RunProgress) -> None:
        """Show how far the run is."""
        now_s, sent = self._bar.get_time(), progress.sent.sent
        if self._last is None:
            self._last = now_s, sent
        elif now_s - self._last[0] >= 1:
            self._rate = (sent - self._last[1]) / (now_s - self._last[0])
            self._last = now_s, sent
        text = self._line(progress, self._rate)
        if self._task is None:
            self._task = self._bar.add_task(text, total=None if progress.share is None else 1.0)
        self._bar.update(self._task, description=text, completed=progress.share or 0)


def _crowd_line(progress: RunProgress, rate: float) -> str:
    minutes = int(progress.clock_s % 86_400) // 60
    return (
        f"{minutes // 60:02}:{minutes % 60:02} on the campus, {progress.people} people and {progress.vehicles} "
        f"vehicles there, {_sent_text(progress.sent)}, {rate:.0f}/s"
    )


def _trace_line(progress: RunProgress, rate: float) -> str:
    return f"{progress.clock_s:.0f} s of the recording, {_sent_text(progress.sent)}, {rate:.0f}/s"


def _sent_text(sent: SendStats) -> str:
    waiting = f", {sent.waiting} waiting" if sent.waiting > 100 else ""
    dropped = f", {sent.dropped} dropped" if sent.dropped else ""
    return f"{sent.sent} fixes sent{waiting}{dropped} over {sent.connected} connections"


def _summary(sent: SendStats) -> str:
    lost = f", {sent.dropped} could not be sent" if sent.dropped else ""
    broken = f"; connections broke {sent.broken} times" if sent.broken else ""
    return f"{sent.sent} fixes sent{lost}{broken}"
