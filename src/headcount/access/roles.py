"""Roles and what each may do; pure.

public     anybody: counts, the small ones hidden; sites
viewer     counts as they are, and their history; how the system does; where people are, coarsely
operator   positions with a reason, single devices, commands, events
admin      tokens, the audit log
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from headcount.errors import AccessError
from headcount.messages.records import ROLES, Role

Scope = Literal[
    "counts:exact",
    "system:read",
    "positions:coarse",
    "positions:read",
    "events:read",
    "devices:read",
    "devices:write",
    "commands:write",
    "tokens:write",
    "audit:read",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_ADDED: dict[Role, tuple[Scope, ...]] = {
    "public": (),
    "viewer": ("counts:exact", "system:read", "positions:coarse"),
    "operator": (
        "positions:read",
        "events:read",
        "devices:read",
        "devices:write",
        "commands:write",
    ),
    "admin": ("tokens:write", "audit:read"),
}


def scopes_of(role: Role) -> frozenset[Scope]:
    """What a role may do: what the ones below it may, and more."""
    roles = ROLES[: ROLES.index(role) + 1]
    return frozenset(scope for each in roles for scope in _ADDED[each])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a person, a program or anybody."""

    role: Role
    #: For the audit log: `token k3…`, `person alice@…`, `this machine`, `anybody`.
    subject: str
    scopes: frozenset[Scope]
    #: The sites that all this is about; empty = all.
    sites: frozenset[str] = frozenset()

    def may(self, scope: Scope, site: str | None = None) -> bool:
        """Whether a scope is theirs, on this site where one is named."""
        return scope in self.scopes and (site is None or not self.sites or site in self.sites)


PUBLIC = Caller("public", "anybody", frozenset())


def caller(
    role: Role, subject: str, scopes: list[str] | None = None, sites: list[str] | None = None
) -> Caller:
    """Somebody of a role; `scopes` and `sites` narrow it where they aren't empty.

    Raises:
        AccessError: there is no such scope, or the role doesn't have it.
    """
    all_of_role = scopes_of(role)
    for scope in scopes or ():
        if scope not in all_of_role:
            known = ", ".join(sorted(all_of_role)) or "none"
            raise AccessError(f"scope {scope}", f"the role {role} has {known}")
    chosen = frozenset(scope for scope in all_of_role if not scopes or scope in scopes)
    return Caller(role, subject, chosen, frozenset(sites or ()))
