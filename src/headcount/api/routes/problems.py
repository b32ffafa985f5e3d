"""The meaning of each problem type."""

from __future__ import annotations

from fastapi import APIRouter

from headcount.api.schemas.problems import NOT_FOUND, TYPES, ProblemError, ProblemMeaning

router = APIRouter()


@router.get("/problems/{name}", include_in_schema=False)
async def get_problem(name: str) -> ProblemMeaning:
    """Return what a problem type means and what to do about it."""
    kind = TYPES.get(name)
    if kind is None:
        raise ProblemError(NOT_FOUND, f"There is no problem type of this name. Types: {', '.join(TYPES)}.")
    return ProblemMeaning(
        type=f"/problems/{kind.name}", title=kind.title, status=kind.status, meaning=kind.meaning
    )
