"""`headcount ca`: a small CA, for certificates of devices and servers."""

from __future__ import annotations

from pathlib import Path

import click

from headcount.cli.client import CORE, RunningDeployment, run_on_deployment
from headcount.cli.options import takes_settings
from headcount.errors import CertificateError
from headcount.messages.records import Device
from headcount.settings.deployment import Settings
from headcount.tls.authority import FOLDER, MAX_DAYS, CertificateAuthority, ca_files
from headcount.tls.certificates import IssuedCertificate, display_fingerprint, fingerprint

_DATA = takes_settings("data")
_PASSWORD = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the password of the CA's key.",
)
_DAYS = click.option(
    "--days", type=click.IntRange(1, MAX_DAYS), default=365, help="Days until the certificate expires."
)
_INTO = click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    show_default="this folder",
    help="Folder for certificate and key.",
)


@click.group()
def ca() -> None:
    """Issue certificates for devices and servers.

    The CA is in the folder `ca` of the data folder. It revokes nothing: to reject a device, use `headcount device disable`.

    \b
    Examples:
      headcount ca init
      headcount ca issue 4dh2m7qk3x5vtbn6zwcy
      headcount up --site campus.geojson --tls on --client-ca headcount-data/ca/ca.crt
    """


@ca.command()
@_DATA
@_PASSWORD
@click.option("--name", default="headcount CA", help="Name of the CA, shown to users.")
def init(settings: Settings, password_file: Path | None, name: str) -> None:
    """Create the CA.

    It is valid for ten years. Back up its key: it cannot be created again.
    """
    folder = settings.data / FOLDER
    authority = CertificateAuthority.init(folder, name, _password(password_file))
    certificate, key = ca_files(folder)
    click.echo(f"{certificate}  the certificate: give it to programs that should trust the CA")
    click.echo(f"{key}  the key: keep it secret, and keep a backup of it elsewhere")
    click.echo(f"SHA-256 {display_fingerprint(fingerprint(authority.certificate))}")


@ca.command()
@click.argument("device")
@click.option("--register", is_flag=True, help="Accept only this certificate for the device from now on.")
@_PASSWORD
@_DAYS
@_INTO
@takes_settings(*CORE)
def issue(
    device: str, register: bool, password_file: Path | None, days: int, into: Path, settings: Settings
) -> None:
    """Issue a certificate for the device with the id DEVICE.

    Writes DEVICE.crt and DEVICE.key; delete both here once the device has them. Every certificate of the CA with this id is
    accepted, until --register names one. Only --register needs a running deployment.

    \b
    Example:
      headcount ca issue 4dh2m7qk3x5vtbn6zwcy --days 90 --register
    """
    made = CertificateAuthority.open(settings.data / FOLDER, _password(password_file)).issue_device(
        device, days
    )
    if register:
        _register(settings, device, fingerprint(made.certificate))
    _write(made, into, device)


def _register(settings: Settings, id_: str, digest: str) -> None:
    async def work(running: RunningDeployment) -> Device:
        devices = running.services.devices
        return await devices.change(running.actor, await devices.get(id_), certificate=digest)

    run_on_deployment(settings, work)


@ca.command()
@click.argument("names", nargs=-1, required=True)
@_DATA
@_PASSWORD
@_DAYS
@_INTO
def server(
    names: tuple[str, ...], settings: Settings, password_file: Path | None, days: int, into: Path
) -> None:
    """Issue a certificate for a server with these host names and addresses.

    Writes server.crt and server.key.

    \b
    Examples:
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
    """Show the CA's certificate.

    Prints its path, its expiry and its fingerprint.
    """
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
        raise CertificateError(
            str(file), f"cannot be read: {error.strerror}", "Correct its permissions"
        ) from error
    if not 8 <= len(password) <= 1023:
        raise CertificateError(
            str(file), "does not hold a password of 8 to 1023 characters", "Choose another file"
        )
    return password
