"""Log people in with an identity provider: OpenID Connect, authorization code flow with PKCE.

Authlib builds the authorization request, exchanges the code, fetches the keys and validates the ID token. Here are
the checks that it leaves to its user: discovery, the issuer of a response, the algorithms, a single audience.

The state of a login (state, nonce, code verifier) is in an encrypted cookie: any API of a deployment can finish a
login that another one started, and a browser cannot be made to finish a login that it has not started.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import StarletteOAuth2App
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.errors import JoseError

from headcount.access.oidc_provider import LOGIN_TIMEOUT_S, OidcProvider
from headcount.errors import LoginError
from headcount.messages.records import ACCESS_ROLES, AccessRole
from headcount.messages.topics import ID

#: Signatures with a private key; never `none`, never a shared key.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_S = 60
_CLIENT_OPTIONS = {"scope": "openid profile email", "code_challenge_method": "S256", "timeout": 10.0}
_PREFIX = "headcount-"
#: The age at which the provider's metadata and keys are fetched again; an unknown key is fetched immediately.
_METADATA_AGE_S = 3600.0
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_MAX_CLAIM = 200
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class LoginStart:
    """A started login."""

    url: str  # of the identity provider, for the browser
    cookie: str  # the state of the login, encrypted


@dataclass(frozen=True, slots=True)
class Person:
    """A person who has logged in, and their rights."""

    subject: str
    name: str
    role: AccessRole
    sites: tuple[str, ...]  # empty = all


class _LoginState(msgspec.Struct):
    state: str
    nonce: str
    verifier: str
    redirect: str
    next: str


class OidcClient:
    """Logins with one provider; every method raises LoginError with the reason if a login fails."""

    def __init__(self, provider: OidcProvider, secret: str) -> None:
        """Encrypt cookies with a key that is derived from the deployment's secret."""
        self._provider = provider
        key = HKDF(SHA256(), 32, salt=None, info=b"headcount login").derive(secret.encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(key))
        self._app: Any = None
        self._loaded_s = float("-inf")

    async def start(self, redirect: str, next_path: str) -> LoginStart:
        """Start a login.

        The provider sends the browser back to `redirect`, an address of this API; then the browser opens `next_path`.
        """
        app = await self._loaded()
        request = await app.create_authorization_url(redirect)
        state = _LoginState(request["state"], request["nonce"], request["code_verifier"], redirect, next_path)
        return LoginStart(request["url"], self._fernet.encrypt(msgspec.json.encode(state)).decode())

    async def finish(self, query: Mapping[str, str], cookie: str) -> tuple[Person, str]:
        """Finish a login with the browser's query; return the person, and the page to open."""
        started = self._decrypt(cookie)
        if not hmac.compare_digest(query.get("state", "").encode(), started.state.encode()):
            raise LoginError("the state does not match the one that this browser started with")
        if "error" in query:
            raise LoginError(f"the identity provider refuses: {_printable(query['error'])}")
        app = await self._loaded()
        # RFC 9207: the response is not another provider's
        if query.get("iss", self._provider.issuer) != self._provider.issuer:
            raise LoginError("the response comes from another identity provider")
        claims = await self._claims(app, query.get("code", ""), started)
        return person(claims, self._provider.role_claim), started.next

    async def _claims(self, app: Any, code: str, started: _LoginState) -> dict[str, Any]:
        """Exchange a code for an ID token; return its claims (OpenID Connect Core 1.0, section 3.1.3.7)."""
        with _login_errors():
            token = await app.fetch_access_token(started.redirect, code=code, code_verifier=started.verifier)
        if not isinstance(token.get("id_token"), str):
            raise LoginError("the identity provider sent no ID token")
        options = {"iss": {"value": self._provider.issuer}, "aud": {"value": self._provider.client_id}}
        with _login_errors():
            claims: dict[str, Any] = await app.parse_id_token(token, started.nonce, options, leeway=LEEWAY_S)
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1:
            raise LoginError("the ID token is not valid: it has more than one audience")
        return claims

    async def _loaded(self) -> Any:
        """Return Authlib's client, with the provider's metadata (OpenID Connect Discovery 1.0)."""
        if self._app is None or time.monotonic() - self._loaded_s > _METADATA_AGE_S:
            issuer = self._provider.issuer
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            with _login_errors():
                found = await self._authlib_app(server_metadata_url=url).load_server_metadata()
            if "error" in found or found.get("issuer") != issuer:
                raise LoginError("the identity provider's metadata is not that of --oidc-issuer")
            for name in _ENDPOINTS:
                if not _is_safe(str(found.get(name, "")), issuer):
                    raise LoginError(f"the identity provider's {name} is missing or not https")
            # nothing else of it: Authlib takes options of its HTTP client from the metadata, too
            metadata = {name: found[name] for name in (*_ENDPOINTS, "issuer")}
            self._app = self._authlib_app(**metadata, id_token_signing_alg_values_supported=ALGORITHMS)
            self._loaded_s = time.monotonic()
        return self._app

    def _authlib_app(self, **options: Any) -> Any:
        return StarletteOAuth2App(
            None,
            "headcount",
            client_id=self._provider.client_id,
            client_secret=self._provider.client_secret or None,
            client_kwargs=dict(_CLIENT_OPTIONS),
            client_auth_methods=[("client_secret_basic", _basic)],
            **options,
        )

    def _decrypt(self, cookie: str) -> _LoginState:
        try:
            return msgspec.json.decode(
                self._fernet.decrypt(cookie.encode(), ttl=LOGIN_TIMEOUT_S), type=_LoginState
            )
        except (InvalidToken, msgspec.MsgspecError, UnicodeEncodeError) as error:
            problem = "it was not started in this browser, or more than 10 minutes ago"
            raise LoginError(problem) from error


@contextlib.contextmanager
def _login_errors() -> Iterator[None]:
    """Turn the errors of Authlib and its libraries into ours."""
    try:
        yield
    except OAuthError as error:
        raise LoginError(f"the identity provider rejects the code: {_printable(error.error)}") from error
    except httpx2.HTTPError as error:
        raise LoginError(f"the identity provider does not answer: {type(error).__name__}") from error
    except JoseError as error:
        raise LoginError(f"the ID token is not valid: {_printable(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LoginError(f"the identity provider's answer is not valid: {_printable(error)}") from error


def _basic(client: Any, _method: str, uri: str, headers: dict[str, str], body: str) -> tuple[Any, ...]:
    """Client authentication as RFC 6749, section 2.3.1, wants it: id and secret are form-encoded first."""
    pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"
    headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return uri, headers, body


def person(claims: Mapping[str, Any], role_claim: str) -> Person:
    """Return the person of an ID token.

    Values `headcount-<role>` and `headcount-<role>-<site>` of the role claim grant rights: the highest role
    counts, on the sites of the values that grant it.

    Raises:
        LoginError: no value grants a role.
    """
    given = claims.get(role_claim)
    values = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    pattern = re.compile(rf"{_PREFIX}({'|'.join(ACCESS_ROLES[1:])})(?:-({ID.pattern}))?")
    roles: dict[str, set[str]] = {}
    for value in values[:_MAX_CLAIM]:
        match = pattern.fullmatch(value) if isinstance(value, str) else None
        if match is not None:
            roles.setdefault(match[1], set()).add(match[2] or "")
    highest = next((role for role in reversed(ACCESS_ROLES) if role in roles), None)
    if highest is None:
        raise LoginError(f"the claim {role_claim!r} grants you no role here")
    sites = roles[highest]
    subject = str(claims["sub"])
    names = (claims.get(key) for key in ("preferred_username", "email", "name"))
    name = next((name for name in names if isinstance(name, str)), subject)
    return Person(
        subject[:_MAX_CLAIM],
        _printable(name)[:_MAX_NAME],
        highest,
        () if "" in sites else tuple(sorted(sites)),
    )


def _is_safe(url: str, issuer: str) -> bool:
    """Whether an endpoint uses https, or, like an issuer on this machine, http."""
    return url.startswith("https://") or (issuer.startswith("http://") and url.startswith("http://"))


def _printable(text: object) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:_MAX_CLAIM]
