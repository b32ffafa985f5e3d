"""Metrics of requests, and of the fixes in them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from headcount.services.ingest import Receipt


class HttpMetrics:
    """The API's own numbers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Export them with `registry`."""
        self.requests = Counter(
            "headcount_http_requests", "HTTP requests.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "headcount_http_request_duration_seconds",
            "Time to the start of the response.",
            ("route",),
            registry=registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.0),
        )
        self._fixes = Counter(
            "headcount_http_fixes",
            "Fixes that devices sent over HTTP.",
            ("endpoint", "verdict"),
            registry=registry,
        )

    def count_fixes(self, endpoint: str, receipts: Iterable[Receipt]) -> None:
        """Count the fixes of a request to an endpoint."""
        for receipt in receipts:
            self._fixes.labels(endpoint, receipt.verdict).inc()
