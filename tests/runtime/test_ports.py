"""Sockets of our servers."""

from __future__ import annotations

import socket

from headcount.runtime.ports import listen


def test_small_answers_are_not_delayed() -> None:
    """Accepted connections send each part of an answer immediately."""
    with (
        listen("HTTP", "127.0.0.1", 0, "--http-port") as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
