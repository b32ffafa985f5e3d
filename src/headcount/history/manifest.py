"""The manifest: which segments exist, and how far the stream of rows is in them. Pure.

A segment exists when the manifest names it; everything else in the store is an attempt that failed, or is
about to be deleted. The manifest is replaced as a whole, so a reader sees all of a commit or nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from headcount.history.hours import hour_start

#: The name of the manifest in the store.
MANIFEST = "manifest.json"
#: The version of the manifest and of the columns of segments. A release that increases it adds the step from
#: the version before to MIGRATIONS, and reads segments that still have the columns of that version.
SCHEMA = 1
Migration = Callable[[dict[str, Any]], dict[str, Any]]
#: From a version to the next one: a manifest's JSON of the version → that of the next.
MIGRATIONS: dict[int, Migration] = {}
#: The data set whose rows are copies of `fixes`: they are kept as long, and never held.
PAUSES = "pauses"
#: west, south, east, north in degrees.
Box = tuple[float, float, float, float]


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """An immutable Parquet file of rows of one data set and one hour."""

    name: str  # `<data set>/hour=<UTC>/<unique>.parquet`
    rows: int
    bytes: int
    sha256: str
    from_s: float  # the smallest and largest time by which the data set is cut into hours, Unix seconds
    to_s: float
    sites: tuple[str, ...]
    t_from_s: float = 0.0  # fixes: the same of event time
    t_to_s: float = 0.0
    box: Box | None = None  # fixes: of the positions
    sources: str = ""  # derived data sets: a digest of the segments that it was derived from
    kinds: tuple[str, ...] = ()  # of its rows, where they have one each; (): unknown

    @property
    def dataset(self) -> str:
        """The data set, such as `fixes`."""
        return self.name.split("/")[0]

    @property
    def hour_s(self) -> float:
        """The start of its hour, Unix seconds."""
        return hour_start(self.name.split("/")[1]) or 0.0


class SiteMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """The newest stored rows of a site in a partition."""

    fix_seq: int = 0  # in the partition's log
    received_s: float = 0.0  # the largest one
    counts_at: float = 0.0


class PartitionMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the rows of a partition are stored."""

    stream_seq: int = 0  # the partition's newest stored message of the stream HISTORY
    sites: dict[str, SiteMark] = msgspec.field(default_factory=dict)


class EventMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the stream EVENT is stored."""

    stream: str = ""  # when the stream was created whose sequence this is
    seq: int = 0


class Removed(msgspec.Struct, frozen=True):
    """A segment that was replaced or has expired; it is deleted when no reader can use it any more."""

    name: str
    at_s: float


class DamagedSegment(msgspec.Struct, frozen=True):
    """A segment that cannot be read, and that no query reads any more; it expires as others do."""

    segment: Segment
    problem: str
    at_s: float  # when it was found


class Hold(msgspec.Struct, frozen=True, omit_defaults=True):
    """A legal hold: rows that retention and erasure must keep."""

    id: str
    reason: str
    by: str
    placed_s: float
    from_s: float
    to_s: float
    site: str = ""  # all sites
    datasets: tuple[str, ...] = ()  # all data sets

    def touches(self, segment: Segment) -> bool:
        """Whether rows of a segment may be under the hold."""
        return (
            (segment.dataset in self.datasets if self.datasets else segment.dataset != PAUSES)
            and segment.from_s <= self.to_s
            and segment.to_s >= self.from_s
            and (not self.site or self.site in segment.sites)
        )

    def covers(self, segment: Segment) -> bool:
        """Whether all rows of a segment are under the hold."""
        return (
            self.touches(segment)
            and segment.from_s >= self.from_s
            and segment.to_s <= self.to_s
            and (not self.site or segment.sites == (self.site,))
        )


class HeldSegment(msgspec.Struct, frozen=True):
    """Rows that have expired or were erased, and are kept only for a hold; no query reads them."""

    segment: Segment
    hold: str  # its id


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The state of the history after a commit."""

    schema: int = msgspec.field(default_factory=lambda: SCHEMA)  # always written, also if it is the default
    number: int = 0  # of commits
    stream: str = ""  # when the stream was created whose sequences the marks give
    partitions: dict[int, PartitionMark] = msgspec.field(default_factory=dict)
    events: EventMark = EventMark()
    segments: tuple[Segment, ...] = ()
    removed: tuple[Removed, ...] = ()
    damaged: tuple[DamagedSegment, ...] = ()
    holds: tuple[Hold, ...] = ()
    held: tuple[HeldSegment, ...] = ()
    derived: dict[str, float] = msgspec.field(default_factory=dict)  # data set → end of its last hour
    imported: dict[str, float] = msgspec.field(default_factory=dict)  # digest of a recording → when

    def of(
        self, dataset: str, from_s: float | None = None, to_s: float | None = None, site: str | None = None
    ) -> list[Segment]:
        """The segments of a data set that touch a span (inclusive) and hold a site, by time."""
        found = [
            each
            for each in self.segments
            if each.dataset == dataset
            and (to_s is None or each.from_s <= to_s)
            and (from_s is None or each.to_s >= from_s)
            and (site is None or site in each.sites)
        ]
        return sorted(found, key=lambda each: (each.from_s, each.name))

    def current_pauses(self) -> dict[float, Segment]:
        """The pauses of hours whose fixes have not changed since they were derived, by start of the hour."""
        fixes: dict[float, list[Segment]] = {}
        for each in self.segments:
            if each.dataset == "fixes":
                fixes.setdefault(each.hour_s, []).append(each)
        pauses = (each for each in self.segments if each.dataset == PAUSES)
        return {each.hour_s: each for each in pauses if each.sources == digest(fixes.get(each.hour_s, []))}

    def with_segments(self, *added: Segment) -> Manifest:
        """The manifest with further segments; those that it has already are not doubled."""
        known = {each.name for each in self.segments}
        new = (each for each in added if each.name not in known)
        return msgspec.structs.replace(self, segments=(*self.segments, *new))

    def without(self, names: Collection[str], now_s: float) -> Manifest:
        """The manifest without these segments, damaged and held ones among them, which are deleted later."""
        return msgspec.structs.replace(
            self,
            segments=tuple(each for each in self.segments if each.name not in names),
            damaged=tuple(each for each in self.damaged if each.segment.name not in names),
            held=tuple(each for each in self.held if each.segment.name not in names),
            removed=(*self.removed, *(Removed(name, now_s) for name in sorted(names))),
        )

    def has(self, names: Collection[str]) -> bool:
        """Whether all of these segments are in the manifest and not damaged."""
        return len(names) == sum(each.name in names for each in self.segments)

    def names(self) -> set[str]:
        """The names of all objects that the manifest knows, except removed ones."""
        return {
            each.name
            for each in (
                *self.segments,
                *(damaged.segment for damaged in self.damaged),
                *(held.segment for held in self.held),
            )
        }


def digest(segments: Sequence[Segment]) -> str:
    """Identify a set of segments; "" if there are none."""
    names = "\n".join(sorted(each.name for each in segments))
    return hashlib.blake2b(names.encode(), digest_size=8).hexdigest() if names else ""


class NewerSchemaError(ValueError):
    """A manifest was written by a newer release."""


class _Version(msgspec.Struct):
    schema: int = 1


def decoded(data: bytes, schema: int = SCHEMA, migrations: Mapping[int, Migration] = MIGRATIONS) -> Manifest:
    """Decode a manifest, also one of an older version.

    Args:
        data: JSON.
        schema: the version that this release writes.
        migrations: its steps from older versions.

    Raises:
        NewerSchemaError: it is of a newer release.
        msgspec.MsgspecError: it is damaged.
    """
    version = msgspec.json.decode(data, type=_Version).schema
    if version > schema:
        raise NewerSchemaError(f"version {version}, and this release knows versions up to {schema}")
    if version == schema:
        return msgspec.json.decode(data, type=Manifest)
    values = msgspec.json.decode(data, type=dict[str, Any])
    for step in range(version, schema):
        values = migrations[step](values)
    return msgspec.convert(values | {"schema": schema}, Manifest)


def encoded(manifest: Manifest) -> bytes:
    """Encode a manifest as JSON."""
    return msgspec.json.encode(manifest)
