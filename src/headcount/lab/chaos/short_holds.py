"""The random site of a chaos test, with holds of seconds."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from headcount.counting.site_file import parse_site
from headcount.errors import SiteError
from headcount.lab.chaos.scenarios import Scenario, changed_site, random_scenario

MAX_ZONES = 10
#: Choices for the rules of a site, in seconds, metres and metres per second.
RULES = {
    "hold_s": ({"person": 12, "vehicle": 8}, {"person": 8, "vehicle": 20}, 10, 15.5),
    "leave_margin_m": (0, 5, 15, 40),
    "leave_margin_acc": (1.5, 0.5),
    "max_accuracy_m": (30, 100),
    "max_position_age_s": (4, 14, 3600),
    "max_speed_mps": (70, {"person": 12, "vehicle": 30}),
    "fresh_s": (2, 5.5, {"person": 3, "vehicle": 8}),
    "on_offline": ("stay", "leave", {"person": "leave"}),
    "offline_grace_s": (0, 3),
}
ZONE_FRESH = ({"vehicle": 43_200}, {"person": 1}, 4)
ZONE_HOLDS = ({"vehicle": 43_200}, {"person": 6}, {"person": 25, "vehicle": 4}, 18)


def short_hold_scenario(seed: int, site: str = "") -> Scenario:
    """A scenario from a seed, see `random_scenario`, whose holds are short; `site` is the id of another one."""
    rng = Random(f"campus {seed} {site}".rstrip())
    while True:
        found = _with_short_holds(rng, random_scenario(rng, MAX_ZONES))
        if site:
            found.geojson["features"][0]["properties"]["id"] = site
        try:
            parse_site(found.geojson, "campus")
        except SiteError:  # a random zone may be outside the boundary
            continue
        return found


def short_hold_versions(seed: int, number: int) -> list[dict[str, Any]]:
    """Other versions of the site of `short_hold_scenario`, each made of the one before."""
    rng = Random(f"versions {seed}")
    geojson, versions = short_hold_scenario(seed).geojson, list[dict[str, Any]]()
    while len(versions) < number:
        new = changed_site(rng, geojson)
        if rng.random() < 0.5:
            new = _short_holds(rng, new)
        else:  # the same holds, on another map
            new["features"][0] |= {"properties": geojson["features"][0]["properties"]}
        try:
            parse_site(new, "campus")
        except SiteError:
            continue
        versions.append(new)
        geojson = new
    return versions


def _with_short_holds(rng: Random, found: Scenario) -> Scenario:
    return replace(found, geojson=_short_holds(rng, found.geojson))


def _short_holds(rng: Random, geojson: dict[str, Any]) -> dict[str, Any]:
    site, *zones = geojson["features"]
    properties = site["properties"] | {name: rng.choice(values) for name, values in RULES.items()}
    features = [site | {"properties": properties}]
    for zone in zones:
        own = {name: x for name, x in zone["properties"].items() if name not in ("hold_s", "fresh_s")}
        if rng.random() < 0.4:
            own["hold_s"] = rng.choice(ZONE_HOLDS)
        if rng.random() < 0.3:
            own["fresh_s"] = rng.choice(ZONE_FRESH)
        features.append(zone | {"properties": own})
    return geojson | {"features": features}
