"""The audit log."""

from __future__ import annotations

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
