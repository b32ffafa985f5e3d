"""What an operator may set; flag > environment > file > default is click's work in `cli.py`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from headcount.errors import SettingsError

DEFAULT_DATA = Path("headcount-data")
ENVIRONMENT = "HEADCOUNT_"


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment on one machine; every role gets the same."""

    site: Path
    data: Path = DEFAULT_DATA
    mqtt_port: int = 1883
    ws_port: int = 9001
    http_port: int = 8080
    nats_port: int = 4222
    monitor_port: int = 8222
    partitions: int = 16
    open: bool = False
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Check what one value can't show by itself.

        Raises:
            SettingsError: if values are out of range or don't go together.
        """
        if not 0.01 <= self.speed <= 10_000:
            raise SettingsError("--speed", f"{self.speed:g} is not within 0.01 to 10000")
        if self.partitions < 1 or self.partitions > 512:
            raise SettingsError("--partitions", f"{self.partitions} is not within 1 to 512")
        ports = {
            "--mqtt-port": self.mqtt_port,
            "--ws-port": self.ws_port,
            "--http-port": self.http_port,
            "--nats-port": self.nats_port,
            "--monitor-port": self.monitor_port,
        }
        taken: dict[int, str] = {}
        for option, port in ports.items():
            if port in taken:
                raise SettingsError(option, f"{port} is the port of {taken[port]} already")
            taken[port] = option

    @property
    def host(self) -> str:
        """Where devices and browsers reach us: this machine only, unless `open`."""
        return "0.0.0.0" if self.open else "127.0.0.1"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a role in a process of its own."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["data"], values["site"] = self.data.resolve(), self.site.resolve()
        return {
            **os.environ,
            **{f"{ENVIRONMENT}{name.upper()}": str(value) for name, value in values.items()},
        }
