"""The memory of a reporter as JSON, for the restart of a device; pure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from headcount.device.positions import DevicePosition
from headcount.device.reporting import ReportState


def encode_state(state: ReportState) -> str:
    """The state as JSON."""
    fields = asdict(state) | {"zones": sorted(state.zones)}
    if state.paused_until == -math.inf:
        del fields["paused_until"]
    return json.dumps(fields)


def decode_state(text: str) -> ReportState:
    """The state of a JSON text.

    Raises:
        ValueError: it is not one.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        return ReportState(
            zones=frozenset(map(str, fields["zones"])),
            last=_position(fields["last"]),
            placed=_position(fields["placed"]),
            interval_s=None if fields["interval_s"] is None else float(fields["interval_s"]),
            paused_until=float(fields.get("paused_until", -math.inf)),
            is_requested=bool(fields["is_requested"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"is not a saved state: {error}") from error


def _position(fields: dict[str, Any] | None) -> DevicePosition | None:
    return None if fields is None else DevicePosition(**fields)
