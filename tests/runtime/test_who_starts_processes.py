"""Only `runtime` starts processes and installs signal handlers; the lab may, for what it measures, and the device library, which runs alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import headcount

SOURCE = Path(headcount.__file__).parent
ALLOWED = ("runtime", "lab", "device")
MODULES = {"subprocess", "multiprocessing"}
CALLS = {
    "create_subprocess_exec",
    "create_subprocess_shell",
    "add_signal_handler",
    "remove_signal_handler",
    "fork",
    "posix_spawn",
    "execv",
    "execve",
    "execvp",
}
#: Names that count only as attributes of these modules.
OWNED = {("signal", "signal"), ("os", "system"), ("os", "popen")}


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each use of what only `runtime` may use."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if node.func.attr in CALLS or (owner, node.func.attr) in OWNED:
                yield node.lineno, f"{owner}.{node.func.attr}"
            continue
        else:
            continue
        yield from ((node.lineno, name) for name in names & MODULES)


def test_only_runtime_starts_processes_and_handles_signals() -> None:
    """No module outside `runtime`, `lab` and `device` starts a process or installs a signal handler."""
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in ALLOWED
        for line, name in uses(ast.parse(path.read_text()))
    ]
    assert found == []


def test_the_check_finds_what_it_is_for() -> None:
    """Each kind of use is found."""
    code = (
        "import subprocess\nfrom multiprocessing import Process\nos.fork()\nsignal.signal(1, f)\n"
        "asyncio.create_subprocess_exec('x')\nloop.add_signal_handler(1, f)\nplatform.system()\n"
    )
    assert [line for line, _ in uses(ast.parse(code))] == [1, 2, 3, 4, 5, 6]
