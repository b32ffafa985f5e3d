"""The error model has the statistics that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from headcount.counting.fix_columns import F8
from headcount.lab.accuracy.error_model import (
    INDOOR,
    OPEN_SKY,
    OUTLIER_S,
    STREET_CANYON,
    ErrorPreset,
    RandomField,
    ReceivedFixes,
    draw_errors,
    gauss_markov,
    rounds,
)
from headcount.lab.accuracy.movement import TrueFixes

DEVICES, FIXES = 400, 60
EVERY_S = 30.0


def standing(devices: int = DEVICES, fixes: int = FIXES, *, indoors: bool = False) -> TrueFixes:
    """Devices that stand 1 km apart and report every 30 s."""
    device = np.tile(np.arange(devices), fixes)
    t_s = np.repeat(np.arange(fixes, dtype=np.float64) * EVERY_S, devices)
    no = np.zeros(len(device), np.bool_)
    return TrueFixes(
        device, t_s, t_s, 1000.0 * device.astype(np.float64), np.zeros(len(device)), no | indoors, no
    )


def errors_of(received: ReceivedFixes) -> F8:
    """The error of each received fix in x and y."""
    return np.array([received.x_m - received.device * 1000.0, received.y_m])


def without(preset: ErrorPreset, **changes: float) -> ErrorPreset:
    """A preset without outliers and outages."""
    values = {name: getattr(preset, name) for name in ErrorPreset.__slots__}
    return ErrorPreset(**(values | {"outlier_share": 0.0, "outage_share": 0.0} | changes))


@pytest.mark.parametrize("preset", [OPEN_SKY, STREET_CANYON, INDOOR], ids=lambda preset: preset.name)
def test_an_honest_accuracy_holds_68_percent(preset: ErrorPreset) -> None:
    """68 % of the errors are within `acc`, outliers included."""
    fixes = standing()
    received = draw_errors(fixes, DEVICES, (preset, preset), seed=1)
    within = np.hypot(*errors_of(received)) <= received.acc_m
    assert within.mean() == pytest.approx(0.68, abs=0.03)


def test_the_environment_of_a_fix_decides() -> None:
    """Of two environments, that of devices indoors applies to devices indoors."""
    outdoors, indoors = standing(), standing(indoors=True)
    sigma = [
        errors_of(draw_errors(fixes, DEVICES, (OPEN_SKY, INDOOR), seed=2)).std()
        for fixes in (outdoors, indoors)
    ]
    assert sigma[1] / sigma[0] == pytest.approx(INDOOR.sigma_m / OPEN_SKY.sigma_m, rel=0.15)


@pytest.mark.parametrize("tau_s", [30.0, 120.0, 300.0])
def test_errors_are_correlated_in_time(tau_s: float) -> None:
    """The correlation of a device's neighbouring errors is exp(-dt / tau), that of two devices is 0."""
    fixes = standing(2000, 20)
    value = gauss_markov(
        fixes.device, fixes.t_s, np.full(len(fixes), tau_s), np.random.default_rng(3)
    ).reshape(2, 20, 2000)
    assert value.std() == pytest.approx(1.0, abs=0.02)
    for steps in (1, 3):
        found = (value[:, steps:] * value[:, :-steps]).mean()
        assert found == pytest.approx(np.exp(-steps * EVERY_S / tau_s), abs=0.03)
    assert (value[:, :, 1:] * value[:, :, :-1]).mean() == pytest.approx(0.0, abs=0.03)


def test_a_part_of_the_error_is_bound_to_the_place() -> None:
    """The mean error of a standing device does not fade: its variance is the share that is bound to the place."""
    preset = without(OPEN_SKY, bias_share=0.6, tau_s=30.0)
    fixes = standing(2000, 40)
    error = errors_of(draw_errors(fixes, 2000, (preset, preset), seed=4)).reshape(2, 40, 2000)
    early, late = error[:, :20].mean(axis=1), error[:, 20:].mean(axis=1)
    shared = (early * late).mean() / (error**2).mean()
    assert shared == pytest.approx(0.6, abs=0.06)


def test_the_field_is_smooth() -> None:
    """The field has unit variance, is nearly the same a metre away, and is independent far away."""
    field = RandomField(25.0, np.random.default_rng(5))
    x, y = np.random.default_rng(6).uniform(0, 1e5, (2, 20_000))
    here, near, far = field.at(x, y), field.at(x + 1, y), field.at(x + 1000, y)
    assert here.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(here, near)[0, 1] > 0.99
    assert abs(np.corrcoef(here, far)[0, 1]) < 0.4  # a sum of 64 waves


def test_outliers_and_outages_have_their_shares() -> None:
    """A share of the fixes is lost; another share is farther off, for the time of an outlier."""
    preset = ErrorPreset("x", 5.0, 60.0, 0.0, 0.1, 10.0, 0.2, 120.0, "")
    fixes = standing()
    received = draw_errors(fixes, DEVICES, (preset, preset), seed=7)
    assert len(received) / len(fixes) == pytest.approx(0.8, abs=0.02)
    far = np.hypot(*errors_of(received)) > 40.0
    assert far.mean() == pytest.approx(0.1 * np.exp(-(0.8**2) / 2), abs=0.03)
    block = received.device * 10_000 + received.t_s // OUTLIER_S
    assert len(np.unique(block[far])) < 0.8 * far.sum()


def test_reported_accuracy() -> None:
    """Phones report half or twice the honest accuracy, or none."""
    honest = draw_errors(standing(5, 5), 5, (OPEN_SKY, OPEN_SKY), seed=8)
    assert (honest.reporting("half").acc_m == 0.5 * honest.acc_m).all()
    assert (honest.reporting("double").acc_m == 2 * honest.acc_m).all()
    assert not honest.reporting("missing").acc_m.any()


def test_same_seed_same_errors() -> None:
    """The seed determines the errors."""
    one, two, other = (draw_errors(standing(), DEVICES, (INDOOR, INDOOR), seed) for seed in (9, 9, 10))
    assert (one.x_m == two.x_m).all()
    assert len(one) != len(other) or (one.x_m != other.x_m).any()


def test_rounds_have_each_device_once() -> None:
    """The k-th round has each device's k-th row."""
    device = np.array([3, 1, 3, 3, 0, 1])
    assert [sorted(part.tolist()) for part in rounds(device)] == [[0, 1, 4], [2, 5], [3]]
