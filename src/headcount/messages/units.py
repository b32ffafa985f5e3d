"""Reports of broker units and of the scaler, and requests to them."""

from __future__ import annotations

from typing import Literal

import msgspec

# --- a deployment of many units --------------------------------------------------------------------
#: Bucket UNIT: the reports of the units, written once a second.
#:   broker.<name>   BrokerUnit as JSON
#:   scaling.state   ScalingState as JSON
BROKER_UNIT_KEY = "broker.{name}"
SCALING_KEY = "scaling.state"


class BrokerUnit(msgspec.Struct):
    """The report of a broker unit: its addresses and its load."""

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
    """Disconnect `connections` devices over `within_s`; they reconnect through the balancer."""

    connections: int
    within_s: float


class KickReply(msgspec.Struct):
    """How many devices will be sent away."""

    kicked: int


class ScalingTarget(msgspec.Struct):
    """One role of the fleet: how many there should be and are, and within which limits."""

    role: Literal["broker", "count"]
    wanted: int
    actual: int
    least: int
    most: int


class ScalingDecision(msgspec.Struct):
    """One step of the scaler, and why."""

    at: float
    role: Literal["broker", "count"]
    before: int
    after: int
    reason: str
    dry: bool = False  # logged, not executed


class ScalingState(msgspec.Struct):
    """The observations and decisions of a scaler, newest decision last."""

    name: str  # of the scaler
    at: float
    driver: str
    dry_run: bool
    targets: list[ScalingTarget]
    signals: dict[str, float | None]  # as the scaler names them; None = not known now
    decisions: list[ScalingDecision]
