"""The folder of real geometry and traces beside the checkout; none of it is committed."""

from __future__ import annotations

from pathlib import Path

import pytest

#: `../shared` beside the checkout, as the data's own README has it.
SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(*parts: str) -> Path:
    """The file `../shared/<parts>`; the test is skipped, with the reason, where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no real data here: {Path('..', 'shared', *parts)} is absent")
    return path
