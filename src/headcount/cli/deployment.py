"""The options of a deployment, for every command that runs one or a part of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from headcount.cli.sign_in import sign_in_options
from headcount.settings import DEFAULT_DATA, LOOPBACK, PUBLIC_PORTS


def deployment_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a deployment, for every command that needs them."""
    ports: tuple[tuple[str, int | None, str], ...] = (
        ("mqtt", None, "MQTT, for devices"),
        ("ws", None, "MQTT over WebSocket, for browsers"),
        ("http", None, "HTTP: map, API, metrics"),
        ("nats", 4222, "NATS, inside the machine"),
        ("monitor", 8222, "the broker's own monitoring, inside the machine"),
    )
    options = [
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            default=DEFAULT_DATA,
            envvar="HEADCOUNT_DATA",
            show_default=True,
            show_envvar=True,
            help="Folder for everything that is kept.",
        ),
        *(
            click.option(
                f"--{name}-port",
                type=click.IntRange(1, 65535),
                default=default,
                envvar=f"HEADCOUNT_{name.upper()}_PORT",
                show_default=True if default else "{}, with TLS {}".format(*PUBLIC_PORTS[f"{name}_port"]),
                show_envvar=True,
                help=f"Port of {what}.",
            )
            for name, default, what in ports
        ),
        click.option(
            "--partitions",
            type=click.IntRange(1, 512),
            default=16,
            envvar="HEADCOUNT_PARTITIONS",
            show_default=True,
            show_envvar=True,
            help="Into how many parts the log is cut; fixed for a data folder.",
        ),
        click.option(
            "--host",
            default=LOOPBACK,
            envvar="HEADCOUNT_HOST",
            show_default=True,
            show_envvar=True,
            help="Address on which devices and browsers reach it; 0.0.0.0 for all.",
        ),
        click.option(
            "--open",
            is_flag=True,
            envvar="HEADCOUNT_OPEN",
            show_envvar=True,
            help="For trying out: devices need no account, programs on this machine may see "
            "everything, and small counts are shown.",
        ),
        click.option(
            "--suppress-below",
            type=click.IntRange(1, 1000),
            envvar="HEADCOUNT_SUPPRESS_BELOW",
            show_default="5, with --open 1",
            show_envvar=True,
            help="The public sees no count below this.",
        ),
        click.option(
            "--tls",
            type=click.Choice(["auto", "on", "off", "proxy"]),
            default="auto",
            envvar="HEADCOUNT_TLS",
            show_default=True,
            show_envvar=True,
            help="TLS for devices and browsers; auto: unless --host is this machine only; proxy: over MQTT "
            "here, and for browsers at the balancer ahead.",
        ),
        *(
            click.option(
                f"--{name}",
                type=click.Path(path_type=Path, dir_okay=False),
                envvar=f"HEADCOUNT_{name.upper().replace('-', '_')}",
                show_envvar=True,
                show_default=without,
                help=about,
            )
            for name, without, about in (
                ("tls-cert", "a self-made one in the data folder", "Certificate (PEM)."),
                ("tls-key", "that of the self-made one", "The certificate's private key (PEM)."),
                ("client-ca", "none", "Devices must show a certificate of this CA (PEM)."),
            )
        ),
        click.option(
            "--device-fixes-per-s",
            type=float,
            default=5.0,
            envvar="HEADCOUNT_DEVICE_FIXES_PER_S",
            show_default=True,
            show_envvar=True,
            help="A device with an account that goes on sending more is kept out for a while.",
        ),
        click.option(
            "--device-bytes-per-s",
            type=int,
            default=64 << 10,
            envvar="HEADCOUNT_DEVICE_BYTES_PER_S",
            show_default=True,
            show_envvar=True,
            help="The same by size.",
        ),
        click.option(
            "--speed",
            type=float,
            default=1.0,
            envvar="HEADCOUNT_SPEED",
            show_default=True,
            show_envvar=True,
            help="Time-lapse: holds are divided by this and speed limits multiplied.",
        ),
    ]
    function = sign_in_options(function)
    for option in reversed(options):
        function = option(function)
    return function


site_option = click.option(
    "--site",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="HEADCOUNT_SITE",
    show_envvar=True,
    help="Site file (GeoJSON). Default: site.geojson in this folder.",
)
