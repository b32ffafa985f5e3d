"""Ports of this machine that nobody uses now."""

from __future__ import annotations

import contextlib
import random
import socket
from collections import deque

#: They lie below those that systems give to outgoing connections (32768 and up): while a killed server is down,
#: another connection could take its port.
RANGE = range(15_000, 32_000)
#: Given lately: who asked may not listen there yet, and must not get it twice.
_given: deque[int] = deque(maxlen=1_000)


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens now."""
    found: list[int] = []
    while len(found) < number:
        port = random.SystemRandom().choice(RANGE)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
                found.append(port)
                _given.append(port)
    return found
