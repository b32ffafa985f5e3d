"""Fixes that devices send over HTTP."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headcount.api.schemas.base import OpenSchema, Schema
from headcount.services.ingest import ReceiptVerdict


class ReceiptResponse(Schema):
    """The verdict on a fix."""

    verdict: Annotated[
        ReceiptVerdict,
        Field(
            description="`stored`: the log has it on disk, and the counting rules judge it next. `malformed`, "
            "`invalid` and `future` are those of rule 1. `inactive`: the device is paused or disabled. "
            "`not_allowed`: the fix is of another device, and the sender is not a gateway."
        ),
    ]
    problem: str | None = Field(None, description="What is wrong with the fix.")


class ReceiptsResponse(Schema):
    """The verdicts on the fixes of a request."""

    stored: int = Field(description="The number of fixes that are stored.")
    fixes: list[ReceiptResponse] = Field(description="One for each fix, in the order of the request.")


class FixBody(OpenSchema):
    """A fix. Other keys are ignored; the page *Send fixes over HTTP* lists all names and forms."""

    t: float | str | None = Field(
        None,
        description="Event time: seconds or milliseconds since 1970, or ISO 8601. Default: now.",
        examples=[1_790_000_000],
    )
    lat: float = Field(description="Degrees, WGS 84.", examples=[52.6725])
    lon: float = Field(description="Degrees, WGS 84.", examples=[-8.5725])
    acc: float | None = Field(None, description="Radius in which the device is with 68 %, in m.")
    vel: float | None = Field(None, description="Speed, km/h.")
    cog: float | None = Field(None, description="Course over ground, degrees.")
    alt: float | None = Field(None, description="Altitude, m.")
    batt: float | None = Field(None, description="Charge of the battery, %.")
    id: str | int | None = Field(
        None, description="For gateways: the device, by its id or its alias `iotp/ID`."
    )


class IngestKeyResponse(Schema):
    """A device's new ingest key."""

    device: str
    ingest_key: str = Field(description="The identifier for the app. It can only send fixes of this device.")
    link: str = Field(
        description="For the QR scanner of Traccar Client: the server's URL with the identifier."
    )
    osmand: str = Field(description="The address for online tracking of OsmAnd.")
    qr_svg: str = Field(description="The link as a QR code.")
