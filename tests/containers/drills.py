"""Failures of a cluster's containers, one after the other, and their costs."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from docker.models.containers import Container

from containers.stack import Stack, until
from containers.watch import Watch
from headcount.lab.chaos.recovery import gaps

HEAL_S = 180.0
#: The shortest wait for a PUBACK that is reported.
MIN_WAIT_S = 0.5
#: A wait that began within this time before a drill was seen is attributed to the drill.
BEFORE_S = 0.3


class Drill(NamedTuple):
    """Something that happens to one container."""

    service: str
    number: int
    what: str  # kill, pause, cut off, stop
    lasts_s: float = 0.0


class Done(NamedTuple):
    """A drill as it happened (Unix seconds)."""

    drill: Drill
    from_s: float
    to_s: float  # it was over: unpaused, connected again
    well_s: float  # the container was healthy again


def drill(stack: Stack, container: Container, one: Drill, is_well: Callable[[], bool] | None = None) -> Done:
    """Run a drill, and wait until the container, or `is_well`, reports health again."""
    before, from_s = stack.started(container), time.time()
    match one.what:
        case "kill":
            stack.kill(container)
        case "pause":
            with stack.paused(container):
                time.sleep(one.lasts_s)
        case "cut off":
            with stack.cut_off(container):
                time.sleep(one.lasts_s)
        case "stop":
            assert stack.stopped(container) == 0, f"{container.name} didn't end in order"
            container.start()
    to_s = time.time()

    def well() -> bool:
        # the engine, or the scaler, notices a kill a moment later
        return (one.what != "kill" or stack.has_changed(container, before)) and (
            is_well() if is_well is not None else stack.is_well(container)
        )

    until(well, f"{container.name} is well again", HEAL_S)
    return Done(one, from_s, to_s, time.time())


def api_answers(stack: Stack) -> bool:
    """Whether the API answers through the proxy, with live numbers."""
    url = f"http://127.0.0.1:{stack.http_port}/readyz"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def counts(stack: Stack, site_id: str) -> dict[str, Any]:
    """The counts that the API shows through the proxy."""
    return _asked(stack, f"/v1/sites/{site_id}/counts")


def scaling(stack: Stack) -> dict[str, Any]:
    """The state of the scaler, through the proxy."""
    return _asked(stack, "/v1/system/scaling")


def _asked(stack: Stack, path: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{stack.http_port}{path}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        body: dict[str, Any] = json.load(answer)
    return body


def costs(done: Sequence[Done], watch: Watch, partitions: int, end_s: float) -> list[str]:
    """A line for each drill: how long counts stood still, and no message of a device was acknowledged.

    A wait that began after one drill and before the next is attributed to the first.
    """
    until_s = [one.from_s for one in done[1:]] + [end_s]
    counts = gaps(watch.reports, partitions, done[0].from_s, end_s)
    waits = watch.waits(MIN_WAIT_S)
    lines = []
    for one, next_s in zip(done, until_s, strict=True):
        from_s, to_s = one.from_s - BEFORE_S, next_s - BEFORE_S
        live_s = max((gap.to_s - one.from_s for gap in counts if from_s <= gap.from_s < to_s), default=0.0)
        wait_s = max((b - a for a, b in waits if from_s <= a < to_s), default=0.0)
        name = f"{one.drill.what} {one.drill.service}-{one.drill.number}"
        lasts = f" for {one.drill.lasts_s:g} s" if one.drill.lasts_s else ""
        lines.append(
            f"{name + lasts:<26}: counts live after {live_s:4.1f} s, longest wait for a PUBACK {wait_s:4.1f} s, "
            f"well {one.well_s - one.to_s:4.1f} s after its end"
        )
    return lines
