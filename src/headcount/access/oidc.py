"""Logging in with an identity provider: OpenID Connect, authorization code with PKCE.

What must come back to the browser that began is in a cookie that only we can read and make: state, nonce
and the code verifier. So any API of a deployment can end what another one began, and nobody can
make somebody else's browser end a login that it hasn't begun.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from authlib.common.security import generate_token
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from headcount.errors import LoginError
from headcount.messages.records import ROLES, Role
from headcount.messages.topics import ID

#: A login that isn't ended by then must be begun anew.
STATE_LIFETIME_S = 600
#: Signatures with a key that only the provider has; never `none`, never one keyed with something public.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_S = 60
SCOPE = "openid profile email"
_PREFIX = "headcount-"
#: What the provider says of itself and its keys is asked again after this.
_KNOWN_S = 3600.0
#: And for a key that we don't know, not more often than this.
_AGAIN_S = 10.0
_TIMEOUT_S = 10.0
_MAX_ANSWER = 1 << 20
_MAX_CLAIM = 200
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """Who knows the people that log in, and as what we are known there."""

    issuer: str  # https://…, as it stands in ID tokens
    client_id: str
    client_secret: str = field(repr=False)
    role_claim: str = "groups"


@dataclass(frozen=True, slots=True)
class LoginStart:
    """A login that a browser has begun."""

    url: str  # where the browser goes now
    cookie: str  # what it must bring back


@dataclass(frozen=True, slots=True)
class Person:
    """Who has logged in, and what they may."""

    subject: str
    name: str
    role: Role
    sites: tuple[str, ...]  # none = all


class _State(msgspec.Struct):
    state: str
    nonce: str
    verifier: str
    redirect: str
    next: str


class OidcClient:
    """Logins with one provider; every call raises LoginError, saying why nobody was logged in."""

    def __init__(self, provider: OidcProvider, secret: str) -> None:
        """Use a provider; what browsers bring back is sealed with a key from the deployment's secret."""
        self._provider = provider
        key = HKDF(SHA256(), 32, salt=None, info=b"headcount login").derive(secret.encode())
        self._seal = Fernet(base64.urlsafe_b64encode(key))
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._asked_s = self._keys_s = float("-inf")

    async def start(self, redirect: str, next_path: str) -> LoginStart:
        """Begin a login.

        Args:
            redirect: our address to which the provider sends the browser back.
            next_path: where on our pages it goes then.
        """
        metadata = await self._known()
        state = _State(generate_token(32), generate_token(32), generate_token(64), redirect, next_path)
        url = prepare_grant_uri(
            str(metadata["authorization_endpoint"]),
            self._provider.client_id,
            "code",
            redirect_uri=redirect,
            scope=SCOPE,
            state=state.state,
            nonce=state.nonce,
            code_challenge=create_s256_code_challenge(state.verifier),
            code_challenge_method="S256",
        )
        return LoginStart(url, self._seal.encrypt(msgspec.json.encode(state)).decode())

    async def finish(self, query: Mapping[str, str], cookie: str) -> tuple[Person, str]:
        """End a login with what the browser brings back; the person, and where they go.

        Raises:
            LoginError: nobody was logged in, and why.
        """
        begun = self._unsealed(cookie)
        if not hmac.compare_digest(query.get("state", "").encode(), begun.state.encode()):
            raise LoginError("the state isn't the one that this browser began with")
        if "error" in query:
            raise LoginError(f"the identity provider refuses: {_plain(query['error'])}")
        metadata = await self._known()
        issuer = query.get("iss")  # RFC 9207: that this answer isn't another provider's
        if issuer is not None and issuer != self._provider.issuer:
            raise LoginError("the answer comes from another identity provider")
        token = await self._token(str(metadata["token_endpoint"]), query.get("code", ""), begun)
        claims = await self._claims(token, begun.nonce)
        return person(claims, self._provider.role_claim), begun.next

    async def _token(self, endpoint: str, code: str, begun: _State) -> str:
        """The ID token for a code."""
        provider = self._provider
        named = {} if provider.client_secret else {"client_id": provider.client_id}
        body = prepare_token_request(
            "authorization_code",
            code=code,
            redirect_uri=begun.redirect,
            code_verifier=begun.verifier,
            **named,
        )
        # RFC 6749, section 2.3.1: both are encoded as in a form first
        secret = (quote(provider.client_id, safe=""), quote(provider.client_secret, safe=""))
        answer = await self._ask(
            "POST",
            endpoint,
            content=body,
            headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
            auth=httpx.BasicAuth(*secret) if provider.client_secret else None,
        )
        if "error" in answer:
            raise LoginError(f"the identity provider refuses the code: {_plain(answer['error'])}")
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginError("the identity provider sent no ID token")
        return token

    async def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """What a valid ID token says (OpenID Connect Core 1.0, section 3.1.3.7)."""
        try:
            decoded = jwt.decode(token, await self._key_set(token), algorithms=ALGORITHMS)
            rules = jwt.JWTClaimsRegistry(
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self._provider.issuer},
                aud={"essential": True, "value": self._provider.client_id},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            rules.validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise LoginError(f"the ID token isn't valid: {_plain(str(error))}") from error
        claims = decoded.claims
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if claims.get("azp", self._provider.client_id) != self._provider.client_id or len(audience) > 1:
            raise LoginError("the ID token isn't valid: it is for somebody else, too")
        return claims

    async def _key_set(self, token: str) -> KeySet:
        """The provider's keys; asked again where the token names one that isn't among them."""
        now = time.monotonic()
        named = _key_id(token)
        unknown = self._keys is None or (
            named is not None and named not in {key.kid for key in self._keys.keys}
        )
        if now - self._keys_s > _KNOWN_S or (unknown and now - self._keys_s > _AGAIN_S):
            metadata = await self._known()
            try:
                self._keys = KeySet.import_key_set(await self._get(str(metadata["jwks_uri"])))  # type: ignore[arg-type]
            except (JoseError, ValueError, TypeError) as error:
                raise LoginError("the identity provider's keys can't be read") from error
            self._keys_s = now
        if self._keys is None:
            raise LoginError("the identity provider's keys aren't known")
        return self._keys

    async def _known(self) -> dict[str, Any]:
        """What the provider says of itself (OpenID Connect Discovery 1.0)."""
        now = time.monotonic()
        if now - self._asked_s > _KNOWN_S:
            issuer = self._provider.issuer
            found = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                raise LoginError("the identity provider calls itself otherwise than --oidc-issuer")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not _safe(str(found.get(name, "")), issuer):
                    raise LoginError(f"the identity provider's {name} is missing or not https")
            self._metadata, self._asked_s = found, now
        return self._metadata

    async def _get(self, url: str) -> dict[str, Any]:
        found = await self._ask("GET", url)
        if "error" in found:
            raise LoginError("the identity provider doesn't say what it is")
        return found

    async def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """The provider's answer; an error that is told as OAuth has it is an answer, too."""
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
                answer = await http.request(method, url, **options)
                found = answer.json() if len(answer.content) <= _MAX_ANSWER else None
        except (httpx.HTTPError, ValueError) as error:
            raise LoginError(f"the identity provider doesn't answer: {type(error).__name__}") from error
        if not isinstance(found, dict) or (answer.is_error and "error" not in found):
            raise LoginError(f"the identity provider's answer {answer.status_code} can't be read")
        return found

    def _unsealed(self, cookie: str) -> _State:
        try:
            return msgspec.json.decode(self._seal.decrypt(cookie.encode(), ttl=STATE_LIFETIME_S), type=_State)
        except (InvalidToken, msgspec.MsgspecError, UnicodeEncodeError) as error:
            problem = "it wasn't begun in this browser, or longer ago than 10 minutes"
            raise LoginError(problem) from error


def person(claims: Mapping[str, Any], role_claim: str) -> Person:
    """Whom an ID token is about: `headcount-<role>` and `headcount-<role>-<site>` in a claim say what they may.

    The highest role counts, on the sites of the values that give it.

    Raises:
        LoginError: no value gives a role.
    """
    given = claims.get(role_claim)
    values = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    roles: dict[Role, set[str]] = {}
    for value in values[:_MAX_CLAIM]:
        for role in ROLES[1:]:
            match = (
                re.fullmatch(rf"{_PREFIX}{role}(?:-({ID.pattern}))?", value)
                if isinstance(value, str)
                else None
            )
            if match is not None:
                roles.setdefault(role, set()).add(match[1] or "")
    highest = next((role for role in reversed(ROLES) if role in roles), None)
    if highest is None:
        raise LoginError(f"nothing in the claim {role_claim!r} gives you a role here")
    sites = roles[highest]
    subject = str(claims["sub"])
    name = next(
        (claims[key] for key in ("preferred_username", "email", "name") if isinstance(claims.get(key), str)),
        subject,
    )
    return Person(
        subject[:_MAX_CLAIM], _plain(name)[:_MAX_NAME], highest, () if "" in sites else tuple(sorted(sites))
    )


def _key_id(token: str) -> str | None:
    head, _, _ = token.partition(".")
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, msgspec.MsgspecError):
        return None
    named = found.get("kid") if isinstance(found, dict) else None
    return named if isinstance(named, str) else None


def _safe(url: str, issuer: str) -> bool:
    """Whether an address of the provider is https, or, like the provider itself, plain on this machine."""
    return url.startswith("https://") or (issuer.startswith("http://") and url.startswith("http://"))


def _plain(text: object) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:_MAX_CLAIM]
