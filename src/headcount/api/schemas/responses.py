"""The shapes of all answers, for readers and for OpenAPI; all times are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from headcount.messages.topics import Kind

AtText = Annotated[str, Field(description="The instant up to which everything received is counted.")]


class Shape(BaseModel):
    """Nothing but the fields that are named."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


HiddenText = Annotated[str, Field(pattern=r"^<[1-9][0-9]*$", description="Below this.", examples=["<5"])]
#: Numbers for those who have the scope `counts:exact`; for others where nothing is hidden, too.
_HIDDEN = " Null where the public's counts are told."


class NumbersShape(Shape):
    """A count of one kind, and what surrounds it."""

    count: int | HiddenText | None = Field(
        description="Present devices that are members of the zone. Without the scope `counts:exact`, where "
        'small counts are hidden: `"<5"`, else a multiple of 5; null where that would give away too much.'
    )
    low: int | None = Field(
        description="Those whose whole accuracy circle is inside and whose last fix is fresh." + _HIDDEN
    )
    high: int | None = Field(
        description="The count, plus devices outside whose accuracy circle touches the zone." + _HIDDEN
    )
    stale: int | None = Field(description="Those of the count whose last fix is no longer fresh." + _HIDDEN)


class ZoneShape(Shape):
    """A zone's numbers."""

    zone: str
    person: NumbersShape
    vehicle: NumbersShape


class Freshness(Shape):
    """How far a total can be relied on."""

    site: str
    at: AtText
    partitions_fresh: int = Field(description="How many partitions have reported within the last 2 s.")
    partitions_total: int = Field(description="With fewer fresh ones than these, numbers lag behind.")
    age_s: float = Field(description="Seconds from `at` to the moment that was asked for (now).")


class CountsShape(Freshness):
    """The numbers of all zones, the site's boundary (`site`) among them."""

    zones: list[ZoneShape]


class StreamCountsShape(CountsShape):
    """An update of a live stream: absolute numbers of all zones, or of those that changed."""

    full: bool = Field(description="Whether all zones are in it: the first update.")


class PingShape(Shape):
    """A sign of life, and how far the counts are."""

    at: str | None
    age_s: float | None


class ZoneCountShape(Freshness):
    """The numbers of one zone."""

    zone: str
    person: NumbersShape
    vehicle: NumbersShape


class SummaryShape(Shape):
    """A zone's count of one kind over one step of time."""

    count: int | HiddenText | None = Field(description="At the end of the step; as in /counts.")
    min: int | None
    max: int | None
    mean: float | None = Field(description="As min and max, null where the public's counts are told.")


class RowShape(Shape):
    """What was counted in the step that ends at `at`."""

    at: str
    person: SummaryShape
    vehicle: SummaryShape


class HistoryShape(Shape):
    """A zone's counts over time; steps without a record are left out."""

    site: str
    zone: str
    from_: str = Field(alias="from")
    to: str
    step_s: float
    rows: list[RowShape]


class SiteLinks(Shape):
    """Where a site's resources are."""

    self: str
    counts: str
    stream: str
    websocket: str


class SiteSummary(Shape):
    """A site in the list."""

    id: str
    name: str
    timezone: str
    zones: int = Field(description="How many zones there are, the boundary among them.")
    bbox: list[float] = Field(description="West, south, east, north in degrees.")
    links: SiteLinks


class SitesShape(Shape):
    """The sites that are counted here."""

    sites: list[SiteSummary]


class FeatureShape(BaseModel):
    """A GeoJSON feature (RFC 7946)."""

    model_config = ConfigDict(extra="allow")

    type: Literal["Feature"]
    geometry: dict[str, Any]
    properties: dict[str, Any]


class SiteShape(BaseModel):
    """The site file: one feature of role `site`, the others of role `zone`."""

    model_config = ConfigDict(extra="allow")

    type: Literal["FeatureCollection"]
    features: list[FeatureShape]


class PositionShape(Shape):
    """A GeoJSON point: longitude, latitude."""

    type: Literal["Point"]
    coordinates: list[float] = Field(min_length=2, max_length=2)


class FixProperties(Shape):
    """What is known of a fix beside its position."""

    device: str = Field(description="A pseudonym of the day.")
    kind: Kind
    t: str = Field(description="When the device measured it.")
    acc: float | None = Field(description="Accuracy in metres; null = unknown.")
    verdict: str


class FixShape(Shape):
    """A fix as a GeoJSON feature."""

    type: Literal["Feature"]
    geometry: PositionShape
    properties: FixProperties


class FixesShape(Shape):
    """Fixes as a GeoJSON FeatureCollection."""

    type: Literal["FeatureCollection"]
    precision: Literal["exact"]
    features: list[FixShape]
    truncated: bool = Field(description="Whether there are more than `limit`.")


class SquareShape(Shape):
    """A GeoJSON polygon: the outline of a cell."""

    type: Literal["Polygon"]
    coordinates: list[list[list[float]]]


class CellProperties(Shape):
    """How many were in a cell."""

    kind: Kind
    from_: str = Field(alias="from", description="The beginning of the 5 minutes.")
    to: str
    devices: int = Field(description="Different devices whose accepted fixes were there meanwhile.")


class CellShape(Shape):
    """A cell of the grid as a GeoJSON feature."""

    type: Literal["Feature"]
    geometry: SquareShape
    properties: CellProperties


class CellsShape(Shape):
    """Where devices were, coarsely, as a GeoJSON FeatureCollection."""

    type: Literal["FeatureCollection"]
    precision: Literal["coarse"]
    features: list[CellShape]
    truncated: bool = Field(description="Whether there are more than `limit`.")


class DeviceShape(BaseModel):
    """What the counting worker knows of a device now."""

    model_config = ConfigDict(extra="allow")

    site: str
    kind: Kind
    device: str
    present: bool
    zones: list[str]
    last_t: str | None = Field(description="Event time of the last used fix.")
    lat: float | None
    lon: float | None
    acc: float | None
    offline: bool = Field(description="Whether its last will came since the last fix.")
    last_verdict: str | None
    verdicts: dict[str, int] | None = Field(
        None, description="How its fixes were judged, where that is kept."
    )


class HealthShape(Shape):
    """That the process answers."""

    status: Literal["alive"]


class ReadyShape(Shape):
    """That the numbers are live."""

    status: Literal["ready"]
    at: str
    age_s: float


class ScalingTargetShape(Shape):
    """One role of the fleet."""

    role: Literal["broker", "count"]
    wanted: int = Field(description="How many there should be.")
    actual: int = Field(description="How many there are, without those that are leaving.")
    least: int
    most: int


class ScalingDecisionShape(Shape):
    """One change, and why."""

    at: str
    role: Literal["broker", "count"]
    before: int
    after: int
    reason: str = Field(description="In words, with the numbers.")
    dry: bool = Field(description="Only said, not done.")


class ScalingShape(Shape):
    """What the scaler sees, wants and has done."""

    name: str = Field(description="Which scaler decides.")
    at: str = Field(description="When it looked, by its own clock.")
    age_s: float = Field(description="Seconds since it was heard.")
    driver: str = Field(description="What starts and stops units: `process`, `docker` or `none`.")
    dry_run: bool
    targets: list[ScalingTargetShape]
    signals: dict[str, float | None] = Field(description="By name; null = not known now.")
    decisions: list[ScalingDecisionShape] = Field(description="The last 50, newest last.")


TokenRole = Literal["viewer", "operator", "admin"]


class WhoShape(Shape):
    """Who asks, and what they may."""

    subject: str = Field(description="As the audit log has it.")
    role: Literal["public", "viewer", "operator", "admin"]
    scopes: list[str]
    sites: list[str] = Field(description="All that is about these; none = all.")
    name: str | None = Field(description="Of somebody who has logged in.")
    csrf: str | None = Field(description="For the header Headcount-CSRF, with a session.")
    expires: str | None = Field(description="When the session ends.")
    login: bool = Field(description="Whether people can log in, at /login.")


class TokenShape(Shape):
    """A token, without its secret."""

    id: str
    name: str
    role: Literal["public", "viewer", "operator", "admin"]
    sites: list[str] = Field(description="None = all.")
    scopes: list[str] = Field(description="None = all of the role's.")
    created: str
    expires: str | None


class TokensShape(Shape):
    """Tokens, oldest first."""

    tokens: list[TokenShape]


class MadeTokenShape(TokenShape):
    """A new token."""

    token: str = Field(description="What to send as `Authorization: Bearer …`; it isn't told again.")


class EndedShape(Shape):
    """How many sessions were ended."""

    ended: int


class AuditEntryShape(Shape):
    """Who has done what."""

    n: int
    at: str
    actor: str
    action: str
    subject: str
    detail: dict[str, str | int | float | bool | None]
    prev: str = Field(description="The hash of the entry before.")
    hash: str


class AuditShape(Shape):
    """Entries, newest first."""

    entries: list[AuditEntryShape]
    before: int | None = Field(description="Ask with this for the next ones; null = there are none.")


class AuditProblem(Shape):
    """Where the log doesn't fit together."""

    entry: int
    problem: str


class VerifiedShape(Shape):
    """What a walk over the log found."""

    intact: bool
    entries: int
    first: int = Field(description="The number of the oldest entry that is kept; 0 = there is none.")
    head: str = Field(description="Number and hash of the newest entry.")
    problems: list[AuditProblem] = Field(description="The first hundred.")
