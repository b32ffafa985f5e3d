"""The manifest: which segments exist, and how far the stream of rows is in them. Pure.

A segment exists when the manifest names it; everything else in the store is an attempt that failed, or is
about to be deleted. The manifest is replaced as a whole, so a reader sees all of a commit or nothing of it.
"""

from __future__ import annotations

import msgspec

from headcount.history.hours import hour_start

#: The version of the manifest and of the columns of segments.
SCHEMA = 1
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


class Removed(msgspec.Struct, frozen=True):
    """A segment that was replaced or has expired; it is deleted when no reader can use it any more."""

    name: str
    at_s: float


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


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The state of the history after a commit."""

    schema: int = SCHEMA
    number: int = 0  # of commits
    stream: str = ""  # when the stream was created whose sequences the marks give
    partitions: dict[int, PartitionMark] = msgspec.field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    removed: tuple[Removed, ...] = ()
    holds: tuple[Hold, ...] = ()
    derived: dict[str, float] = msgspec.field(default_factory=dict)  # data set → end of its last hour

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

    def with_segments(self, *added: Segment) -> Manifest:
        """The manifest with further segments."""
        return msgspec.structs.replace(self, segments=(*self.segments, *added))

    def without(self, names: set[str], now_s: float) -> Manifest:
        """The manifest without these segments, which are deleted later."""
        return msgspec.structs.replace(
            self,
            segments=tuple(each for each in self.segments if each.name not in names),
            removed=(*self.removed, *(Removed(name, now_s) for name in sorted(names))),
        )


def decoded(data: bytes) -> Manifest:
    """Decode a manifest.

    Raises:
        msgspec.MsgspecError: it is damaged.
    """
    return msgspec.json.decode(data, type=Manifest)


def encoded(manifest: Manifest) -> bytes:
    """Encode a manifest as JSON."""
    return msgspec.json.encode(manifest)
