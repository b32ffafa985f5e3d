"""Waiting for other tasks, threads and programs: by a condition, never for a fixed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
#: Far above what anything takes here, also on a busy machine; below the limit of a test.
LIMIT_S = 150.0
#: The limit on a busy machine for steps of a second or two on an idle one.
BUSY_S = 60.0


async def until(
    condition: Callable[[], Any],
    what: str = "the condition",
    timeout_s: float = LIMIT_S,
    every_s: float = 0.02,
) -> Any:
    """Poll until a condition, which may be a coroutine function, holds; return its first true value.

    Raises:
        AssertionError: it did not hold in time; with `what` and its last value.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s; last: {value!r}"
        await asyncio.sleep(every_s)


def wait_until(
    condition: Callable[[], T],
    what: str = "the condition",
    timeout_s: float = LIMIT_S,
    every_s: float = 0.05,
) -> T:
    """Poll as `until` does, in synchronous code."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s; last: {value!r}"
        time.sleep(every_s)
    return value


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
