"""The options of a deployment of more than one machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headcount.settings import LOOPBACK, machine_name

Command = Callable[..., None]


def cluster_options(*only: str, hidden: bool = False) -> Callable[[Command], Command]:
    """All of them, or those of these names, for a command; `hidden` ones aren't shown in its help."""

    def add(function: Command) -> Command:
        for name, settings in reversed(_OPTIONS.items()):
            if only and name not in only:
                continue
            flag = f"--{name.replace('_', '-')}"
            common = {"envvar": f"HEADCOUNT_{name.upper()}", "show_envvar": True, "hidden": hidden}
            flags = f"{flag}/--no-{name}" if isinstance(settings.get("default"), bool) else flag
            function = click.option(flags, **{"show_default": True, **common, **settings})(function)
        return function

    return add


def _port(default: int, about: str) -> dict[str, Any]:
    return {"type": click.IntRange(1, 65535), "default": default, "help": about}


def _text(default: Any, shown: str | bool, about: str) -> dict[str, Any]:
    return {"default": default, "show_default": shown, "help": about}


_OPTIONS: dict[str, dict[str, Any]] = {
    "name": _text(machine_name, "this machine's name", "Name of this unit; no two have the same."),
    "inside_host": _text(LOOPBACK, True, "Address on which the units of a cluster reach this one."),
    "advertise": _text("", "inside-host, or this machine's name", "Host that is told to other units."),
    "core": _text("", "127.0.0.1 and the NATS port", "NATS addresses of the core: HOST:PORT,HOST:PORT."),
    "core_mqtt": _text("", "the core's hosts and the MQTT port", "MQTT addresses of the core."),
    "peers": _text(
        "", "the core is one node", "The three nodes of the core: HOST:PORT of their cluster ports."
    ),
    "devices": {"default": True, "help": "Whether the core itself lets in devices, or only brokers do."},
    "leaf_port": _port(7422, "Port of the core for brokers."),
    "cluster_port": _port(6222, "Port of the core for its other nodes."),
    "health_port": _port(8081, "HTTP port of the health and metrics of a broker, and of the balancer."),
    "api": _text("api:8080", True, "Where the balancer finds the API: HOST:PORT, each address of a name."),
    "drain_s": _text(20.0, True, "Seconds over which a broker that ends sends its devices away."),
    "stop_s": _text(10.0, True, "Seconds that a process may take to stop before it is killed."),
    "secret_file": {
        "type": click.Path(path_type=Path, dir_okay=False),
        "show_default": "secret in the data folder",
        "help": "File with the secret that all units share.",
    },
}
