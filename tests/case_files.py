"""The inputs in `tests/cases`: files that users have sent, see its README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CASES = Path(__file__).resolve().parent / "cases"


def case(name: str) -> Path:
    """The file of this name."""
    return CASES / name


def case_json(name: str) -> Any:
    """The JSON in the file of this name."""
    return json.loads(case(name).read_bytes())
