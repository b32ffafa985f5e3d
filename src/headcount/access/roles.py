"""Roles and their scopes; pure.

public     counts, with small ones hidden; sites
viewer     exact counts and their history; the state of the system; coarse positions
operator   exact positions with a reason, single devices, commands, events
admin      tokens, the audit log
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from headcount.errors import AccessError
from headcount.messages.records import ACCESS_ROLES, AccessRole

Scope = Literal[
    "counts:exact",
    "system:read",
    "positions:coarse",
    "positions:read",
    "events:read",
    "devices:read",
    "devices:write",
    "commands:write",
    "sites:write",
    "tokens:write",
    "audit:read",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: The scopes that each role has in addition to the roles before it.
_ADDED_SCOPES: dict[AccessRole, tuple[Scope, ...]] = {
    "public": (),
    "viewer": ("counts:exact", "system:read", "positions:coarse"),
    "operator": ("positions:read", "events:read", "devices:read", "devices:write", "commands:write"),
    "admin": ("sites:write", "tokens:write", "audit:read"),
}


def scopes_of(role: AccessRole) -> frozenset[Scope]:
    """Return the scopes of a role, those of the roles before it included."""
    roles = ACCESS_ROLES[: ACCESS_ROLES.index(role) + 1]
    return frozenset(scope for each in roles for scope in _ADDED_SCOPES[each])


@dataclass(frozen=True, slots=True)
class Caller:
    """A person, a program, or an anonymous caller, with their rights."""

    role: AccessRole
    #: As the audit log names the caller: `token k3…`, `person alice@…`, `this machine`, `anybody`.
    subject: str
    scopes: frozenset[Scope]
    #: The sites that the scopes apply to; empty = all.
    sites: frozenset[str] = frozenset()

    def may(self, scope: Scope, site: str | None = None) -> bool:
        """Whether the caller has a scope, on this site if one is given."""
        return scope in self.scopes and (site is None or self.sees(site))

    def sees(self, site: str) -> bool:
        """Whether the caller may see a site at all."""
        return not self.sites or site in self.sites


PUBLIC = Caller("public", "anybody", frozenset())


def caller(
    role: AccessRole, subject: str, scopes: Sequence[str] | None = None, sites: Sequence[str] | None = None
) -> Caller:
    """Return a caller with a role; `scopes` and `sites` restrict it unless they are empty.

    Raises:
        AccessError: a scope does not exist, or the role does not have it.
    """
    all_of_role = scopes_of(role)
    for scope in scopes or ():
        if scope not in all_of_role:
            known = ", ".join(sorted(all_of_role)) or "none"
            raise AccessError(f"scope {scope}", f"the role {role} has {known}")
    chosen = frozenset(scope for scope in all_of_role if not scopes or scope in scopes)
    return Caller(role, subject, chosen, frozenset(sites or ()))
