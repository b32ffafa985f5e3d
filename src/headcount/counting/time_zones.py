"""The names of time zones: those of the package `tzdata`, which every machine has, whatever its system knows."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import resources


@cache
def time_zones() -> frozenset[str]:
    """All names, such as `Europe/Dublin`, with the older ones, such as `US/Central`."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def similar_time_zone(name: str) -> str | None:
    """The name that was probably meant: another case, a typo, or a city without its continent."""
    places = sorted(zone for zone in time_zones() if "/" in zone)
    words = {zone.rsplit("/")[-1].casefold(): zone for zone in places}
    words |= {zone.casefold(): zone for zone in [*places, "UTC"]}
    meant = get_close_matches(name.strip().replace(" ", "_").casefold()[:80], words, n=1, cutoff=0.8)
    return words[meant[0]] if meant else None
