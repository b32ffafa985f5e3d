"""The audit log: list its entries, verify its chain."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query

from headcount.api.middleware.authorization import RequireScope
from headcount.api.parameters import AuditHead
from headcount.api.schemas import audit
from headcount.api.state import State

router = APIRouter(prefix="/v1", tags=["access"], dependencies=[Depends(RequireScope("audit:read"))])
MAX_LIMIT = 1000
#: Verifying the whole log takes seconds: one request at a time.
_verifying = asyncio.Semaphore(1)


@router.get("/audit", summary="List audit entries", response_description="Newest first")
async def list_audit_entries(
    state: State,
    before: Annotated[
        int | None,
        Query(ge=1, le=2**53, description="Only entries before this number; see `before` in the answer."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Maximum number of entries.")] = 100,
    action: Annotated[
        str,
        Query(
            max_length=131,
            pattern=r"^$|^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*$",
            description="Only this action, or all that start with it: `device` for `device.add`.",
            examples=["positions.read"],
        ),
    ] = "",
) -> audit.AuditListResponse:
    """List entries of the audit log; those about positions include the reasons."""
    found, more = await state.services.audit_log.entries(before=before, limit=limit, action=action)
    entries = [audit.AuditEntryResponse(**msgspec.structs.asdict(entry)) for entry in found]
    return audit.AuditListResponse(entries=entries, before=more)


@router.get(
    "/audit/verify",
    summary="Verify the audit log",
    response_model=audit.AuditVerificationResponse,
    response_description="The result",
)
async def verify_audit_log(state: State, from_head: AuditHead = None) -> Any:
    """Verify the chain of the whole log. Store `head` elsewhere: only with it, a missing end is detected."""
    async with _verifying:
        return await state.services.audit_log.verify(from_head or "")
