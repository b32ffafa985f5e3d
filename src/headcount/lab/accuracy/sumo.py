"""Movement of SUMO (Simulation of Urban MObility), if the package `eclipse-sumo` is installed.

Cars drive through a grid of streets over the site, from its rim to its rim: another source of truth than our own
simulation. The streets have no relation to the zones, so cars cross buildings, too.
"""

from __future__ import annotations

import importlib
import math
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from headcount.counting.fix_columns import F8
from headcount.counting.site import Site
from headcount.lab.accuracy.campus import START_S, WARM_UP_S
from headcount.lab.accuracy.movement import CARS, GRID_S, Movement, TrueFixes

#: Seconds between two positions of SUMO, and minimum and maximum between two fixes of a car.
STEP_S, FIX_S = 5.0, (10.0, 20.0)
MAX_SPEED_MPS, BLOCK_M = 8.3, 90.0
#: Where SUMO's net ends beyond the site, in metres.
BEYOND_M = 60.0
MISSING = "SUMO is not installed: make sumo, or pip install eclipse-sumo"


def sumo_movement(site: Site, cars: int, hours: float, seed: int) -> Movement | str:
    """Cars of SUMO on the site, or the reason why there are none."""
    try:
        home = Path(importlib.import_module("sumo").SUMO_HOME)
    except ImportError:
        return MISSING
    seconds = WARM_UP_S + hours * 3600
    with tempfile.TemporaryDirectory(prefix="headcount-sumo-") as folder:
        x_m, y_m = _simulate(home / "bin", Path(folder), site, cars, seconds, seed)
    return _movement(x_m, y_m, seed)


def _simulate(
    programs: Path, folder: Path, site: Site, cars: int, seconds: float, seed: int
) -> tuple[F8, F8]:
    """Positions every `STEP_S` in the site's plane, NaN before and after a trip. Shape [steps, cars]."""
    x0, y0, x1, y1 = site.zones[0].plane.bounds
    across = [math.ceil((high - low + 2 * BEYOND_M) / BLOCK_M) + 1 for low, high in ((x0, x1), (y0, y1))]
    net, trips, positions = (folder / name for name in ("net.xml", "trips.xml", "positions.xml"))
    _run(
        [programs / "netgenerate", "--grid", "--grid.x-number", across[0], "--grid.y-number", across[1]],
        ["--grid.length", BLOCK_M, "--default.speed", MAX_SPEED_MPS, "--default.lanenumber", 1],
        ["--seed", seed, "-o", net],
    )
    rng = np.random.default_rng([seed, 4])
    ins, outs = _edges_of_the_rim(net, across)
    departs_s = np.sort(rng.uniform(0, 0.9 * seconds, cars))
    lines = [
        f'<trip id="{car}" depart="{depart_s:.0f}" from="{rng.choice(ins)}" to="{rng.choice(outs)}"/>'
        for car, depart_s in enumerate(departs_s)
    ]
    trips.write_text(f"<routes>{''.join(lines)}</routes>")
    _run(
        [programs / "sumo", "-n", net, "-r", trips, "--end", seconds, "--step-length", 1, "--seed", seed],
        ["--fcd-output", positions, "--device.fcd.period", STEP_S, "--ignore-route-errors", "true"],
        ["--no-step-log", "true", "--no-warnings", "true", "--duration-log.disable", "true"],
    )
    found = np.full((2, int(seconds / STEP_S) + 1, cars), np.nan)
    for _, step in ET.iterparse(positions):  # noqa: S314 - written by SUMO
        if step.tag == "timestep":
            row = int(float(step.get("time", "0")) / STEP_S)
            for car in step:
                place = float(car.get("x", "nan")), float(car.get("y", "nan"))
                found[:, row, int(car.get("id", "0"))] = place
            step.clear()
    return found[0] + x0 - BEYOND_M, found[1] + y0 - BEYOND_M


def _edges_of_the_rim(net: Path, across: list[int]) -> tuple[list[str], list[str]]:
    """The streets that lead from the rim of the net inwards, and those that lead to it: both are off site."""
    rim = [{0.0, (number - 1) * BLOCK_M} for number in across]
    root = ET.parse(net).getroot()  # noqa: S314 - written by SUMO
    outer = {
        junction.get("id")
        for junction in root.iter("junction")
        if float(junction.get("x", "nan")) in rim[0] or float(junction.get("y", "nan")) in rim[1]
    }
    streets = [edge.attrib for edge in root.iter("edge") if "function" not in edge.attrib]
    ins = [each["id"] for each in streets if each["from"] in outer and each["to"] not in outer]
    outs = [each["id"] for each in streets if each["to"] in outer and each["from"] not in outer]
    return ins, outs


def _run(*parts: list[object]) -> None:
    subprocess.run([str(word) for part in parts for word in part], check=True, capture_output=True)


def _movement(x_m: F8, y_m: F8, seed: int) -> Movement:
    """Fixes while a car drives; before and after its trip it is far off site."""
    rng = np.random.default_rng([seed, 5])
    steps, cars = x_m.shape
    every = rng.integers(round(FIX_S[0] / STEP_S), round(FIX_S[1] / STEP_S) + 1, cars)
    step, device = np.nonzero(np.isfinite(x_m) & (np.arange(steps)[:, None] % every == 0))
    t_s: F8 = (START_S + step * STEP_S).astype(np.float64)
    no, yes = np.zeros(len(step), np.bool_), np.ones(len(step), np.bool_)
    fixes = TrueFixes(device, t_s, t_s, x_m[step, device], y_m[step, device], no, yes)
    rows = np.arange(round(WARM_UP_S / STEP_S), steps, round(GRID_S / STEP_S))
    far_m = 1e6
    return Movement(
        np.ones(cars, np.uint8),
        np.arange(cars),
        np.full(cars, CARS, np.uint8),
        (START_S + rows * STEP_S).astype(np.float64),
        np.where(np.isfinite(x_m[rows]), x_m[rows], far_m),
        np.where(np.isfinite(y_m[rows]), y_m[rows], far_m),
        fixes,
    )
