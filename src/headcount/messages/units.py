"""Reports of broker units and of the scaler, and requests to them."""

from __future__ import annotations

from typing import Literal

import msgspec

#: Bucket UNIT, as JSON: BrokerUnit of each broker unit, published every second; ScalingState of the leader.
BROKER_UNIT_KEY = "broker.{name}"
SCALING_KEY = "scaling.state"


class BrokerUnit(msgspec.Struct):
    """A broker unit's heartbeat: where it is reached, and its load."""

    name: str
    version: str  # of headcount
    server: str  # the NATS server's version
    host: str  # where others reach it
    mqtt_port: int
    ws_port: int
    health_port: int
    state: Literal["up", "draining"]
    connections: int  # of devices, over MQTT and WebSocket
    messages_per_s: float  # from devices
    cpu_s: float  # used by the server and its agent since the start
    started_s: float


class KickRequest(msgspec.Struct):
    """A request to disconnect devices, evenly within a time; they reconnect through the balancer."""

    connections: int
    within_s: float


class KickReply(msgspec.Struct):
    """The number of devices that will be disconnected."""

    kicked: int


class ScalingTarget(msgspec.Struct):
    """Units of one role: wanted, actual, and the configured limits."""

    role: Literal["broker", "count"]
    wanted: int
    actual: int
    min_units: int
    max_units: int


class ScalingDecision(msgspec.Struct):
    """A change of the scaler, and its reason."""

    at: float
    role: Literal["broker", "count"]
    before: int
    after: int
    reason: str
    dry: bool = False  # logged only, not carried out


class ScalingState(msgspec.Struct):
    """The signals and decisions of a scaler, newest decision last."""

    name: str  # of the scaler
    at: float
    driver: str
    dry_run: bool
    targets: list[ScalingTarget]
    signals: dict[str, float | None]  # None: unknown at the moment
    decisions: list[ScalingDecision]
