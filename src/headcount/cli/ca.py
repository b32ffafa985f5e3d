"""`headcount ca`: a small CA, for certificates of devices and servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import click

from headcount.access.audit_log import AuditLog
from headcount.cli.core import at_the_core, core_options
from headcount.cli.options import takes_settings
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.devices.registry import Registry
from headcount.errors import CertificateError
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.roles.secret import secret_of
from headcount.settings.deployment import Settings
from headcount.tls.authority import FOLDER, MAX_DAYS, CertificateAuthority, ca_files
from headcount.tls.certificates import IssuedCertificate, display_fingerprint, fingerprint

Command = Callable[..., None]
_DATA = takes_settings("data")
_PASSWORD = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the password of the CA's key.",
)
_DAYS = click.option(
    "--days", type=click.IntRange(1, MAX_DAYS), default=365, show_default=True, help="How long it lives."
)
_INTO = click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    show_default="here",
    help="Folder for certificate and key.",
)


@click.group()
def ca() -> None:
    """Certificates of your own: for devices that sign in with one, and for servers.

    \b
    headcount ca init
    headcount ca issue 4dh2m7qk3x5vtbn6zwcy
    headcount up --site campus.geojson --tls on --client-ca headcount-data/ca/ca.crt

    Nothing is revoked here: a device is kept out by `headcount device disable`.
    """


@ca.command()
@_DATA
@_PASSWORD
@click.option("--name", default="headcount CA", show_default=True, help="What people see that are asked.")
def init(settings: Settings, password_file: Path | None, name: str) -> None:
    """Make the CA; it lives ten years. Keep its key: nobody can make it again."""
    folder = settings.data / FOLDER
    authority = CertificateAuthority.init(folder, name, _password(password_file))
    certificate, key = ca_files(folder)
    click.echo(f"{certificate}  hand it to whoever is to trust what it vouches for")
    click.echo(f"{key}  keep it to yourself, and a copy of it where nothing else is")
    click.echo(f"SHA-256 {display_fingerprint(fingerprint(authority.certificate))}")


@ca.command()
@click.argument("device")
@click.option(
    "--register", is_flag=True, help="Let the device in with this one only: write it into the registry."
)
@_PASSWORD
@_DAYS
@_INTO
@core_options
def issue(
    device: str, register: bool, password_file: Path | None, days: int, into: Path, settings: Settings
) -> None:
    """Make a certificate for a device of the registry: DEVICE is its id.

    It is written to DEVICE.crt and DEVICE.key, for the device alone: delete both here when it has them.
    Every certificate of the CA with this id lets it in, until the registry names one: --register, which
    needs the running deployment. All else needs the CA only.
    """
    made = CertificateAuthority.open(settings.data / FOLDER, _password(password_file)).issue_device(
        device, days
    )
    if register:
        asyncio.run(_register(settings, device, fingerprint(made.certificate)))
    _write(made, into, device)


async def _register(settings: Settings, device: str, digest: str) -> None:
    async with at_the_core(settings) as client:
        secret = secret_of(settings)
        changed = await Registry(KvBucket(client, DEVICE_BUCKET), secret).change(device, certificate=digest)
        subject = await daily_pseudonym(client, changed.kind, device)
        await AuditLog(client, secret).record("device.change", "command line", subject, {"certificate": True})


@ca.command()
@click.argument("names", nargs=-1, required=True)
@_DATA
@_PASSWORD
@_DAYS
@_INTO
def server(
    names: tuple[str, ...], settings: Settings, password_file: Path | None, days: int, into: Path
) -> None:
    """Make a certificate for a server: NAMES are its host names and addresses.

    \b
    headcount ca server counts.example.org 10.1.2.3
    headcount up --site campus.geojson --host 0.0.0.0 --tls-cert server.crt --tls-key server.key
    """
    made = CertificateAuthority.open(settings.data / FOLDER, _password(password_file)).issue_server(
        names, days
    )
    _write(made, into, "server")


@ca.command()
@_DATA
def show(settings: Settings) -> None:
    """Say which CA this is, and until when."""
    certificate, _ = ca_files(settings.data / FOLDER)
    found = CertificateAuthority.certificate_in(settings.data / FOLDER)
    click.echo(f"{certificate}")
    click.echo(f"until {found.not_valid_after_utc:%Y-%m-%d}")
    click.echo(f"SHA-256 {display_fingerprint(fingerprint(found))}")


def _write(made: IssuedCertificate, into: Path, name: str) -> None:
    certificate, key = into / f"{name}.crt", into / f"{name}.key"
    made.write_new(certificate, key)
    click.echo(f"{certificate}, {key}")
    click.echo(f"until {made.certificate.not_valid_after_utc:%Y-%m-%d}")
    click.echo(f"SHA-256 {fingerprint(made.certificate)}")


def _password(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        password = file.read_bytes().strip()
    except OSError as error:
        raise CertificateError(str(file), f"can't be read: {error.strerror}", "Mend its rights") from error
    if not 8 <= len(password) <= 1023:
        raise CertificateError(str(file), "holds no password of 8 to 1023 characters", "Choose another")
    return password
