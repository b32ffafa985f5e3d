"""Ports of this machine: free ones, and whether one is free."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections import deque

from headcount.errors import PortTakenError

#: Below those that systems use for outgoing connections (32768 and up), which could take the port of a
#: killed server before it is back.
RANGE = range(15_000, 32_000)
#: Returned lately: the caller may not listen there yet, so they are not returned again.
_given: deque[int] = deque(maxlen=1_000)


def check_free(purpose: str, host: str, port: int, option: str) -> None:
    """Check that no program listens on a port; `option` is the setting that changes it.

    Raises:
        PortTakenError: another program listens there.
        OSError: the address is not this machine's, or the port needs more rights.
    """
    try:
        _listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(purpose, host, port, option) from error
        raise


def free_ports(number: int) -> list[int]:
    """Return ports of 127.0.0.1 on which no program listens now."""
    found: list[int] = []
    while len(found) < number:
        port = random.SystemRandom().choice(RANGE)
        if port not in _given:
            with contextlib.suppress(OSError):
                found.append(_listen("127.0.0.1", port))
                _given.append(port)
    return found


def free_port(preferred: int) -> int:
    """Return `preferred` if no program listens there, else any free port."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError):
            return _listen("127.0.0.1", port)
    return preferred


def _listen(host: str, port: int) -> int:
    """Listen on a port for a moment; returns its number."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
        number: int = probe.getsockname()[1]
        return number
