"""The NATS server's auth callout: decoding its requests, encoding the responses.

    server ──▶ $SYS.REQ.USER.AUTH  a JWT: user, password, certificate, client id and address of a client
    server ◀── reply               a JWT signed by the account's key: a user JWT with permissions, or an error

The response is bound to the request by a key that the server generates for each connection. The account's
key is derived from the deployment's secret, so every unit has the same one.

Source: nats-server `auth_callout.go`, nats-io/jwt v2 `authorization_claims.go`, `user_claims.go`.
Requests contain passwords: no part of them is ever logged.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import math

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from headcount.devices.permissions import Permissions

SUBJECT = "$SYS.REQ.USER.AUTH"
#: A longer request is ignored: a password of 1 KiB and a chain of certificates fit.
MAX_REQUEST_BYTES = 64 << 10
#: The only text in the server's log about a refused client.
REFUSED = "refused"
_CONNECTION_TYPES = ("MQTT", "MQTT_WS")
#: Of nats-io/jwt.
_VERSION = 2
_HEADER = b'{"typ":"JWT","alg":"ed25519-nkey"}'


class _ServerId(msgspec.Struct):
    id: str = ""


class _ClientInfo(msgspec.Struct):
    host: str = ""
    type: str = ""
    mqtt_id: str = ""
    id: int = 0


class _ConnectOptions(msgspec.Struct):
    user: str = ""
    password: str = msgspec.field(default="", name="pass")
    auth_token: str = ""


class _ClientTls(msgspec.Struct):
    verified_chains: list[list[str]] = []


class _CalloutRequest(msgspec.Struct):
    user_nkey: str
    server_id: _ServerId
    client_info: _ClientInfo = msgspec.field(default_factory=_ClientInfo)
    connect_opts: _ConnectOptions = msgspec.field(default_factory=_ConnectOptions)
    client_tls: _ClientTls | None = None


class _CalloutClaims(msgspec.Struct):
    nats: _CalloutRequest
    exp: float = math.inf


_DECODER = msgspec.json.Decoder(_CalloutClaims)


class ClientCertificate(msgspec.Struct, frozen=True):
    """A client certificate that the server has verified."""

    name: str  # the common name
    sha256: str  # in hex


class AuthRequest(msgspec.Struct, frozen=True):
    """A client to authenticate."""

    key: str  # the public key of this connection
    server: str  # the server's own public key
    user: str = ""
    password: str = ""
    client_id: str = ""  # of MQTT
    address: str = ""  # as the server sees it
    type: str = ""  # `mqtt`, `mqtt_ws`, `nats`, …
    certificate: ClientCertificate | None = None
    until_s: float = math.inf  # Unix seconds, when the server stops waiting for the response

    def __repr__(self) -> str:
        """Omit everything personal: representations end up in logs."""
        return "AuthRequest(…)"


def decode_request(data: bytes) -> AuthRequest | None:
    """Decode a request of the server; None if it is not valid.

    The signature is not verified: only the server itself may publish on that subject.
    """
    parts = data.split(b".") if len(data) <= MAX_REQUEST_BYTES else []
    if len(parts) != 3:
        return None
    try:
        claims = _DECODER.decode(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError):
        return None
    request = claims.nats
    tls, client, connect = request.client_tls, request.client_info, request.connect_opts
    chain = tls.verified_chains[0] if tls and tls.verified_chains else []
    return AuthRequest(
        key=request.user_nkey,
        server=request.server_id.id,
        user=connect.user,
        password=connect.password,
        client_id=client.mqtt_id,
        address=client.host,
        type=client.type,
        certificate=_certificate(chain[0]) if chain else None,
        until_s=claims.exp,
    )


@functools.lru_cache(maxsize=4096)
def _certificate(pem: str) -> ClientCertificate | None:
    try:
        found = x509.load_pem_x509_certificate(pem.encode())
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return None
    return ClientCertificate(str(names[0].value) if names else "", found.fingerprint(SHA256()).hex())


class CalloutSigner:
    """Signs responses with the account's key."""

    def __init__(self, secret: str, account: str) -> None:
        """Derive the key from the deployment's secret; accepted clients join `account`."""
        raw = hashlib.blake2b(b"callout", key=secret.encode()[:64], digest_size=32).digest()
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self._account = account
        #: The public key, for the server's configuration.
        self.public: str = _account_key(self._key.public_key().public_bytes_raw())

    def accept(
        self, request: AuthRequest, name: str, permissions: Permissions, now_s: float, expires_s: float | None
    ) -> bytes:
        """Accept a client under a name, until a time (Unix seconds; None = without end)."""
        claims: dict[str, object] = {
            "iat": int(now_s),
            "iss": self.public,
            "sub": request.key,
            "name": name,
            "aud": self._account,
            "nats": _permission_claims(permissions),
        }
        if expires_s is not None:
            claims["exp"] = math.ceil(expires_s)
        return self._respond(request, now_s, {"jwt": self._signed(msgspec.json.encode(claims)).decode()})

    def refuse(self, request: AuthRequest, now_s: float) -> bytes:
        """Refuse a client, without the reason."""
        return self._respond(request, now_s, {"error": REFUSED})

    def _respond(self, request: AuthRequest, now_s: float, fields: dict[str, object]) -> bytes:
        claims = {
            "iat": int(now_s),
            "iss": self.public,
            "sub": request.key,
            "aud": request.server,
            "nats": fields | {"type": "authorization_response", "version": _VERSION},
        }
        return self._signed(msgspec.json.encode(claims))

    def _signed(self, claims: bytes) -> bytes:
        text = _ENCODED_HEADER + b"." + _base64(claims)
        return text + b"." + _base64(self._key.sign(text))


@functools.lru_cache(maxsize=4096)
def _permission_claims(permissions: Permissions) -> msgspec.Raw:
    """The part of a user's claims that is the same for each connection."""
    return msgspec.Raw(
        msgspec.json.encode(
            {
                "pub": _allowed(permissions.publish),
                "sub": _allowed(permissions.subscribe),
                "subs": permissions.max_subscriptions,
                "data": -1,
                "payload": permissions.max_payload_bytes,
                "allowed_connection_types": _CONNECTION_TYPES,
                "type": "user",
                "version": _VERSION,
            }
        )
    )


def _allowed(subjects: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The server takes an empty list for permission to everything."""
    return {"allow": subjects} if subjects else {"deny": (">",)}


def _account_key(public: bytes) -> str:
    """A public key in NATS' encoding of accounts: base 32 of a prefix (0, an A), the key and CRC-16.

    Source: nats-io/nkeys, `strkey.go`, `crc16.go`.
    """
    body = b"\0" + public
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode()


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


_ENCODED_HEADER = _base64(_HEADER)
