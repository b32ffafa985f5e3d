"""The supervisor: start, restart with growing pauses, replace, stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from headcount.errors import BrokerError
from headcount.runtime.processes import ChildProcess, start_process
from headcount.runtime.retry import Backoff
from headcount.runtime.supervisor import Supervised, all_running
from waiting import until

SLEEP = "import time; time.sleep(600)"
#: Prints a line once it ignores SIGTERM, and keeps running.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def _python(code: str, name: str = "child") -> Callable[[], object]:
    return partial(start_process, name, [sys.executable, "-c", code])


def _supervised(code: str, **options: object) -> Supervised:
    options.setdefault("backoff", Backoff(0.01, 0.05))
    return Supervised("child", _python(code), **options)  # type: ignore[arg-type]


def runs(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_process_is_started_again() -> None:
    """After a kill there is another process, the restart is counted, and its end reported."""
    codes: list[int] = []
    async with _supervised(SLEEP, on_exit=codes.append) as child:
        before = child.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(lambda: child.pid not in {None, before})
        after = child.pid
    assert child.restarts == 1
    assert child.pid is None
    assert after is not None
    assert not runs(after)
    assert codes == [-signal.SIGKILL]


async def test_pauses_grow(caplog: pytest.LogCaptureFixture) -> None:
    """A program that ends immediately is started again after 0.1, 0.2 and 0.4 s."""
    async with _supervised("", backoff=Backoff(0.1, 10.0)) as child:
        await until(lambda: child.restarts == 3)
    for pause in ("0.1 s", "0.2 s", "0.4 s"):
        assert f"starting it again in {pause}" in caplog.text


async def test_a_first_start_that_fails_leaves_nothing() -> None:
    """An error of the check at the first start reaches the caller, and the process is gone."""
    started: list[ChildProcess] = []

    async def fail(process: ChildProcess) -> None:
        started.append(process)
        raise BrokerError("not ready")

    async def check() -> None:
        with pytest.raises(BrokerError, match="not ready"):
            await _supervised(SLEEP, check=fail).__aenter__()

    await check()
    assert not runs(started[0].pid)


async def test_a_restart_that_fails_is_repeated() -> None:
    """A restart whose check fails is logged and repeated; meanwhile the program is not ready."""
    attempts: list[bool] = []

    async def fail_twice(_: ChildProcess) -> None:
        attempts.append(child.ready)
        if len(attempts) in {2, 3}:
            raise BrokerError("not yet")

    child = _supervised(SLEEP, check=fail_twice)

    async def check() -> None:
        async with child:
            assert child.ready
            os.kill(child.pid or 0, signal.SIGKILL)
            await until(lambda: len(attempts) == 4 and child.ready)

    await check()
    assert attempts == [False] * 4
    assert child.restarts == 3


async def test_a_process_that_does_not_stop_is_killed(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A process that ignores SIGTERM is killed after its time, and that is logged."""
    log = tmp_path / "child.log"
    start = partial(start_process, "child", [sys.executable, "-c", DEAF], output=log)
    async with Supervised("child", start, stop_s=(0.2,)) as child:
        await until(lambda: "deaf" in log.read_text())
        pid = child.pid
    assert pid is not None
    assert not runs(pid)
    assert "child did not stop within 0.2 s; killing it" in caplog.text


async def test_many_stop_side_by_side(tmp_path: Path) -> None:
    """Five that have to be killed take as long as one."""

    def deaf(number: int) -> Supervised:
        log = tmp_path / f"{number}.log"
        start = partial(start_process, "child", [sys.executable, "-c", DEAF], output=log)
        return Supervised("child", start, stop_s=(1.0,))

    async def check() -> float:
        async with all_running([deaf(number) for number in range(5)]):
            await until(lambda: all("deaf" in log.read_text() for log in tmp_path.glob("*.log")))
            began_s = time.monotonic()
        return time.monotonic() - began_s

    assert (await check()) < 4.0


async def test_a_replaced_process_is_left_alone() -> None:
    """The replacing process takes its place without a restart; the former one runs until the end."""
    async with _supervised(SLEEP) as child:
        before = child.pid
        former = await child.replace(_python(SLEEP))  # type: ignore[arg-type]
        assert former is not None
        assert former.pid == before
        assert former.running
        assert child.pid != before
        os.kill(former.pid, signal.SIGKILL)
        await until(lambda: not former.running)
        assert child.restarts == 0
        after = child.pid
        assert after is not None
    assert not runs(after)


async def test_a_replacement_that_fails_changes_nothing() -> None:
    """When the new process is not ready, the running one stays and the new one is gone."""
    new: list[ChildProcess] = []

    async def first_only(process: ChildProcess) -> None:
        if child.process is not process:
            new.append(process)
            raise BrokerError("no")

    child = _supervised(SLEEP, check=first_only)

    async def check() -> None:
        async with child:
            before = child.pid
            with pytest.raises(BrokerError):
                await child.replace(_python(SLEEP))  # type: ignore[arg-type]
            assert child.pid == before
            assert child.ready

    await check()
    assert not runs(new[0].pid)


async def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is appended to the log; one above the limit is renamed at the next start."""
    monkeypatch.setattr("headcount.runtime.processes.MAX_LOG_BYTES", 10)
    log = tmp_path / "child.log"

    async def run(text: str) -> None:
        process = await start_process("child", [sys.executable, "-c", f"print({text!r})"], output=log)
        await process.wait()

    for text in ("first", "second", "third"):
        await run(text)
    assert log.with_name("child.log.1").read_text() == "first\nsecond\n"
    assert log.read_text() == "third\n"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
async def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    """When the parent is killed, its children end."""
    pid_file = tmp_path / "pid"
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from headcount.runtime.processes import start_process\n"
        "async def main():\n"
        f"    child = await start_process('child', [sys.executable, '-c', {SLEEP!r}])\n"
        f"    Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    parent = await start_process("parent", [sys.executable, "-c", code])
    await until(lambda: pid_file.exists() and pid_file.read_text() != "")
    await parent.stop()
    await until(lambda: not runs(int(pid_file.read_text())))
