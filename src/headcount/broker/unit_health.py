"""The HTTP endpoints of a broker unit: /healthz for the balancer, /metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headcount.broker.auth_service import AuthServiceStats
from headcount.devices.authentication import REFUSAL_REASONS


class Unit(Protocol):
    """A broker unit, as its metrics need it."""

    draining: bool
    connections: int
    messages: int
    kicked: int

    @property
    def problem(self) -> str | None:
        """Why a device would not be served now."""

    @property
    def restarts(self) -> int:
        """How often the server had to be started again."""

    @property
    def cpu_s(self) -> float:
        """Processor time since the start, in seconds."""

    @property
    def figures(self) -> AuthServiceStats:
        """Statistics of its auth service since the start."""


class UnitStats(Collector):
    """The metrics of a unit."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def collect(self) -> Iterator[Metric]:
        """Prometheus' library calls it."""
        unit = self._unit
        gauges = {
            "headcount_unit_up": ("Whether a device is served now.", unit.problem is None),
            "headcount_unit_draining": ("Whether it goes out of service.", unit.draining),
            "headcount_unit_devices": ("Connected devices, over MQTT and WebSocket.", unit.connections),
        }
        for name, (about, value) in gauges.items():
            yield GaugeMetricFamily(name, about, value=float(value))
        counters = {
            "headcount_unit_messages": ("Messages from devices.", unit.messages),
            "headcount_unit_kicked": ("Devices that were sent away.", unit.kicked),
            "headcount_unit_restarts": ("Times that the NATS server was started again.", unit.restarts),
            "headcount_unit_cpu_seconds": ("Processor time of server and agent.", unit.cpu_s),
        }
        for name, (about, total) in counters.items():
            yield CounterMetricFamily(name, about, value=float(total))
        yield from _auth_service_metrics(unit.figures)


def _auth_service_metrics(figures: AuthServiceStats) -> Iterator[Metric]:
    admitted, cut = float(figures.admitted), float(figures.cut)
    yield CounterMetricFamily("headcount_auth_accepted", "Sign-ins that were let in.", value=admitted)
    yield CounterMetricFamily("headcount_auth_disconnected", "Connections that were closed.", value=cut)
    refused = CounterMetricFamily(
        "headcount_auth_rejected", "Sign-ins that weren't let in.", labels=["reason"]
    )
    for reason in REFUSAL_REASONS:
        refused.add_metric([reason], figures.refused[reason])
    yield refused
    bans = CounterMetricFamily("headcount_auth_bans", "Who was banned for a while.", labels=["kind"])
    for kind in ("device", "address"):
        bans.add_metric([kind], figures.bans[kind])
    yield bans


def health_app(unit: Unit) -> Starlette:
    """The unit's own addresses."""
    registry = CollectorRegistry()
    registry.register(UnitStats(unit))

    async def healthz(_: Request) -> Response:
        problem = unit.problem
        status = "draining" if unit.draining else "down" if problem else "up"
        body = {"status": status, "reason": problem, "connections": unit.connections}
        return JSONResponse(body, 503 if problem else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/metrics", metrics)])
