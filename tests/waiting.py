"""Waiting for other threads and programs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop runs already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def log_loop_errors() -> None:
    """In a test that breaks MQTT connections, log errors of callbacks instead of failing.

    aiomqtt leaves callbacks for a closed socket behind, which find it closed.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: loop.default_exception_handler(context))
