"""What a device proves itself with: a secret, of which only a hash is kept, or a signed token with an end.

Secrets are made here and nowhere else, from 160 random bits: nobody can guess one, whatever hash stands
between. scrypt is there for the day when the registry is stolen, and its cost is chosen by another
sum: after a restart all devices come back at once, each is hashed, and one core must still let 1 000 a
second in beside everything else. N = 128, r = 8, p = 1 is 0.2 ms and 128 KiB; a guesser of 160 bits isn't
stopped by more, nor helped by less. The parameters stand in each hash, so they can be raised.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

#: Random bytes of a secret; told as 32 characters of base 32.
SECRET_BYTES = 20
#: Longer ones are refused unseen.
MAX_SECRET_CHARS, MAX_TOKEN_CHARS = 256, 1024
_COST, _BLOCK, _PARALLEL = 128, 8, 1
_SALT_BYTES, _HASH_BYTES = 16, 32
#: A hash whose parameters ask for more than this is no hash of ours.
_MAX_COST = 1 << 14
_HASHED = re.compile(r"scrypt\$(\d{1,5})\$(\d{1,2})\$(\d)\$([A-Za-z0-9_-]{22})\$([A-Za-z0-9_-]{43})")
_ALGORITHM = "HS256"
_AUDIENCE = "device"
#: Clocks of units may differ by this.
LEEWAY_S = 60.0


def new_secret() -> str:
    """A new device's secret: 160 random bits as 32 characters of `a-z2-7`."""
    return base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode().lower()


def hash_secret(secret: str) -> str:
    """What is kept of a secret: `scrypt$N$r$p$salt$hash`, salted with 128 random bits."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(secret.encode(), salt, _COST, _BLOCK, _PARALLEL)
    return f"scrypt${_COST}${_BLOCK}${_PARALLEL}${_encode(salt)}${_encode(digest)}"


def verify_secret(secret: str, hash_: str) -> bool:
    """Whether a secret is the one of which this hash was kept; compared in constant time, never raises."""
    parts = _HASHED.fullmatch(hash_)
    if parts is None or not secret or len(secret) > MAX_SECRET_CHARS:
        return False
    cost, block, parallel = (int(part) for part in parts.groups()[:3])
    if cost > _MAX_COST:
        return False
    try:
        digest = _scrypt(secret.encode(), _decode(parts[4]), cost, block, parallel)
        return hmac.compare_digest(digest, _decode(parts[5]))
    except (ValueError, binascii.Error):  # parameters that scrypt refuses, lone surrogates
        return False


# --- signed tokens -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class DeviceTokenClaims:
    """What a valid token says; times are Unix seconds."""

    device: str
    issued_s: float
    expires_s: float


def token_key(secret: str) -> bytes:
    """The key of the deployment's tokens, derived from its secret: the same on every unit."""
    return hashlib.blake2b(b"device tokens", key=secret.encode()[:64], digest_size=32).digest()


def sign_token(key: bytes, device: str, expires_s: float, now_s: float) -> str:
    """A token (JWT, HS256) with which a device may sign in until `expires_s`; all times are Unix seconds."""
    claims = {"sub": device, "aud": _AUDIENCE, "iat": now_s, "exp": expires_s}
    return jwt.encode({"alg": _ALGORITHM}, claims, OctKey.import_key(key), algorithms=[_ALGORITHM])


def check_token(key: bytes, token: str, now_s: float) -> tuple[str, float] | None:
    """The device whose token it is, and when it was made; None if it isn't ours, or is over."""
    signed = read_token(key, token, now_s)
    return None if signed is None else (signed.device, signed.issued_s)


def read_token(key: bytes, token: str, now_s: float) -> DeviceTokenClaims | None:
    """All that a token says; None if it isn't ours, or is over."""
    if not is_token(token):
        return None
    try:
        claims = jwt.decode(token, OctKey.import_key(key), algorithms=[_ALGORITHM]).claims
    except (JoseError, ValueError, TypeError):  # whatever isn't a token at all
        return None
    device, issued_s, expires_s = claims.get("sub"), claims.get("iat"), claims.get("exp")
    if claims.get("aud") != _AUDIENCE or not isinstance(device, str):
        return None
    if not isinstance(issued_s, int | float) or not isinstance(expires_s, int | float):
        return None
    if not issued_s - LEEWAY_S <= now_s < expires_s:
        return None
    return DeviceTokenClaims(device, float(issued_s), float(expires_s))


def is_token(password: str) -> bool:
    """Whether a password has the form of a signed token; secrets have no dots."""
    return password.count(".") == 2 and len(password) <= MAX_TOKEN_CHARS


def _scrypt(secret: bytes, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(secret, salt=salt, n=cost, r=block, p=parallel, dklen=_HASH_BYTES)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
