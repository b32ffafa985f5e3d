"""Credentials in exchange for a one-time link or claim code."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headcount.api.schemas.base import OpenSchema, Schema
from headcount.devices.one_time_links import MAX_CODE_CHARS
from headcount.messages.topics import Kind


class CodeRedemption(Schema):
    """The code of a one-time link, or a claim code."""

    code: Annotated[str, Field(min_length=1, max_length=MAX_CODE_CHARS)]


class BrokerEndpoint(Schema):
    """The address of the broker for MQTT."""

    host: str
    port: int
    tls: bool


class CredentialsResponse(Schema):
    """A device's credentials, which cannot be read again."""

    device: str = Field(description="Its id: the MQTT user name, and the MQTT client id or the start of it.")
    secret: str = Field(description="The MQTT password.")
    site: str
    kind: Kind
    topic: str = Field(description="The device publishes fixes to this topic plus `/fix`.")
    mqtt: BrokerEndpoint
    websocket: str = Field(description="MQTT over WebSocket, for browsers.")
    owntracks: str = Field(description="A link that sets the app OwnTracks up on this phone.")


class OwnTracksResponse(OpenSchema):
    """The settings of the app OwnTracks, an .otrc file."""

    type_: Literal["configuration"] = Field(alias="_type")
    mode: Literal[0, 3] = Field(description="0: MQTT, with host, port and tls. 3: HTTP, with url.")
    host: str = ""
    port: int = 0
    tls: bool = False
    url: str = ""
    username: str
    password: str
