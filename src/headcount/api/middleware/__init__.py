"""Middleware: what happens to every request, before and after its endpoint."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Send


def on_start(send: Send, act: Callable[[Message], None]) -> Send:
    """Return a `send` that calls `act` with the start of the response before sending it."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            act(message)
        await send(message)

    return sending
