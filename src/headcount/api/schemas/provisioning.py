"""Credentials in exchange for a one-time link or claim code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


class OwnTracksResponse(OpenSchema):
    """The settings of the app OwnTracks, an .otrc file."""

    type_: Literal["configuration"] = Field(alias="_type")
    host: str
    port: int
    tls: bool
    username: str
    password: str


CREDENTIALS: dict[str, Any] = {
    "device": "k3qv7m2xw5yd4hbt6zra",
    "secret": "an5h7q2wzk4vtc6rxe3mfyb2dgjs5uqp",
    "site": "ul",
    "kind": "person",
    "topic": "headcount/ul/person/k3qv7m2xw5yd4hbt6zra",
    "mqtt": {"host": "count.example.org", "port": 8883, "tls": True},
    "websocket": "wss://count.example.org:9001/mqtt",
}
OWNTRACKS: dict[str, Any] = {
    "_type": "configuration",
    "mode": 0,
    "host": "count.example.org",
    "port": 8883,
    "tls": True,
    "username": "k3qv7m2xw5yd4hbt6zra",
    "password": "an5h7q2wzk4vtc6rxe3mfyb2dgjs5uqp",
    "clientId": "k3qv7m2xw5yd4hbt6zra",
    "pubTopicBase": "owntracks/k3qv7m2xw5yd4hbt6zra/phone",
}
