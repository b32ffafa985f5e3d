"""The scaler's settings: from variables and flags, checked at the start."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from headcount.cli.scale import scale_options, taken
from headcount.errors import SettingsError
from headcount.messaging.connection import Endpoint
from headcount.scaling.scale_settings import ScaleSettings, help_of, option, variable
from headcount.scaling.scaler import Deployment, open_driver


def test_variables_are_read_by_type() -> None:
    """Numbers, truths and choices come from HEADCOUNT_SCALE_…, the rest has its default."""
    found = ScaleSettings.from_environment(
        {
            "HEADCOUNT_SCALE_DRIVER": "docker",
            "HEADCOUNT_SCALE_DRY_RUN": "true",
            "HEADCOUNT_SCALE_WORKERS_MOST": "8",
            "HEADCOUNT_SCALE_WORKER_CAPACITY": "1234.5",
            "HEADCOUNT_SCALE_FORECAST": "no",
            "HEADCOUNT_SCALE_NETWORK": "",
        }
    )
    assert (found.driver, found.dry_run, found.workers_most, found.forecast) == ("docker", True, 8, False)
    assert found.worker_capacity == 1234.5
    assert found.period_s == ScaleSettings().period_s
    assert found.policy("count").max_units == 8


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DRIVER", "swarm"),
        ("DRY_RUN", "perhaps"),
        ("WORKERS_MOST", "many"),
        ("WORKERS_LEAST", "9"),
        ("PERIOD_S", "0"),
        ("WORKER_CAPACITY", "-5"),
        ("PERIOD_S", "nan"),
        ("REBALANCE_STOP", "1.5"),
        ("DEPLOYMENT", "a b"),
        ("MOUNTS", "secret"),
        ("MOUNTS", "a:relative"),
    ],
)
def test_what_cannot_be_is_refused(name: str, text: str) -> None:
    """A value of the wrong kind, out of range, or against another one is a SettingsError."""
    with pytest.raises(SettingsError):
        ScaleSettings.from_environment({f"HEADCOUNT_SCALE_{name}": text})


def test_each_setting_is_a_flag_and_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field can be given by flag, the flag wins over the variable, and its help is there."""
    got: list[ScaleSettings] = []

    @click.command()
    @scale_options
    def command(**values: Any) -> None:
        got.append(taken(values))
        assert values == {}

    shown = CliRunner().invoke(command, ["--help"], terminal_width=400).output
    for item in fields(ScaleSettings):
        assert option(item.name) in shown
        assert variable(item.name) in shown
        assert help_of(item.name) in shown
    assert CliRunner().invoke(command, []).exit_code == 0
    assert got.pop() == ScaleSettings()
    monkeypatch.setenv("HEADCOUNT_SCALE_WORKERS_MOST", "7")
    monkeypatch.setenv("HEADCOUNT_SCALE_BROKERS_MOST", "6")
    result = CliRunner().invoke(command, ["--workers-most", "9", "--dry-run", "--no-forecast"])
    assert result.exit_code == 0, result.output
    (one,) = got
    assert (one.workers_most, one.brokers_most, one.dry_run, one.forecast) == (9, 6, True, False)


def test_mounts_are_a_list() -> None:
    """Several mounts stand with commas between."""
    settings = ScaleSettings(mounts="shared:/shared:ro, /srv/site.geojson:/site.geojson")
    assert settings.binds() == ["shared:/shared:ro", "/srv/site.geojson:/site.geojson"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the package `docker`, its driver is refused and the error names the package; other drivers work."""
    monkeypatch.setitem(sys.modules, "docker", None)
    monkeypatch.delitem(sys.modules, "headcount.scaling.drivers.docker", raising=False)
    deployment = Deployment("s", Endpoint((("127.0.0.1", 1),), "u", "p"), tmp_path, {}, 1.0)
    with pytest.raises(SettingsError, match=r"headcount\[docker\]"):
        open_driver(ScaleSettings(driver="docker"), deployment)
    assert open_driver(ScaleSettings(driver="process"), deployment).kind == "process"
    assert open_driver(ScaleSettings(driver="none"), deployment).kind == "none"
