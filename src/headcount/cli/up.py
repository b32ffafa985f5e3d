"""`headcount up` and `headcount demo`: everything on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headcount.cli import LAYERS
from headcount.cli.options import SettingsCommand, takes_settings
from headcount.errors import HeadcountError, SettingsError
from headcount.settings.bridge import BRIDGE_GROUP
from headcount.settings.deployment import ANY, DEPLOYMENT_GROUPS, Settings
from headcount.settings.formats import joined
from headcount.settings.layers import Layers
from headcount.settings.proxy import PROXY_GROUP
from headcount.settings.scaling import SCALE_GROUPS

if TYPE_CHECKING:
    from headcount.history.objects import ObjectStore
    from headcount.roles.site import SiteSummary

_log = logging.getLogger(__name__)

_OPEN = (
    "  open     devices need no account, and programs on this machine have full access: for evaluation only\n"
)
#: Settings of a cluster that the processes of one machine use, too.
_UNITS = ("internal_host", "advertise", "leaf_port", "health_port", "drain_s", "stop_s", "secret_file")
_DEMO = {"data": Path("headcount-data/demo"), "speed": 30.0, "open": True}
_PORTS = ("mqtt_port", "ws_port", "http_port", "nats_port")


def require_site(settings: Settings) -> None:
    """Stop where there is no site file.

    Raises:
        SettingsError: the file does not exist.
    """
    if not settings.site.exists():
        raise SettingsError(
            "site",
            f"{settings.site} does not exist. Name a site file with --site, create one with "
            "`headcount site import`, or try `headcount demo`",
        )


@click.command(cls=SettingsCommand)
@click.option("--elastic", is_flag=True, help="Run as many brokers and workers as the load needs.")
@takes_settings(*DEPLOYMENT_GROUPS, hidden=(*_UNITS, *SCALE_GROUPS, PROXY_GROUP, BRIDGE_GROUP))
def up(elastic: bool, settings: Settings) -> None:
    """Run everything on this machine: broker, counting, history, API and map.

    Prints the addresses of map, API and MQTT once it is ready. Ctrl-C stops it; the next start continues where
    it stopped. With --elastic a balancer (HAProxy) distributes connections across a changing number of brokers,
    and a changing number of workers counts. The flags of `headcount scale` are accepted, too.

    \b
    Examples:
      headcount up --site campus.geojson
      headcount up --site campus.geojson --data /var/lib/headcount --host 0.0.0.0
      headcount up --site campus.geojson --open
      headcount up --site campus.geojson --elastic --max-workers 8
    """
    require_site(settings)
    asyncio.run(_up(settings, elastic=elastic))


async def _up(settings: Settings, *, elastic: bool) -> None:
    from headcount.roles import up as machine
    from headcount.runtime.logs import configure_logging
    from headcount.runtime.private_files import PRIVATE_UMASK
    from headcount.runtime.signals import run_until_stopped

    os.umask(PRIVATE_UMASK)
    configure_logging("up", settings.log_level or "WARNING")

    async def serve() -> None:
        async with (machine.elastic if elastic else machine.everything)(settings) as site:
            _greet(settings, site, _fleet(settings) if elastic else "")
            await asyncio.Event().wait()

    await run_until_stopped(serve())


def _url(settings: Settings, path: str) -> str:
    """An address of the API, as seen from this machine."""
    from headcount.settings.formats import local_host

    host = joined((local_host(settings.host), settings.http_port))
    return f"{'https' if settings.encrypted else 'http'}://{host}{path}"


def _certificate(settings: Settings) -> str:
    """The certificate and its fingerprint, so that people can recognize it."""
    from headcount.roles.tls import tls_files_of
    from headcount.tls.certificates import display_fingerprint, fingerprint, first_certificate

    tls = tls_files_of(settings)
    if tls is None:
        return ""
    shown = first_certificate(tls.certificate)
    made = "self-signed, so browsers warn; see docs/guides/secure.md" if tls.self_made else tls.certificate
    return f"  tls      {made}\n           SHA-256 {display_fingerprint(fingerprint(shown))}\n"


def _fleet(settings: Settings) -> str:
    """The limits of the fleet, and where its state is published."""
    limits = settings.scale
    return (
        f"  fleet    {_url(settings, '/v1/system/scaling')}"
        f"  {limits.min_brokers} to {limits.max_brokers} brokers,"
        f" {limits.min_workers} to {limits.max_workers} workers\n"
    )


def _greet(settings: Settings, site: SiteSummary, more: str = "") -> None:
    machine = f"<this machine>:{settings.mqtt_port}"
    if settings.host not in ANY:
        machine = joined((settings.host, settings.mqtt_port))
    click.echo(
        f"headcount counts {site.name}.\n"
        f"  map      {_url(settings, '/')}\n"
        f"  counts   {_url(settings, f'/v1/sites/{site.id}/counts')}\n"
        f"  devices  {'mqtts' if settings.encrypted else 'mqtt'}://{machine}"
        f"  topic headcount/{site.id}/person/<device>/fix\n"
        f"  data     {settings.data}\n"
        f"{_certificate(settings)}"
        f"{more}"
        f"{_OPEN if settings.open else ''}"
        "Ctrl-C stops it."
    )
    sys.stdout.flush()


@click.command(cls=SettingsCommand)
@click.option("--people", type=click.IntRange(0), default=6000, help="Number of people.")
@click.option("--vehicles", type=click.IntRange(0), default=800, help="Number of vehicles.")
@click.option("--seed", type=int, default=1, help="Seed; the same seed gives the same day.")
@click.option("--browser/--no-browser", default=True, help="Open the map in a browser, if there is one.")
@takes_settings(
    *DEPLOYMENT_GROUPS,
    hidden=("open",),  # the simulated crowd has no accounts
    defaults=_DEMO,
    default_texts={"site": "the bundled one of the University of Limerick"},
)
@click.pass_context
def demo(
    ctx: click.Context, /, people: int, vehicles: int, seed: int, browser: bool, settings: Settings
) -> None:
    """Show a simulated university day, in time-lapse, on the live map.

    Prints the addresses of map, API and MQTT once it is ready, and runs until Ctrl-C. One simulated second takes
    1/speed seconds; the site's hold times and speed limits are scaled alike. Ports that are taken are replaced
    by free ones, unless you set them. As with `headcount up --open`, devices need no account.

    \b
    Examples:
      headcount demo
      headcount demo --people 500 --vehicles 100 --speed 60
      headcount demo --site campus.geojson
    """
    from headcount.runtime.ports import free_port
    from headcount.sites.files import bundled_site

    layers: Layers = ctx.meta[LAYERS]
    changes: dict[str, Any] = {
        name: free_port(getattr(settings, name)) for name in _PORTS if not layers.has(name)
    }
    if not layers.has("site"):
        changes["site"] = bundled_site("ul")
    crowd = {"people": people, "vehicles": vehicles, "seed": seed}
    asyncio.run(_demo(replace(settings, open=True, **changes), crowd, browser=browser))


async def _demo(settings: Settings, crowd: dict[str, int], *, browser: bool) -> None:
    from headcount.history.manifest import MANIFEST
    from headcount.roles import up as machine
    from headcount.roles.tls import tls_files_of
    from headcount.runtime.logs import configure_logging
    from headcount.runtime.private_files import PRIVATE_UMASK
    from headcount.runtime.signals import run_until_stopped

    os.umask(PRIVATE_UMASK)
    configure_logging("demo", settings.log_level or "WARNING")
    arguments = ["simulate", "--port", str(settings.mqtt_port), "--quiet"]
    arguments += [f"--{name}={number}" for name, number in crowd.items()]
    is_first = _history(settings).versioned(MANIFEST) is None
    if tls := tls_files_of(settings):
        arguments += ["--ca", str(tls.certificate)]

    async def work() -> None:
        async with (
            machine.everything(settings) as site,
            machine.running({"simulate": machine.Part([*arguments, "--site", site.id], settings)}),
        ):
            _greet(settings, site)
            if browser:
                _open_browser(_url(settings, "/"))
            if is_first:
                await _simulate_past_day(settings, crowd)
            await asyncio.Event().wait()

    await run_until_stopped(work())


def _history(settings: Settings) -> ObjectStore:
    from headcount.history.places import store_at
    from headcount.settings.environment import process_environment

    return store_at(settings.history, settings.data, process_environment())


async def _simulate_past_day(settings: Settings, crowd: dict[str, int]) -> None:
    """Store a day of history before now; a failure is a warning."""
    from headcount.devices.pseudonym_keys import PseudonymKeys
    from headcount.devices.pseudonyms import Pseudonyms
    from headcount.messages.times import DAY_S
    from headcount.roles.services import open_services
    from headcount.settings.retention_periods import retention_periods
    from headcount.simulate.past_day import store_past_day
    from headcount.sites.files import load_site

    now_s, stop = time.time(), threading.Event()
    try:
        async with open_services(settings, "headcount demo") as services:
            keys = PseudonymKeys(services.client)
            await keys.load()
            await keys.ensure([int(now_s // DAY_S) - 1, int(now_s // DAY_S)])
        fixes = await asyncio.to_thread(
            store_past_day,
            _history(settings),
            load_site(settings.site),
            Pseudonyms(keys.keys),
            now_s,
            periods=retention_periods(settings.retain),
            stop=stop,
            **crowd,
        )
        click.echo(f"The history begins with a simulated day of {fixes:,} fixes.")
    except HeadcountError as error:
        _log.warning("the demonstration has no history of the past day: %s", error)
    finally:
        stop.set()  # the thread would delay the end


def _open_browser(url: str) -> None:
    """Open the map, unless the only browser is one for terminals."""
    import webbrowser

    try:
        controller = webbrowser.get()
    except webbrowser.Error:
        return
    if getattr(controller, "name", "") not in {"www-browser", "lynx", "w3m", "links", "elinks"}:
        controller.open(url)
