"""The server's requests and our responses, as bytes."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from headcount.devices.auth_callout import (
    MAX_REQUEST_BYTES,
    REFUSED,
    AuthRequest,
    CalloutSigner,
    decode_request,
)
from headcount.devices.permissions import Permissions

NOW_S = 1_800_000_000.5
PERMISSIONS = Permissions(("a.b",), ("c", "c.>"), 7, 99)
REQUEST: dict[str, Any] = {
    "exp": NOW_S + 2,
    "nats": {
        "user_nkey": "UKEY",
        "server_id": {"id": "SERVER", "name": "n"},
        "client_info": {"host": "192.0.2.1", "type": "mqtt", "mqtt_id": "c1", "id": 7, "kind": "Client"},
        "connect_opts": {"user": "u1", "pass": "p1", "protocol": 1},
    },
}


def jwt(claims: Any) -> bytes:
    """A JWT of the server, whose signature is not verified."""
    return b"e30." + base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=") + b".c2ln"


def part(text: bytes) -> bytes:
    """One of a JWT's parts."""
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def claims_of(token: bytes, account: str) -> dict[str, Any]:
    """The claims of a JWT with a valid signature of this account."""
    raw = base64.b32decode(account)
    assert (len(account), account[0]) == (56, "A")
    assert binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") == raw[-2:]
    header, body, signature = token.split(b".")
    assert msgspec.json.decode(part(header)) == {"typ": "JWT", "alg": "ed25519-nkey"}
    Ed25519PublicKey.from_public_bytes(raw[1:-2]).verify(part(signature), header + b"." + body)
    found: dict[str, Any] = msgspec.json.decode(part(body))
    return found


def test_a_request() -> None:
    """A request is decoded with all fields, and its representation shows none of them."""
    found = decode_request(jwt(REQUEST))
    assert found == AuthRequest(
        "UKEY", "SERVER", "u1", "p1", "c1", "192.0.2.1", "mqtt", certificate=None, until_s=NOW_S + 2
    )
    assert repr(found) == "AuthRequest(…)"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a.b",
        b"a.b.c.d",
        b"a.!.c",
        jwt([]),
        jwt({}),
        jwt({"nats": {"user_nkey": "U"}}),
        jwt({"nats": REQUEST["nats"] | {"connect_opts": {"user": 5}}}),
        b"." + b"A" * MAX_REQUEST_BYTES + b".",
        b"." + base64.urlsafe_b64encode(b"[" * 20_000) + b".",
    ],
)
def test_no_jwt(data: bytes) -> None:
    """An invalid request is ignored."""
    assert decode_request(data) is None


@given(st.binary(max_size=200), st.booleans())
def test_whatever_comes(raw: bytes, encoded: bool) -> None:
    """No bytes raise anything."""
    assert decode_request(b"a." + base64.urlsafe_b64encode(raw) + b".c" if encoded else raw) is None


def test_a_broken_certificate() -> None:
    """An invalid certificate is ignored."""
    nats = REQUEST["nats"] | {"client_tls": {"verified_chains": [["no certificate"]]}}
    found = decode_request(jwt({"nats": nats}))
    assert found is not None
    assert found.certificate is None


@pytest.mark.parametrize("expires_s", [None, NOW_S + 0.2])
def test_accepted(expires_s: float | None) -> None:
    """The response is bound to connection and server, and contains a user with these permissions and this expiry."""
    signer = CalloutSigner("the secret", "ACC")
    request = AuthRequest("UKEY", "SERVER")
    answer = claims_of(signer.accept(request, "d1.abcd", PERMISSIONS, NOW_S, expires_s), signer.public)
    assert (answer["sub"], answer["aud"], answer["iss"]) == ("UKEY", "SERVER", signer.public)
    assert (answer["nats"]["type"], answer["nats"].get("error")) == ("authorization_response", None)
    user = claims_of(answer["nats"]["jwt"].encode(), signer.public)
    assert (user["sub"], user["name"], user["aud"]) == ("UKEY", "d1.abcd", "ACC")
    assert user.get("exp") == (None if expires_s is None else 1_800_000_001)
    assert user["nats"]["pub"] == {"allow": ["a.b"]}
    assert user["nats"]["sub"] == {"allow": ["c", "c.>"]}
    assert (user["nats"]["subs"], user["nats"]["payload"]) == (7, 99)
    assert user["nats"]["allowed_connection_types"] == ["MQTT", "MQTT_WS"]


def test_no_permission_denies_everything() -> None:
    """No permission is encoded as a denial of everything: the server takes an empty list for permission to everything."""
    signer = CalloutSigner("the secret", "ACC")
    answer = claims_of(
        signer.accept(AuthRequest("U", "S"), "n", Permissions((), ("c",)), NOW_S, None), signer.public
    )
    user = claims_of(answer["nats"]["jwt"].encode(), signer.public)
    assert user["nats"]["pub"] == {"deny": [">"]}


def test_refused() -> None:
    """The response, and so the server's log, contains no reason."""
    signer = CalloutSigner("the secret", "ACC")
    answer = claims_of(signer.refuse(AuthRequest("U", "S", "u1", "p1"), NOW_S), signer.public)
    assert (answer["nats"]["error"], "jwt" in answer["nats"]) == (REFUSED, False)


def test_every_unit_has_the_same_key() -> None:
    """The key follows from the deployment's secret alone, and another secret gives another key."""
    signer, same, other = (CalloutSigner(secret, "ACC") for secret in ("one", "one", "two"))
    assert signer.public == same.public != other.public
    answer = other.refuse(AuthRequest("U", "S"), NOW_S)
    with pytest.raises(InvalidSignature):
        claims_of(answer, signer.public)
