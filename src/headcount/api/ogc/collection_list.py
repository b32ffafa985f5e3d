"""The collections that a caller may read."""

from __future__ import annotations

from headcount.access.roles import Caller
from headcount.api.middleware.authorization import missing_scope
from headcount.api.ogc.collection import Collection
from headcount.api.ogc.live_collections import CountCollection, ZoneCollection
from headcount.api.ogc.stored_collections import FixCollection, HistoryCollection
from headcount.api.schemas.problems import NOT_FOUND, ProblemError
from headcount.api.state import ApiState, known_site

_COLLECTIONS: tuple[type[Collection], ...] = (
    ZoneCollection,
    CountCollection,
    HistoryCollection,
    FixCollection,
)


def visible(state: ApiState, caller: Caller) -> list[Collection]:
    """Return the collections that a caller may read."""
    return [
        kind(site)
        for site in state.live.visible(caller)
        for kind in _COLLECTIONS
        if not kind.needs_reason or caller.may("positions:read", site.id)
    ]


def collection_named(state: ApiState, caller: Caller, id_: str) -> Collection:
    """Return a collection that a caller may read.

    Raises:
        ProblemError: `unknown-site`, `not-found`, or, for lack of the right, `sign-in` or `not-allowed`.
    """
    site_id, _, name = id_.rpartition(".")
    kind = next((each for each in _COLLECTIONS if each.name == name), None)
    if kind is None:
        raise ProblemError(NOT_FOUND, f"There is no collection {id_[:64]!r}; /ogc/collections lists all.")
    collection = kind(known_site(state, caller, site_id))
    if collection.needs_reason and not caller.may("positions:read", site_id):
        raise missing_scope(caller, "positions:read")
    return collection
