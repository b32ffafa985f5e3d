"""A plug-in that does what the payload names, and a package of it in a folder."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headcount.decoding import Decoded, DecodedFix, DecodedStatus, DecodeError, Ignored, Message

TOPICS = ["faulty/+/up", "faulty-all"]


def hang() -> None:
    """Never return."""
    for _ in itertools.count():
        time.sleep(0.1)


def fix(name: str, t: float = 1.0, lat: float = 2.0) -> list[DecodedFix]:
    """One fix."""
    return [DecodedFix(name, t, lat, 3.0)]


def fail(error: Exception) -> None:
    """Raise an exception."""
    raise error


def print_much() -> list[DecodedFix]:
    """Fill the standard output."""
    print("x" * 1_000_000)
    return fix("print")


WAYS: dict[str, Callable[[], Any]] = {
    "hang": hang,
    "slow": lambda: time.sleep(0.3),
    "crash": os.abort,
    "exit": lambda: sys.exit(3),
    "memory": lambda: bytearray(8 << 30),
    "print": print_much,
    "rubbish": lambda: "rubbish",
    "object": lambda: [object()],
    "text": lambda: [DecodedFix("a", "noon", 2.0, 3.0)],  # type: ignore[arg-type]
    "nan": lambda: fix("a", lat=float("nan")),
    "unnamed": lambda: fix(""),
    "many": lambda: [fix("a", float(t))[0] for t in range(101)],
    "large": lambda: fix("a" * (2 << 20)),
    "value": lambda: fail(ValueError("Zaphod")),
    "invalid": lambda: fail(DecodeError("checksum", "the checksum is wrong")),
    "parts": lambda: [
        DecodedStatus("a", online=True),
        Ignored("battery"),
        DecodeError("Bad Label", "two\nlines"),
    ],
}


def decode(payload: bytes, message: Message) -> list[Decoded]:
    """Decode the name of a vehicle, or do what the payload names."""
    name = payload.decode()
    if name in WAYS:
        found: list[Decoded] = WAYS[name]()
        return found
    return [DecodedFix(name, message.received_s, 52.6743, -8.5727, kind="vehicle")]


def install(folder: Path, name: str = "faulty", *, source: str = "", entry: str = "") -> None:
    """Install this module, or one with another source, as a package into a folder."""
    module = f"headcount_{name}"
    (folder / f"{module}.py").write_text(source or Path(__file__).read_text())
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[headcount.decoders]\n{entry or name} = {module}:decode\n")
