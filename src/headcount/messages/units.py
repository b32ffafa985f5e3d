"""What broker units and the scaler report about themselves, and requests to them."""

from __future__ import annotations

from typing import Literal

import msgspec

# --- a deployment of many units --------------------------------------------------------------------
#: Bucket UNIT: what each unit of a cluster says about itself once a second.
#:   broker.<name>   BrokerUnit as JSON
#:   scaling.state   ScalingState as JSON
BROKER_UNIT_KEY = "broker.{name}"
SCALING_KEY = "scaling.state"


class BrokerUnit(msgspec.Struct):
    """What a broker unit says about itself: where it is reached, and how much it carries."""

    name: str
    version: str  # of headcount
    server: str  # the NATS server's version
    host: str  # under which others reach it
    mqtt_port: int
    ws_port: int
    health_port: int
    state: Literal["up", "draining"]
    connections: int  # of devices, over MQTT and WebSocket
    messages_per_s: float  # from devices
    cpu_s: float  # used by the server and its agent since the start
    started_s: float


class KickRequest(msgspec.Struct):
    """Send so many devices away, spread over a time: they come back through the balancer."""

    connections: int
    within_s: float


class KickAnswer(msgspec.Struct):
    """How many devices will be sent away."""

    kicked: int


class ScalingTarget(msgspec.Struct):
    """One role of the fleet: how many there should be and are, and within which limits."""

    role: Literal["broker", "count"]
    wanted: int
    actual: int
    least: int
    most: int


class Decision(msgspec.Struct):
    """One step of the scaler, and why."""

    at: float
    role: Literal["broker", "count"]
    before: int
    after: int
    reason: str
    dry: bool = False  # only said, not done


class ScalingState(msgspec.Struct):
    """What a scaler has seen and done, newest decision last."""

    name: str  # of the scaler
    at: float
    driver: str
    dry_run: bool
    targets: list[ScalingTarget]
    signals: dict[str, float | None]  # as the scaler names them; None = not known now
    decisions: list[Decision]
