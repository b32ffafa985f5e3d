"""Ports of this machine: free ones, and whether one is free."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections import deque

from headcount.errors import PortTakenError, SettingsError

#: Below those that systems use for outgoing connections (32768 and up), which could take the port of a
#: killed server before it is back.
RANGE = range(15_000, 32_000)
#: Returned lately: the caller may not listen there yet, so they are not returned again.
_given: deque[int] = deque(maxlen=1_000)


def listen(
    purpose: str, host: str, port: int, option: str, *, address: str = "host", backlog: int = 1
) -> socket.socket:
    """A socket that listens; on `::` for IPv4, too, as the NATS server does.

    Args:
        purpose: the use of the port, for errors.
        host: an address of this machine, or a name of one.
        port: the port, 0 = any free one.
        option: the flag that changes the port.
        address: the key of the setting that changes the address.
        backlog: number of connections that may wait.

    Raises:
        PortTakenError: another program listens there.
        SettingsError: the address is not this machine's, or the port needs more rights.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # of a name with addresses of both kinds, as the NATS server does
        family, *_, where = min(found, key=lambda each: each[0] != socket.AF_INET)
        listener = socket.create_server(
            (str(where[0]), port), family=family, backlog=backlog, dualstack_ipv6=host == "::"
        )
    except socket.gaierror as error:
        problem = f"{host!r} cannot be resolved ({error.strerror}); use an address or a name of this machine"
        raise SettingsError(address, problem) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(purpose, host, port, option) from error
        if error.errno == errno.EADDRNOTAVAIL:
            problem = f"{host} is not an address of this machine; 0.0.0.0 and :: are all of its addresses"
            raise SettingsError(address, problem) from None
        raise SettingsError(
            address, f"cannot listen on {host}, port {port}, for {purpose}: {error.strerror}; see {option}"
        ) from None
    # accepted connections inherit it, and asyncio sets it only where the protocol was given: without it, the
    # second part of an answer waits 40 ms for the acknowledgement of the first
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def check_free(purpose: str, host: str, port: int, option: str, address: str = "host") -> None:
    """Check that a port is free.

    Raises:
        PortTakenError, SettingsError: see `listen`.
    """
    listen(purpose, host, port, option, address=address).close()


def free_ports(number: int) -> list[int]:
    """Return ports of 127.0.0.1 on which no program listens now."""
    found: list[int] = []
    while len(found) < number:
        port = random.SystemRandom().choice(RANGE)
        if port not in _given:
            with contextlib.suppress(OSError):
                found.append(_free(port))
                _given.append(port)
    return found


def free_port(preferred: int) -> int:
    """Return `preferred` if no program listens there, else any free port."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError):
            return _free(port)
    return preferred


def _free(port: int) -> int:
    """Listen on a port of 127.0.0.1 for a moment; returns its number."""
    with socket.create_server(("127.0.0.1", port)) as probe:
        number: int = probe.getsockname()[1]
        return number
