"""Child processes: the only module that starts programs."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from headcount.runtime.private_files import PRIVATE_UMASK

_log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: A log file larger than this at a start is renamed to <name>.log.1.
MAX_LOG_BYTES = 16 << 20
#: How long the output of a process that has ended is waited for.
OUTPUT_S = 1.5

#: Consumes a process's output until it ends.
OutputReader = Callable[[asyncio.StreamReader], Coroutine[Any, Any, None]]

_running: set[ChildProcess] = set()


class ChildProcess:
    """One run of a program, in a process group of its own: Ctrl-C in the terminal is ours to handle.

    On Linux it receives SIGTERM when this process ends, however that happens.
    """

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, output: asyncio.Task[None] | None
    ) -> None:
        self.name = name
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        """Its process id, also after its end."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def ending(self) -> str:
        """How it ended, for people."""
        return ending(self.code or 0)

    async def wait(self) -> int:
        """Its exit code, once it has one and its output has been read."""
        code = await self._process.wait()
        _running.discard(self)
        if self._output is not None:
            await asyncio.wait([self._output], timeout=OUTPUT_S)
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal if it runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def stop(self, *patience_s: float, quiet_s: float = 0.0) -> None:
        """Send SIGTERM and wait, once for each of `patience_s`; kill it after the last, or immediately if there is none.

        Missing a deadline is logged as a warning, one of at most `quiet_s` only as information.
        """
        for number, within_s in enumerate(patience_s, start=1):
            if not self.running:
                break
            self.send(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._process.wait()
            if self.running:
                level = logging.INFO if within_s <= quiet_s else logging.WARNING
                action = "killing it" if number == len(patience_s) else "sending SIGTERM again"
                _log.log(level, "%s did not stop within %g s; %s", self.name, within_s, action)
        self.send(signal.SIGKILL)
        await self.wait()


async def start_process(
    name: str,
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: Path | OutputReader | None = None,
    sockets: Sequence[socket.socket] = (),
) -> ChildProcess:
    """Start a program.

    Args:
        name: what log lines call it.
        command: the program and its arguments.
        environment: its variables; None: ours.
        folder: its working directory; None: ours.
        output: where its output goes: appended to a file, or to a reader; None: to our own.
        sockets: it inherits them, under their file descriptors.

    Raises:
        OSError: it can't be started.
    """
    with contextlib.ExitStack() as opened:
        target: int | Any | None = asyncio.subprocess.PIPE if callable(output) else None
        if isinstance(output, Path):
            target = opened.enter_context(_log_file(output))
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=target,
            stderr=target and (asyncio.subprocess.STDOUT if callable(output) else target),
            process_group=0,
            umask=PRIVATE_UMASK,
            preexec_fn=stop_with_parent(),
            pass_fds=[each.fileno() for each in sockets],
        )
    reading = None
    if callable(output) and process.stdout is not None:
        reading = asyncio.create_task(output(process.stdout), name=f"{name}: output")
    child = ChildProcess(name, process, reading)
    _running.add(child)
    return child


def _log_file(path: Path) -> BinaryIO:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def signal_all(number: signal.Signals) -> None:
    """Send a signal to every process that was started here and still runs."""
    for child in _running:
        child.send(number)


def ending(code: int) -> str:
    """An exit code, negative for a signal, for people."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


async def output_of(command: Sequence[str | Path], timeout_s: float = 10.0) -> str:
    """Return the output of a short command; empty if it can't be run or takes longer."""
    return await asyncio.to_thread(run_briefly, command, timeout_s)


def run_briefly(command: Sequence[str | Path], timeout_s: float = 10.0) -> str:
    """`output_of`, blocking."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def stop_with_parent() -> Callable[[], None] | None:
    """Return the first step of a child, which makes it receive SIGTERM when its parent ends (Linux only)."""
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent has ended already
            os._exit(1)

    return arrange
