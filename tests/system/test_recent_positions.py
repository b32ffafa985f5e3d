"""A fix that was counted a moment ago is in the answers of the history."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from system.running import Up
from system.senders import fix, publish
from waiting import wait_until

LIBRARY = "glucksman-library"


def test_what_is_counted_is_in_the_history(tmp_path: Path) -> None:
    """As soon as a device is counted, its fix is among the stored positions, at an instant too, and once only."""
    with Up(tmp_path) as up:

        def positions(**parameters: Any) -> list[str]:
            found = up.http("/v1/sites/ul/fixes", reason="test", **parameters)
            return [feature["properties"]["device"] for feature in found["features"]]

        for number in range(1, 4):
            publish(up.mqtt_port, f"headcount/ul/person/p{number}/fix", fix(LIBRARY))
            wait_until(lambda n=number: up.counts()[LIBRARY][0] == n)  # type: ignore[misc]
            # workers store rows for queries at most every 0.4 s
            wait_until(lambda n=number: len(positions(within=LIBRARY)) >= n)  # type: ignore[misc]
            for parameters in ({"within": LIBRARY}, {}, {"at": str(time.time())}):
                found = positions(**parameters)
                assert len(found) == len(set(found)) == number
