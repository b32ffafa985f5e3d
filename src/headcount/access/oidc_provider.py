"""The identity provider, as settings know it: apart from its client, which imports an HTTP client and a JWT library."""

from __future__ import annotations

from dataclasses import dataclass, field

#: A login must be finished within this time.
LOGIN_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """An identity provider, and this deployment's credentials there."""

    issuer: str  # https://…, as in its ID tokens
    client_id: str
    client_secret: str = field(repr=False)  # "" = a public client
    role_claim: str = "groups"
