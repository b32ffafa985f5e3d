"""Commands import only what they need: `--version` and `--help` next to nothing, so that they are fast."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from headcount.cli.lazy import LazyGroup
from headcount.cli.main import main

#: Packages that take long to import, or much memory.
HEAVY = {
    *("numpy", "pyarrow", "duckdb", "shapely", "osmium"),
    *("fastapi", "starlette", "uvicorn", "pydantic", "httpx", "prometheus_client", "authlib", "joserfc"),
    *("nats", "aiomqtt", "websockets", "msgspec", "cryptography", "segno", "rich", "matplotlib"),
    *("asyncio", "ssl", "tomllib", "importlib.metadata"),
}


def imported(*arguments: str) -> set[str]:
    """The modules that `python -m headcount` with these arguments has imported when it ends."""
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['headcount', *{list(arguments)!r}]\n"
        "try:\n    runpy.run_module('headcount', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_no_command(option: str) -> None:
    """Of headcount only the top of the command line is imported, and none of the heavy packages."""
    modules = imported(option)
    assert modules & HEAVY == set()
    ours = {name for name in modules if name.startswith("headcount.")}
    assert ours == {
        "headcount.__main__",
        "headcount.cli",
        "headcount.cli.main",
        "headcount.cli.lazy",
        "headcount.errors",
    } - ({"headcount.__main__"} - modules)


@pytest.mark.parametrize(
    "command", ["up", "demo", "run", "scale", "device", "token", "ban", "audit", "retention"]
)
def test_help_of_a_command_is_light(command: str) -> None:
    """The help of what runs or administers a deployment loads neither the engine nor the API nor NATS."""
    light = {"asyncio", "ssl", "tomllib", "msgspec"}
    assert imported(command, "--help") & (HEAVY - light) == set()


def groups(group: click.Group) -> Iterator[LazyGroup]:
    """All lazy groups."""
    if isinstance(group, LazyGroup):
        yield group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from groups(command)


def test_tables_of_commands_agree_with_the_commands() -> None:
    """The line of a command in the help of its group is the first line of its own help."""
    found = [(group, name, entry) for group in groups(main) for name, entry in group.entries.items()]
    assert len(found) > 20
    for group, name, entry in found:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.name == name
        assert command.help is not None
        assert command.help.splitlines()[0] == entry.help


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """All commands, with their full names."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from commands(found, f"{name} {inner}")


def test_help_starts_with_one_line() -> None:
    """The help of each command starts with one imperative sentence on a line of its own; each option has a text."""
    for name, command in commands(main, "headcount"):
        assert command.help, name
        first, *rest = command.help.splitlines()
        assert first.endswith("."), f"{name}: {first}"
        assert first[0].isupper(), f"{name}: {first}"
        assert not first.split()[0].endswith("s"), f"{name}: {first}: use the imperative"
        assert not rest or not rest[0].strip(), name
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.help, f"{name} {option.opts[0]}"
