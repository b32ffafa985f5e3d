"""A hidden Markov model for each device and zone with two states: inside and outside.

The chance of a change grows with the time since the last fix. A position whose signed distance to the outline is
s, positive inside, supports “inside” with the normal probability of s/sigma, with sigma from `acc`. A device is a member
while “inside” is the more probable state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import B1
from headcount.lab.accuracy.error_model import RADIUS_68, ReceivedFixes, rounds
from headcount.lab.accuracy.zone_geometry import ZoneGeometry

#: Mean seconds inside a zone, and outside of it between two visits near it: the best of six pairs for our campus.
STAY_S, AWAY_S = 3600.0, 900.0
#: 68 % radius where `acc` is missing.
UNKNOWN_ACC_M = 15.0
#: Beyond this distance the sign alone decides.
REACH_M = 60.0
_LOG_ODDS_LIMIT = 8.0


def two_state_hmm(fixes: ReceivedFixes, zones: ZoneGeometry) -> B1:
    """The zones after each fix. Shape [F, Z]."""
    acc_m = np.where(fixes.acc_m > 0, fixes.acc_m, UNKNOWN_ACC_M)
    distance_m = zones.distance_m(fixes.x_m, fixes.y_m, REACH_M)
    sigma_m: NDArray[np.float32] = (acc_m / RADIUS_68).astype(np.float32)
    evidence = _log_odds(distance_m / sigma_m[:, np.newaxis])
    devices = int(fixes.device.max(initial=0)) + 1
    settled = STAY_S / (STAY_S + AWAY_S)
    inside = np.full((devices, len(zones)), settled, np.float32)
    last_s = np.full(devices, -np.inf)
    found = np.empty(distance_m.shape, np.bool_)
    for rows in rounds(fixes.device):
        device = fixes.device[rows]
        fades = np.exp((last_s[device] - fixes.t_s[rows]) * (1 / STAY_S + 1 / AWAY_S)).astype(np.float32)
        prior = settled + (inside[device] - settled) * fades[:, np.newaxis]
        odds = np.exp(evidence[rows]) * prior / (1 - prior)
        inside[device] = np.clip(odds / (1 + odds), 1e-4, 1 - 1e-4)
        found[rows] = odds > 1
        last_s[device] = fixes.t_s[rows]
    return np.asarray(found & found[:, :1])


def _log_odds(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """log(Φ(z) / Φ(-z)) by the logistic approximation of Φ (Bowling et al., 2009)."""
    return np.clip(z * (1.5976 + 0.07056 * z * z), -_LOG_ODDS_LIMIT, _LOG_ODDS_LIMIT)
