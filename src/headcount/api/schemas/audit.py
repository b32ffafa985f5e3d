"""The audit log."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from headcount.api.schemas.base import Schema


class AuditEntryResponse(Schema):
    """One entry."""

    n: int
    at: str
    actor: str
    action: str
    subject: str
    detail: dict[str, str | int | float | bool | None]
    prev: str = Field(description="The hash of the previous entry.")
    hash: str


class AuditListResponse(Schema):
    """Entries, newest first."""

    entries: list[AuditEntryResponse]
    before: int | None = Field(description="The `before` of the next page; null = this is the last one.")


class AuditProblemEntry(Schema):
    """A place where the chain is broken."""

    entry: int
    problem: str


class AuditVerificationResponse(Schema):
    """The result of verifying the whole log."""

    intact: bool
    entries: int
    first: int = Field(description="The number of the oldest stored entry; 0 = the log is empty.")
    head: str = Field(description="Number and hash of the newest entry.")
    problems: list[AuditProblemEntry] = Field(description="The first hundred.")


_HASHES = ("5f1c…", "b07a…")
AUDIT: dict[str, Any] = {
    "entries": [
        {
            "n": 42,
            "at": "2026-11-24T13:00:00.000Z",
            "actor": "person alice (248289761001)",
            "action": "positions.read",
            "subject": "",
            "detail": {"reason": "search for a missing person, case 12", "rows": 17, "within": "library"},
            "prev": _HASHES[0],
            "hash": _HASHES[1],
        }
    ],
    "before": 42,
}
VERIFIED: dict[str, Any] = {
    "intact": True,
    "entries": 42,
    "first": 1,
    "head": f"42:{_HASHES[1]}",
    "problems": [],
}
