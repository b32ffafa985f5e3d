"""Waiting, retrying and stopping inside one process."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headcount.runtime.retry import Backoff, repeat, retry
from headcount.runtime.tasks import (
    StopRequestedError,
    cancel_all,
    unless_stopped,
    until_stopped,
    wait_any,
)


async def test_work_is_retried_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    """Listed errors are logged and answered by another attempt; the result is returned."""
    attempts: list[int] = []

    async def work() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise TimeoutError("away")
        return "done"

    caplog.set_level(logging.DEBUG)
    assert (await retry(work, (TimeoutError,), "the work", pause_s=0)) == "done"
    assert len(attempts) == 3
    assert "the work: away; trying again" in caplog.text


async def test_other_errors_are_not_retried() -> None:
    """An error that is not listed ends the work."""

    async def work() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await retry(work, (TimeoutError,), "the work", pause_s=0)


async def test_repeated_work_goes_on_after_success() -> None:
    """Work that returns is called again, until it is cancelled."""
    calls, enough = 0, asyncio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            enough.set()

    repeating = asyncio.create_task(repeat(work, (), "the work", pause_s=0.001))
    await enough.wait()
    repeating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await repeating


def test_pauses_double_to_a_limit_and_begin_again() -> None:
    """Pauses double up to the limit; after a steady time the first one is used again."""
    now_s = 0.0
    backoff = Backoff(1.0, 5.0, steady_s=30.0, clock=lambda: now_s)
    pauses = []
    for _ in range(5):
        backoff.begin()
        pauses.append(backoff.pause_s())
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.begin()
    now_s = 31.0
    assert backoff.pause_s() == 1.0
    assert backoff.pause_s() == 1.0


async def test_a_cancellation_that_is_swallowed_is_repeated() -> None:
    """Tasks that swallow a cancellation end all the same."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await asyncio.sleep(600)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await cancel_all({task})
    assert task.done()


async def test_waiting_ends_with_the_first_event() -> None:
    """Any event ends the wait, and so does its time."""
    first, second = asyncio.Event(), asyncio.Event()
    second.set()
    await wait_any(first, second)
    await wait_any(first, timeout_s=0.01)


async def test_opening_is_given_up_when_stop_is_requested() -> None:
    """A stop cancels what is being opened, and the caller learns that nothing was."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    with pytest.raises(StopRequestedError):
        await unless_stopped(asyncio.sleep(600), stop)
    assert await unless_stopped(asyncio.sleep(0, "opened"), asyncio.Event()) == "opened"


async def test_work_may_close_when_it_is_stopped() -> None:
    """Stopped work is cancelled once and may take its time to close."""
    closed: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.3)  # closing takes time
            closed.append(True)

    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    await until_stopped(work(), stop)
    assert closed == [True]
