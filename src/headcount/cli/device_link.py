"""`headcount device link`, `ingest-key`, `claim`: hand devices over to their owners."""

from __future__ import annotations

import time
from pathlib import Path

import click

from headcount.cli.client import CORE, RunningDeployment, in_site, on_deployment, run_on_deployment
from headcount.cli.options import Command, takes_settings
from headcount.cli.output import as_json, print_json, private_file, to_file
from headcount.cli.parameters import duration
from headcount.devices import csv_table
from headcount.devices.provisioning import ingest_key_links, provisioning_links, public_host, qr_file, qr_text
from headcount.errors import SettingsError
from headcount.messages.records import PhoneOptions
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind
from headcount.settings.deployment import Settings

_qr = click.option(
    "--qr",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the QR code to this .svg or .png file.",
)


def _owntracks_options(function: Command) -> Command:
    """How the link sets up the app OwnTracks."""
    for option in (
        click.option(
            "--commands",
            is_flag=True,
            help="OwnTracks accepts commands, also those that change its settings and regions.",
        ),
        click.option("--encrypt", is_flag=True, help="OwnTracks encrypts its messages with a new key."),
        click.option("--http", is_flag=True, help="OwnTracks sends by HTTP instead of MQTT."),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--within", "within_s", type=duration, default="1h", help="Time until it expires.")
@click.option(
    "--for",
    "app",
    type=click.Choice(["owntracks", "page"]),
    default="owntracks",
    help="App that the QR code opens: OwnTracks, or the page /me in the browser.",
)
@_qr
@_owntracks_options
@as_json
@on_deployment("public_url")
async def link(
    running: RunningDeployment,
    id_: str,
    within_s: float,
    app: str,
    qr: Path | None,
    as_json: bool,
    **phone: bool,
) -> None:
    """Create a one-time link that sets up a phone.

    The first person who opens it receives a new secret for the device; a second use is rejected. Prints a QR code for
    the phone's camera, and the links for OwnTracks and for the browser.

    \b
    Examples:
      headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443
      headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443 --qr ada.svg
      headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443 --for page
      headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443 --encrypt --commands
    """
    base = _base_url(running.settings)
    device = await running.services.devices.get(id_)
    options = PhoneOptions(**phone)
    code = await running.services.provisioning.link(running.actor, device, int(within_s), options)
    links, expires = provisioning_links(base, code), iso(time.time() + within_s)
    chosen = links.owntracks if app == "owntracks" else links.page
    if qr is not None:
        qr_file(chosen, str(qr))
    if as_json:
        shown = {"device": id_, "code": code, "expires": expires}
        print_json(shown | {"owntracks": links.owntracks, "page": links.page})
        return
    if qr is None:
        click.echo(qr_text(chosen))
    click.echo(f"OwnTracks  {links.owntracks}\nbrowser    {links.page}\nworks once, until {expires}")


@click.command("ingest-key")
@click.argument("id_", metavar="ID")
@click.option("--revoke", is_flag=True, help="Reject the key from now on, and create none.")
@_qr
@as_json
@on_deployment("public_url")
async def ingest_key(
    running: RunningDeployment, id_: str, revoke: bool, qr: Path | None, as_json: bool
) -> None:
    """Create the key with which Traccar Client or OsmAnd sends a phone's fixes.

    The key can only send fixes of this device. An earlier one is rejected from now on. Prints a QR code for the
    scanner in Traccar Client, the URL and the identifier to type instead, and the address for OsmAnd.

    \b
    Examples:
      headcount device ingest-key k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org
      headcount device ingest-key k3qv7m2xw5yd4hbt6zra --revoke
    """
    devices = running.services.devices
    device = await devices.get(id_)
    if revoke:
        await devices.remove_ingest_key(running.actor, device)
        click.echo("The key is rejected from now on.")
        return
    base = _base_url(running.settings)
    key = await devices.create_ingest_key(running.actor, device)
    links = ingest_key_links(base, key)
    if qr is not None:
        qr_file(links.traccar, str(qr))
    if as_json:
        print_json({"device": id_, "ingest_key": key, "link": links.traccar, "osmand": links.osmand})
        return
    if qr is None:
        click.echo(qr_text(links.traccar))
    click.echo(f"server URL  {base}/v1/osmand\nidentifier  {key}\nOsmAnd      {links.osmand}")
    click.echo("The identifier is shown only here.", err=True)


@click.command()
@click.option("--kind", type=click.Choice(KINDS), required=True, help="Kind of the new devices.")
@click.option("--count", type=click.IntRange(1, 10_000), required=True, help="Number of codes.")
@click.option("--group", "groups", multiple=True, help="Group of the new devices. Repeatable.")
@click.option("--within", "within_s", type=duration, default="14d", help="Time until they expire.")
@_owntracks_options
@in_site
@to_file
@takes_settings("public_url", *CORE)
def claim(
    kind: Kind,
    count: int,
    groups: tuple[str, ...],
    within_s: float,
    site_id: str | None,
    output: Path | None,
    settings: Settings,
    **phone: bool,
) -> None:
    """Create codes that register one new device each.

    The device is registered when a person shows the code. Prints CSV with the code, its expiry, and the links for
    OwnTracks and for the browser.

    \b
    Example:
      headcount device claim --kind person --count 200 --group students \\
          --public-url https://count.example.org:8443 --output codes.csv
    """
    base = _base_url(settings)

    async def made(running: RunningDeployment) -> list[str]:
        site = await running.site(site_id)
        provisioning = running.services.provisioning
        return await provisioning.claim_codes(
            running.actor, site, kind, count, groups, int(within_s), PhoneOptions(**phone)
        )

    with private_file(output) as out:
        codes = run_on_deployment(settings, made)
        out.write(csv_table.claim_codes_csv(codes, base, time.time() + within_s))


def _base_url(settings: Settings) -> str:
    """The URL that links start with.

    Raises:
        SettingsError: it is not set, or has no valid host.
    """
    if not settings.public_url:
        raise SettingsError("public_url", "is required here; use https://HOST or http://HOST:PORT")
    base = settings.public_url.rstrip("/")
    try:
        public_host(base)
    except SettingsError as error:
        raise SettingsError("public_url", error.problem) from error
    return base
