"""Credentials of devices: secrets, of which only a hash is stored, and signed tokens that expire.

Secrets are generated here only, from 160 random bits, which cannot be guessed with any hash. PBKDF2 protects
them if the registry is stolen, in the format of Mosquitto's password files, so that a Mosquitto in front of
headcount accepts the same accounts. Its cost is limited by the restart of a server: all devices reconnect at the
same time, each secret is hashed, and one core must accept 1 000 devices a second beside its other work. Mosquitto's
101 iterations take 0.1 ms; against guesses of 160 bits, more does not help. Each hash contains its parameters, so
they can be raised.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

#: Random bytes of a secret, written as 32 characters of base 32.
SECRET_BYTES = 20
#: Longer ones are rejected without a check.
MAX_SECRET_CHARS, MAX_TOKEN_CHARS = 256, 1024
_ITERATIONS, _SALT_BYTES, _HASH_BYTES = 101, 12, 64
#: A hash with more iterations is not one of ours.
_MAX_ITERATIONS = 10_000
_HASHED = re.compile(r"\$7\$(\d{1,5})\$([A-Za-z0-9+/]{16})\$([A-Za-z0-9+/]{86}==)")
_INGEST_KEY = re.compile(r"([a-z2-7]{20})-([a-z2-7]{32})")
_ALGORITHM = "HS256"
_AUDIENCE = "device"
#: Maximum difference between the clocks of units.
LEEWAY_S = 60.0


def new_secret() -> str:
    """Generate a device's secret: 160 random bits as 32 characters of `a-z2-7`."""
    return base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode().lower()


def hash_secret(secret: str) -> str:
    """The hash of a secret to store: `$7$iterations$salt$hash`, with a salt of 96 random bits."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _pbkdf2(secret.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_secret(secret: str, hash_: str) -> bool:
    """Whether a secret matches a stored hash; compares in constant time, never raises."""
    parts = _HASHED.fullmatch(hash_)
    if parts is None or not secret or len(secret) > MAX_SECRET_CHARS:
        return False
    iterations = int(parts[1])
    if not 0 < iterations <= _MAX_ITERATIONS:
        return False
    try:
        digest = _pbkdf2(secret.encode(), base64.b64decode(parts[2]), iterations)
        return hmac.compare_digest(digest, base64.b64decode(parts[3]))
    except (ValueError, binascii.Error):  # lone surrogates, bits that belong to no byte
        return False


def ingest_key(device: str, secret: str) -> str:
    """A device's ingest key: its id, and a secret of 160 random bits."""
    return f"{device}-{secret}"


def split_ingest_key(key: str) -> tuple[str, str] | None:
    """The device's id and the secret in an ingest key, as it may have been typed; None: it is not one."""
    found = _INGEST_KEY.fullmatch(key.strip().lower()) if len(key) <= MAX_SECRET_CHARS else None
    return None if found is None else (found[1], found[2])


# --- signed tokens -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class DeviceTokenClaims:
    """The claims of a valid device token; times are Unix seconds."""

    device: str
    issued_s: float
    expires_s: float


def token_key(secret: str) -> bytes:
    """The key that signs device tokens, derived from the deployment's secret: the same on every unit."""
    return hashlib.blake2b(b"device tokens", key=secret.encode()[:64], digest_size=32).digest()


def sign_token(key: bytes, device: str, expires_s: float, now_s: float) -> str:
    """A token (JWT, HS256) with which a device may connect until `expires_s`; all times are Unix seconds."""
    from joserfc import jwt  # noqa: PLC0415  # 10 MB that only signed tokens need
    from joserfc.jwk import OctKey  # noqa: PLC0415

    claims = {"sub": device, "aud": _AUDIENCE, "iat": now_s, "exp": expires_s}
    return jwt.encode({"alg": _ALGORITHM}, claims, OctKey.import_key(key), algorithms=[_ALGORITHM])


def verify_token(key: bytes, token: str, now_s: float) -> DeviceTokenClaims | None:
    """The claims of a token; None if it is not ours, or has expired."""
    if not is_token(token):
        return None
    from joserfc import jwt  # noqa: PLC0415  # 10 MB that only signed tokens need
    from joserfc.errors import JoseError  # noqa: PLC0415
    from joserfc.jwk import OctKey  # noqa: PLC0415

    try:
        claims = jwt.decode(token, OctKey.import_key(key), algorithms=[_ALGORITHM]).claims
    except (JoseError, ValueError, TypeError):  # not a token at all
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
    """Whether a password has the form of a signed token; secrets contain no dots."""
    return password.count(".") == 2 and len(password) <= MAX_TOKEN_CHARS


def _pbkdf2(secret: bytes, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", secret, salt, iterations, _HASH_BYTES)
