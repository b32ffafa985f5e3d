"""Work in a forked process, so that what it imports takes no memory in this one."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


def in_fork(function: Callable[[], T]) -> T:
    """Call `function` in a forked process; return its result or raise its error, by pickle.

    Call it before threads are started; it blocks until the function has ended.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _run(function, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    os.waitpid(pid, 0)
    if not content:
        raise RuntimeError("the forked process ended without a result")
    returned, value = pickle.loads(content)  # noqa: S301  # written by our own child
    if not returned:
        raise value
    return cast(T, value)


def _run(function: Callable[[], object], pipe: int) -> None:
    """The forked process: it must not act on signals that are for the parent, nor return."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            outcome: tuple[bool, object] = True, function()
        except Exception as error:  # noqa: BLE001  # it is raised in the parent
            outcome = False, error
        with os.fdopen(pipe, "wb") as file:
            pickle.dump(outcome, file)
    finally:
        os._exit(0)
