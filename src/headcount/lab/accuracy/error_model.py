"""Errors of positions: correlated in time, partly bound to the place, with outliers and outages.

The error of each axis is the sum of a first-order Gauss-Markov process of the device and a bias that is bound to
the place, because reflections and access points stay where they are: a smooth random field over the site. Half of
its variance is common to all devices, half is each device's own. The sum is scaled by the quality of the device
and, during an outlier, by a constant factor.

The sum of processes is ours; that errors of receivers at rest are correlated in time, and better described by an
Ornstein-Uhlenbeck (Gauss-Markov) process than by white noise, is measured in “Comparison of enhanced noise model
performance based on analysis of civilian GPS data”, Sensors 20 (2020) 6050.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8
from headcount.lab.accuracy.movement import TrueFixes

AccuracyReport = Literal["honest", "half", "double", "missing"]
#: Accuracy that a phone reports, as a factor of the honest value.
REPORTED: dict[AccuracyReport, float] = {"honest": 1.0, "half": 0.5, "double": 2.0, "missing": 0.0}

#: Radius that holds 68 % of two-dimensional normal errors of unit deviation on each axis; the mean is sqrt(π/2).
RADIUS_68, MEAN_RADIUS = math.sqrt(-2 * math.log(0.32)), math.sqrt(math.pi / 2)
#: Metres over which the bias of a place changes, and number of waves that make its field.
FIELD_M, WAVES = 25.0, 64
#: Deviation of the logarithm of a device's quality, and of a fix's reported accuracy.
QUALITY_SPREAD, REPORT_SPREAD = 0.25, 0.15
#: Seconds of an outlier.
OUTLIER_S = 120.0


@dataclass(frozen=True, slots=True)
class ErrorPreset:
    """An environment; its sigma includes everything except outliers and the quality of a device."""

    name: str
    sigma_m: float  # of each axis
    tau_s: float  # time constant of the Gauss-Markov process
    bias_share: float  # share of the variance that is bound to the place
    outlier_share: float  # of the time
    outlier_scale: float
    outage_share: float  # of the time; an outage has `outage_s`
    outage_s: float
    source: str

    @property
    def honest_factor(self) -> float:
        """Radius of 68 % over sigma, outliers included."""
        low, high = RADIUS_68, RADIUS_68 * self.outlier_scale
        for _ in range(50):
            middle = (low + high) / 2
            within = (1 - self.outlier_share) * (1 - math.exp(-(middle**2) / 2)) + self.outlier_share * (
                1 - math.exp(-((middle / self.outlier_scale) ** 2) / 2)
            )
            low, high = (middle, high) if within < 0.68 else (low, middle)
        return low


OPEN_SKY = ErrorPreset(
    name="open sky",
    sigma_m=4.9 / RADIUS_68,
    tau_s=60.0,
    bias_share=0.3,
    outlier_share=0.02,
    outlier_scale=3.0,
    outage_share=0.01,
    outage_s=120.0,
    source=(
        "GPS.gov: phones are typically accurate to within 4.9 m under open sky (van Diggelen and Enge, ION GNSS+ "
        "2015), taken as the radius of 68 %. The time constant is that of the bend at about a minute in the "
        "autocorrelation of a Garmin 12XL over 20 days (D. L. Wilson). All shares are chosen."
    ),
)
STREET_CANYON = ErrorPreset(
    name="street canyon",
    sigma_m=10.0 / MEAN_RADIUS,
    tau_s=120.0,
    bias_share=0.5,
    outlier_share=0.05,
    outlier_scale=3.0,
    outage_share=0.03,
    outage_s=180.0,
    source=(
        "Merry and Bettinger, PLoS ONE 14 (2019) e0219890: an iPhone 6 between buildings of a campus was 7 to 13 m "
        "off on average; sigma follows from a mean of 10 m. Time constant and shares are chosen."
    ),
)
INDOOR = ErrorPreset(
    name="indoor",
    sigma_m=15.0,
    tau_s=300.0,
    bias_share=0.6,
    outlier_share=0.05,
    outlier_scale=3.0,
    outage_share=0.08,
    outage_s=300.0,
    source=(
        "Chosen: sigma lies between that of assisted GPS outdoors, 6.8 m from a median error of 8 m (Zandbergen, "
        "Transactions in GIS 13 (2009) 5-26), and that of the limit for emergency calls in the USA, 28 m from 50 m "
        "for 80 % of the calls (47 CFR 9.10). No measurement in your buildings supports it: measure one there."
    ),
)
#: `campus` is indoor for devices in buildings and open sky for all others.
PRESETS: dict[str, tuple[ErrorPreset, ErrorPreset]] = {
    "open sky": (OPEN_SKY, OPEN_SKY),
    "street canyon": (STREET_CANYON, STREET_CANYON),
    "indoor": (INDOOR, INDOOR),
    "campus": (OPEN_SKY, INDOOR),
}


@dataclass(frozen=True, slots=True)
class ReceivedFixes:
    """F fixes as a system receives them, in the order of receipt; those of one device in the order of `t_s`."""

    device: I8
    t_s: F8
    received_s: F8
    x_m: F8
    y_m: F8
    acc_m: F8  # 0 = missing

    def __len__(self) -> int:
        return len(self.device)

    def reporting(self, report: AccuracyReport) -> ReceivedFixes:
        """The same fixes, with another `acc`, from honest ones."""
        return ReceivedFixes(
            self.device, self.t_s, self.received_s, self.x_m, self.y_m, REPORTED[report] * self.acc_m
        )


def draw_errors(
    fixes: TrueFixes, devices: int, environments: tuple[ErrorPreset, ErrorPreset], seed: int
) -> ReceivedFixes:
    """Fixes with errors and honest accuracy: 68 % of the errors are within `acc`.

    Args:
        fixes: true positions.
        devices: number of devices.
        environments: of devices outdoors and indoors.
        seed: of the generator.
    """
    rng = np.random.default_rng([seed, 3])
    fixes = fixes.pick(~_outages(fixes, devices, environments, rng))
    where = fixes.indoors.astype(np.int64)

    def value(name: str) -> F8:
        return np.array([getattr(preset, name) for preset in environments])[where]

    quality = np.exp(rng.normal(0, QUALITY_SPREAD, devices))[fixes.device]
    outlier = _blocks(fixes, devices, OUTLIER_S, rng) < value("outlier_share")
    scale = value("sigma_m") * quality * np.where(outlier, value("outlier_scale"), 1.0)
    process = gauss_markov(fixes.device, fixes.t_s, value("tau_s"), rng)
    field = np.array([_bias(fixes, devices, rng) for _ in range(2)])
    share = value("bias_share")
    error = scale * (np.sqrt(1 - share) * process + np.sqrt(share) * field)
    acc_m = (
        value("honest_factor") * value("sigma_m") * quality * np.exp(rng.normal(0, REPORT_SPREAD, len(fixes)))
    )
    x_m, y_m = fixes.x_m + error[0], fixes.y_m + error[1]
    return ReceivedFixes(fixes.device, fixes.t_s, fixes.received_s, x_m, y_m, np.round(acc_m, 1))


def gauss_markov(device: I8, t_s: F8, tau_s: F8, rng: np.random.Generator) -> F8:
    """Two independent Gauss-Markov processes of unit variance for each device, at its fixes. Shape [2, F]."""
    value = rng.normal(size=(2, len(device)))
    last: I8 = np.full(int(device.max()) + 1, -1)
    for rows in rounds(device):
        before = last[device[rows]]
        known = before >= 0
        now, before = rows[known], before[known]
        keeps = np.exp((t_s[before] - t_s[now]) / tau_s[now])
        value[:, now] = keeps * value[:, before] + np.sqrt(1 - keeps**2) * value[:, now]
        last[device[rows]] = rows
    return value


def rounds(device: I8) -> list[I8]:
    """Rows cut into rounds: the k-th round has each device's k-th row."""
    order = np.argsort(device, kind="stable")
    start = np.flatnonzero(np.diff(device[order], prepend=-1))
    length = np.diff(start, append=len(device))
    rank = np.arange(len(device)) - np.repeat(start, length)
    by_rank = np.argsort(rank, kind="stable")
    return np.split(order[by_rank], np.cumsum(np.bincount(rank))[:-1])


class RandomField:
    """A smooth random field of unit variance over the plane, with a Gaussian covariance.

    A sum of waves with random directions (random Fourier features: Rahimi and Recht, 2007).
    """

    def __init__(self, length_m: float, rng: np.random.Generator) -> None:
        self._wave = rng.normal(0, 1 / length_m, (2, WAVES))
        self._phase = rng.uniform(0, 2 * math.pi, WAVES)

    def at(self, x_m: F8, y_m: F8) -> F8:
        """The field at these positions."""
        angle = np.outer(x_m, self._wave[0]) + np.outer(y_m, self._wave[1]) + self._phase
        return np.asarray(math.sqrt(2 / WAVES) * np.cos(angle).sum(axis=1))


def _bias(fixes: TrueFixes, devices: int, rng: np.random.Generator) -> F8:
    """The bias of each fix, of unit variance; a device's own field is the common one of a distant place."""
    field = RandomField(FIELD_M, rng)
    away_m = rng.uniform(1e4, 1e6, (2, devices))[:, fixes.device]
    common = field.at(fixes.x_m, fixes.y_m)
    return (common + field.at(fixes.x_m + away_m[0], fixes.y_m + away_m[1])) / math.sqrt(2)


def _outages(
    fixes: TrueFixes, devices: int, environments: tuple[ErrorPreset, ErrorPreset], rng: np.random.Generator
) -> B1:
    """The fixes that fall into an outage of their device."""
    lost = np.zeros(len(fixes), np.bool_)
    for indoors, preset in enumerate(environments):
        within = fixes.indoors == bool(indoors)
        lost |= within & (_blocks(fixes, devices, preset.outage_s, rng) < preset.outage_share)
    return lost


def _blocks(fixes: TrueFixes, devices: int, seconds: float, rng: np.random.Generator) -> F8:
    """A uniform number for each block of time of each device, at the fixes."""
    block = (fixes.t_s // seconds).astype(np.int64)
    block -= block.min()
    return rng.random((devices, int(block.max()) + 1))[fixes.device, block]
