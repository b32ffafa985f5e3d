"""The settings of the scaler: limits that contradict each other, and what the scaler makes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from headcount.errors import SettingsError
from headcount.messaging.connection import Endpoint
from headcount.scaling.demand import policy_of
from headcount.scaling.scaler import Deployment, open_driver
from headcount.settings.scaling import ScaleSettings


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"min_workers": 9}, "scale.min_workers"),
        ({"max_brokers": 0}, "scale.max_brokers"),
        ({"interval_s": 0.0}, "scale.interval_s"),
        ({"interval_s": float("nan")}, "scale.interval_s"),
        ({"worker_capacity": -5.0}, "scale.worker_capacity"),
        ({"rebalance_stop": 1.5}, "scale.rebalance_stop"),
        ({"rebalance_stop": 1.0}, "scale.rebalance_stop"),
        ({"deployment": "a b"}, "scale.deployment"),
        ({"mounts": "secret"}, "scale.mounts"),
        ({"mounts": "a:relative"}, "scale.mounts"),
    ],
)
def test_impossible_settings_are_rejected(changes: dict[str, Any], name: str) -> None:
    """A value out of range, or against another one, is an error with the key of the setting."""
    with pytest.raises(SettingsError) as refused:
        ScaleSettings(**changes)
    assert refused.value.name == name


def test_each_role_has_its_limits() -> None:
    """Workers and brokers have limits of their own; only workers have a latency target."""
    settings = ScaleSettings(max_workers=8, max_brokers=3, latency_s=2.0)
    workers, brokers = policy_of(settings, "count"), policy_of(settings, "broker")
    assert (workers.max_units, workers.latency_target_s) == (8, 2.0)
    assert (brokers.max_units, brokers.latency_target_s) == (3, None)
    assert policy_of(ScaleSettings(latency_s=0.0), "count").latency_target_s is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the package `docker` its driver is an error that names the package; the others do not need it."""
    monkeypatch.setitem(sys.modules, "docker", None)
    monkeypatch.delitem(sys.modules, "headcount.scaling.drivers.docker", raising=False)
    deployment = Deployment("s", Endpoint((("127.0.0.1", 1),), "u", "p"), tmp_path, {}, 1.0)
    with pytest.raises(SettingsError, match=r"headcount\[docker\]"):
        open_driver(ScaleSettings(driver="docker"), deployment)
    assert open_driver(ScaleSettings(driver="process"), deployment).kind == "process"
    assert open_driver(ScaleSettings(driver="none"), deployment).kind == "none"
