"""The audit log: what it holds, and whether it fits together."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query

from headcount.access.audit_log import HEAD_PATTERN
from headcount.api.middleware.authorization import Require
from headcount.api.schemas import audit
from headcount.api.schemas.responses import failures, success
from headcount.api.state import State

router = APIRouter(prefix="/v1", tags=["access"], dependencies=[Depends(Require("audit:read"))])
MAX_LIMIT = 1000
#: A walk over the whole log takes seconds: one at a time.
_walking = asyncio.Semaphore(1)


@router.get(
    "/audit",
    summary="Who has done what",
    responses={**success("Newest first", audit.AUDIT), **failures("invalid-parameter")},
)
async def list_audit_entries(
    state: State,
    before: Annotated[
        int | None,
        Query(ge=1, le=2**53, description="Only entries before this number; see `before` in the answer."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries at most.")] = 100,
    action: Annotated[
        str,
        Query(
            max_length=131,
            pattern=r"^$|^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*$",
            description="Only this action, or all that begin so: `device` for `device.add`.",
            examples=["positions.read"],
        ),
    ] = "",
) -> audit.AuditListResponse:
    """Entries of the audit log; those of positions with the reasons that were given."""
    found, more = await state.services.audit_log.entries(before=before, limit=limit, action=action)
    return audit.AuditListResponse(
        entries=[audit.AuditEntryResponse(**msgspec.structs.asdict(entry)) for entry in found], before=more
    )


@router.get(
    "/audit/verify",
    summary="Whether the audit log fits together",
    responses={
        **success("What a walk over all of it found", audit.VERIFIED),
        **failures("invalid-parameter"),
    },
)
async def verify_audit_log(
    state: State,
    from_head: Annotated[
        str | None,
        Query(
            pattern=f"^{HEAD_PATTERN}$", description="`head` of an earlier answer, which must still be there."
        ),
    ] = None,
) -> audit.AuditVerificationResponse:
    """Walk over the whole log. Keep `head` somewhere else: only so a missing end is found."""
    async with _walking:
        checked = await state.services.audit_log.verify(from_head or "")
    problems = [audit.AuditProblemEntry(entry=each.entry, problem=each.problem) for each in checked.problems]
    return audit.AuditVerificationResponse(
        intact=checked.intact,
        entries=checked.entries,
        first=checked.first,
        head=checked.head,
        problems=problems,
    )
