"""Arguments → settings → role; nothing else."""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
import webbrowser
from functools import partial
from pathlib import Path
from typing import Any

import click

from headcount import __version__
from headcount.broker.nats_config import LOCAL
from headcount.cli.audit import audit
from headcount.cli.ban import ban
from headcount.cli.bench import bench_group
from headcount.cli.ca import ca
from headcount.cli.cluster import cluster_options
from headcount.cli.deployment import deployment_options, site_option
from headcount.cli.device import device as device_group
from headcount.cli.device_many import COMMANDS as OF_MANY_DEVICES
from headcount.cli.prove import prove_command
from headcount.cli.replay import replay
from headcount.cli.retention import retention
from headcount.cli.scale import scale_options, taken
from headcount.cli.simulate import publish, simulate
from headcount.cli.site import site as site_group
from headcount.cli.token import token
from headcount.errors import HeadcountError, SettingsError
from headcount.roles import ROLES, load
from headcount.roles import up as machine
from headcount.roles.endpoints import health_url
from headcount.roles.scale import run_with
from headcount.roles.tls import tls_files_of
from headcount.runtime.heartbeat import beating
from headcount.runtime.logs import configure_logging
from headcount.runtime.ports import free_port
from headcount.runtime.signals import run_role, run_until_stopped
from headcount.scaling.scale_settings import ScaleSettings
from headcount.settings import DEFAULT_DATA, DEFAULT_SITE, LOOPBACK, Settings, joined, site_path, with_ports
from headcount.sites.files import bundled_site, load_site
from headcount.tls.certificates import fingerprint, first_certificate, spoken

CONFIG = Path("headcount.toml")
#: Said at every start where nobody is asked who they are.
OPEN = (
    "  open     devices need no account, and programs on this machine may see everything: "
    "for trying out only\n"
)


#: Groups of commands at the core: the configuration file says them where it is, too.
_AT_THE_CORE: dict[str, click.Group] = {
    "audit": audit,
    "ban": ban,
    "device": device_group,
    "retention": retention,
    "token": token,
}


class Main(click.Group):
    """The command line; our own errors become one line and exit code 2."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments, and with them the configuration file."""
        try:
            return super().make_context(*args, **extra)
        except HeadcountError as error:
            click.echo(f"headcount: {error}", err=True)
            raise click.exceptions.Exit(2) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except HeadcountError as error:
            click.echo(f"headcount: {error}", err=True)
            ctx.exit(2)
        except ExceptionGroup as group:
            ours, others = group.split(HeadcountError)
            if ours is None or others is not None:
                raise
            click.echo(f"headcount: {_first(ours)}", err=True)
            ctx.exit(2)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _settings(site: Path | None, values: dict[str, Any]) -> Settings:
    found = site_path(site)
    if found is None:
        raise SettingsError(
            "--site", "no site file. Name one, make one with `headcount site import`, or try `headcount demo`"
        )
    return Settings(site=found, **with_ports(values))


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make a configuration file's values the defaults of every command."""
    if path is None:
        if not CONFIG.exists():
            return
        path = CONFIG
    try:
        values = {name.replace("-", "_"): value for name, value in tomllib.loads(path.read_text()).items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"--config {path}", f"can't be read: {error}") from error
    known = {"site", *Settings.__dataclass_fields__}
    for name in values:
        if name not in known:
            raise SettingsError(f"{path}: {name}", f"no such setting; there are {', '.join(sorted(known))}")
    groups = {name: dict.fromkeys(group.commands, values) for name, group in _AT_THE_CORE.items()}
    ctx.default_map = dict.fromkeys(("up", "demo", "run", "scale"), values) | groups


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="headcount")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar="HEADCOUNT_CONFIG",
    show_envvar=True,
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    help="Settings as TOML. Default: headcount.toml in this folder, if it is there.",
)
def main() -> None:
    """How many people and vehicles are in every zone of a campus, exactly and at once.

    \b
    headcount demo                      see it: a simulated campus
    headcount up --site campus.geojson  run it: everything on this machine
    headcount site import campus.osm    make a site file from OpenStreetMap
    """


main.add_command(site_group)
main.add_command(ca)
main.add_command(device_group)
for _command in OF_MANY_DEVICES:
    device_group.add_command(_command)
main.add_command(token)
main.add_command(audit)
main.add_command(ban)
main.add_command(retention)
main.add_command(simulate)
main.add_command(publish)
main.add_command(prove_command)
main.add_command(replay)
main.add_command(bench_group)


@main.command()
@click.option("--elastic", is_flag=True, help="As many brokers and workers as the traffic needs.")
@site_option
@deployment_options
@cluster_options(
    "inside_host", "advertise", "leaf_port", "health_port", "drain_s", "stop_s", "secret_file", hidden=True
)
def up(elastic: bool, site: Path | None, **values: Any) -> None:
    """Run everything on this machine: broker, counting, history, API and map.

    \b
    headcount up --site campus.geojson
    headcount up --site campus.geojson --data /var/lib/headcount --host 0.0.0.0
    headcount up --site campus.geojson --open
    mosquitto_pub -t headcount/ul/person/me/fix -m '{"tst":1764000000,"lat":52.67345,"lon":-8.57312}'

    Ctrl-C stops it; started again it goes on where it was.

    \b
    HEADCOUNT_SCALE_WORKERS_MOST=8 headcount up --elastic --site campus.geojson

    With --elastic there is a balancer (HAProxy) before a changing number of brokers, and a changing
    number of workers. The options of headcount scale are variables here.
    """
    asyncio.run(_up(_settings(site, values), elastic=elastic))


async def _up(settings: Settings, *, elastic: bool) -> None:
    configure_logging("up", "WARNING")

    async def serve() -> None:
        async with (machine.elastic if elastic else machine.everything)(settings):
            _greet(settings, _fleet(settings) if elastic else "")
            await asyncio.Event().wait()

    await run_until_stopped(serve())


def _url(settings: Settings, path: str) -> str:
    """An address of the API, for a person in front of this machine."""
    host = joined((LOCAL.get(settings.host, settings.host), settings.http_port))
    return f"{'https' if settings.encrypted else 'http'}://{host}{path}"


def _certificate(settings: Settings) -> str:
    """What browsers and devices are shown: how to tell ours from another's."""
    tls = tls_files_of(settings)
    if tls is None:
        return ""
    shown = first_certificate(tls.certificate)
    made = "self-made, unknown to everybody; see docs/guides/secure.md" if tls.self_made else tls.certificate
    return f"  tls      {made}\n           SHA-256 {spoken(fingerprint(shown))}\n"


def _fleet(settings: Settings) -> str:
    """How many there may be, and where it says how many there are and why."""
    chosen = ScaleSettings.from_environment(os.environ)
    return (
        f"  fleet    {_url(settings, '/v1/system/scaling')}"
        f"  {chosen.brokers_least} to {chosen.brokers_most} brokers,"
        f" {chosen.workers_least} to {chosen.workers_most} workers\n"
    )


def _greet(settings: Settings, more: str = "") -> None:
    site = load_site(settings.site)
    click.echo(
        f"headcount counts {site.name}.\n"
        f"  map      {_url(settings, '/')}\n"
        f"  counts   {_url(settings, f'/v1/sites/{site.id}/counts')}\n"
        f"  devices  {'mqtts' if settings.encrypted else 'mqtt'}://{'127.0.0.1' if settings.host == LOOPBACK else '<this machine>'}:{settings.mqtt_port}"
        f"  topic headcount/{site.id}/person/<device>/fix\n"
        f"  data     {settings.data}\n"
        f"{_certificate(settings)}"
        f"{more}"
        f"{OPEN if settings.open else ''}"
        "Ctrl-C stops it."
    )
    sys.stdout.flush()


@main.command()
@click.option("--people", type=click.IntRange(0), default=6000, show_default=True, help="How many people.")
@click.option("--vehicles", type=click.IntRange(0), default=800, show_default=True, help="How many cars.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same day.")
@click.option("--browser/--no-browser", default=True, help="Open the map in a browser, where there is one.")
@site_option
@deployment_options
@click.pass_context
def demo(
    ctx: click.Context,
    /,
    people: int,
    vehicles: int,
    seed: int,
    browser: bool,
    site: Path | None,
    **values: Any,
) -> None:
    """See it: a day of a simulated university, in time-lapse, on the live map.

    \b
    headcount demo
    headcount demo --people 500 --vehicles 100 --speed 60

    One simulated second lasts 1/speed seconds (default 30), and the site's holds and limits are
    scaled alike, so that nothing honest looks implausible. It listens on this machine only.
    """

    def given(name: str) -> bool:
        return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT

    values = with_ports(values)
    for name in ("mqtt_port", "ws_port", "http_port", "nats_port", "monitor_port"):
        if not given(name):
            values[name] = free_port(values[name])
    if not given("speed"):
        values["speed"] = 30.0
    if not given("data"):
        values["data"] = DEFAULT_DATA / "demo"
    values["open"] = True  # the crowd has no accounts
    settings = Settings(site=site or bundled_site("ul"), **values)
    crowd = ["--people", str(people), "--vehicles", str(vehicles), "--seed", str(seed)]
    asyncio.run(_demo(settings, crowd, browser=browser))


async def _demo(settings: Settings, crowd: list[str], *, browser: bool) -> None:
    configure_logging("demo", "WARNING")
    arguments = ["simulate", "--port", str(settings.mqtt_port), "--quiet", *crowd]
    if tls := tls_files_of(settings):
        arguments += ["--ca", str(tls.certificate)]

    async def work() -> None:
        async with (
            machine.everything(settings),
            machine.watched({"simulate": machine.Part(arguments, settings)}),
        ):
            _greet(settings)
            if browser:
                _open_browser(_url(settings, "/"))
            await asyncio.Event().wait()

    await run_until_stopped(work())


def _open_browser(url: str) -> None:
    """Open the map where a person sits in front of a screen."""
    try:
        controller = webbrowser.get()
    except webbrowser.Error:
        return
    if getattr(controller, "name", "") not in {"www-browser", "lynx", "w3m", "links", "elinks"}:
        controller.open(url)


@main.command()
@click.argument("role", type=click.Choice(sorted(ROLES)))
@site_option
@deployment_options
@cluster_options()
def run(role: str, site: Path | None, **values: Any) -> None:
    """Run one role in this process.

    \b
    headcount run core
    headcount run broker --core core-0:4222
    headcount run count --site campus.geojson --core core-0:4222

    \b
    core      the log, and all that the others agree on: one node, or three
    broker    takes devices' messages and hands them to the core
    count     counts its share of the partitions
    history   writes the last 24 hours
    adapters  translates other formats
    devices   looks after devices and their data; on one machine, lets devices in
    api       HTTP: map, API, metrics
    proxy     the balancer before brokers and API (HAProxy); more in variables HEADCOUNT_PROXY_…
    scale     adds and removes brokers and workers; more in variables HEADCOUNT_SCALE_…
    """
    if not ROLES[role]:
        settings = Settings(site=site_path(site) or DEFAULT_SITE, **with_ports(values))
    else:
        settings = _settings(site, values)
    configure_logging(role)

    async def work(stop: asyncio.Event) -> None:
        async with beating(health_url(role, settings)):
            await load(role)(settings, stop)

    asyncio.run(run_role(work))


@main.command()
@site_option
@scale_options
@deployment_options
@cluster_options()
def scale(site: Path | None, **values: Any) -> None:
    """Add and remove brokers and counting workers as the traffic needs them.

    \b
    headcount scale --dry-run
    headcount scale --workers-most 8 --brokers-most 4
    headcount scale --driver docker --image headcount --network headcount --secret-file secret

    It is the role `scale` with its settings as flags; `headcount run scale` takes them from variables.
    GET /v1/system/scaling has what it sees and why it did what.
    """
    chosen = taken(values)
    settings = Settings(site=site_path(site) or DEFAULT_SITE, **with_ports(values))
    configure_logging("scale")

    asyncio.run(run_role(partial(run_with, settings, chosen)))
