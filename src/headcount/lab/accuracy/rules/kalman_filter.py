"""Constant-velocity Kalman filter before the polygon; each axis has a position and a velocity."""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import B1, F8
from headcount.lab.accuracy.error_model import RADIUS_68, ReceivedFixes, rounds
from headcount.lab.accuracy.zone_geometry import ZoneGeometry

#: Density of the white acceleration (m²/s³), largest velocity variance, and 68 % radius where `acc` is missing.
ACCELERATION, MAX_VELOCITY_VARIANCE, UNKNOWN_ACC_M = 0.05, 4.0, 15.0
#: After a gap of this length, the filter starts again.
MAX_GAP_S = 600.0


def kalman_filter(fixes: ReceivedFixes, zones: ZoneGeometry) -> B1:
    """The zones after each fix. Shape [F, Z]."""
    x_m, y_m = smooth(fixes)
    return zones.cover(x_m, y_m)


def smooth(fixes: ReceivedFixes) -> tuple[F8, F8]:
    """The filtered positions, using for each fix only it and earlier ones of its device."""
    devices = int(fixes.device.max(initial=0)) + 1
    acc_m = np.where(fixes.acc_m > 0, fixes.acc_m, UNKNOWN_ACC_M)
    noise = (acc_m / RADIUS_68) ** 2
    position, velocity = np.zeros((2, devices)), np.zeros((2, devices))
    p_xx, p_xv, p_vv = np.zeros(devices), np.zeros(devices), np.zeros(devices)
    last_s = np.full(devices, -np.inf)
    measured = np.array([fixes.x_m, fixes.y_m])
    result = np.empty_like(measured)
    for rows in rounds(fixes.device):
        device = fixes.device[rows]
        elapsed_s = fixes.t_s[rows] - last_s[device]
        starts = elapsed_s > MAX_GAP_S
        dt = np.where(starts, 0.0, elapsed_s)
        # predict
        x, v = position[:, device] + dt * velocity[:, device], velocity[:, device]
        xx = p_xx[device] + 2 * dt * p_xv[device] + dt**2 * p_vv[device] + ACCELERATION * dt**3 / 3
        xv = p_xv[device] + dt * p_vv[device] + ACCELERATION * dt**2 / 2
        vv = np.minimum(p_vv[device] + ACCELERATION * dt, MAX_VELOCITY_VARIANCE)
        # correct
        gain_x, gain_v = xx / (xx + noise[rows]), xv / (xx + noise[rows])
        residual = measured[:, rows] - x
        position[:, device] = np.where(starts, measured[:, rows], x + gain_x * residual)
        velocity[:, device] = np.where(starts, 0.0, v + gain_v * residual)
        p_xx[device] = np.where(starts, noise[rows], (1 - gain_x) * xx)
        p_vv[device] = np.where(starts, 1.0, np.maximum(vv - gain_v * xv, 1e-6))
        p_xv[device] = np.where(starts, 0.0, (1 - gain_x) * xv)
        last_s[device] = fixes.t_s[rows]
        result[:, rows] = position[:, device]
    return result[0], result[1]
