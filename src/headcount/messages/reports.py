"""Reports that roles publish every second on `metrics.>`, as JSON.

Counters are absolute numbers since the start of the process, so a lost or repeated report changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: metrics.count.<worker>: WorkerReport; metrics.adapters.<worker>: AdapterReport; metrics.scale.<name>:
#: metrics.history.<writer>: HistoryReport; metrics.bridge.<process>: BridgeReport;
#: metrics.refusals.<server>: RefusalReport, when it has changed. ScalingState (messages/units.py), once per period of the scaler.
REPORT_SUBJECTS = "metrics.>"
WORKER_REPORT_SUBJECT = "metrics.count.{worker}"
HISTORY_REPORT_SUBJECT = "metrics.history.{writer}"
ADAPTER_REPORT_SUBJECT = "metrics.adapters.{worker}"
BRIDGE_REPORT_SUBJECT = "metrics.bridge.{process}"
REFUSAL_REPORT_SUBJECT = "metrics.refusals.{server}"
SCALER_REPORT_SUBJECT = "metrics.scale.{name}"


class RefusalReport(msgspec.Struct):
    """A broker's refusals: `<action>.<reason>` → number."""

    server: str
    counts: Mapping[str, float] = {}


class LatencyHistogram(msgspec.Struct):
    """Seconds from received to counted: cumulative counts up to each bound `le`."""

    le: list[float]
    counts: list[float]
    sum: float = 0.0
    count: float = 0.0


class WorkerReport(msgspec.Struct):
    """A counting worker's report."""

    worker: str
    verdicts: dict[str, dict[str, float]] = {}  # kind ("unknown" included) → verdict → fixes
    lag: float = 0.0  # messages of its partitions that it has yet to read
    partitions: int = 0  # that it owns
    latency: LatencyHistogram | None = None
    cpu_s: float | None = None
    fixes_per_s: float = 0.0  # since the report before


class HistoryReport(msgspec.Struct):
    """A history writer's report."""

    writer: str
    rows: dict[str, float] = {}  # that it stored, by data set
    flushes: dict[str, float] = {}  # "stored", or "overtaken" by another writer
    refused: float = 0.0  # messages that cannot be decoded
    lag: float = 0.0  # messages of its partitions that are not stored yet
    segments: int = 0  # in the manifest


class AdapterReport(msgspec.Struct):
    """The adapters' report: messages by what became of them."""

    worker: str
    translated: Mapping[str, float] = {}  # by format
    ignored: Mapping[str, Mapping[str, float]] = {}  # by format and reason
    rejected: Mapping[str, Mapping[str, float]] = {}  # by format and reason
    running: Mapping[str, bool] = {}  # formats of plug-ins: whether their process runs


class BridgeReport(msgspec.Struct):
    """A bridge's report: messages of its source by what became of them."""

    process: str
    name: str  # of the bridge
    active: bool = False  # whether it copies; otherwise it waits for the active one to end
    connected: bool = False  # to the source
    copied: Mapping[str, float] = {}  # "log", or "foreign" for a decoder
    ignored: Mapping[str, float] = {}  # by reason
