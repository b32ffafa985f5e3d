"""Who is let in, as which, with which rights: decided from a copy of the registry in memory; no socket, no clock.

    user        password               client id         certificate         who it is
    <id>        its secret             <id>, <id>-…      none, or CN <id>     a device
    <id>        a signed token of <id> the same          the same            a device, until the token's end
    <id> or -   -                      the same          CN <id>             a device
    token       an API token           <token's id>, -…  any                 a program

A client id begins with one's own id: otherwise one could take over the session of another. A device's name
at the server is its id and a fingerprint of what it was let in by, so that a connection that came in by
what is no longer true is recognised, whoever finds it and whenever.

Until the registry has been read once nobody is let in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from headcount.devices import credentials, permissions
from headcount.devices.auth_callout import AuthRequest, ClientCertificate
from headcount.devices.bans import ADDRESS_BAN, DEVICE_BAN
from headcount.devices.permissions import PROGRAM_USER, Permissions
from headcount.messages.records import DEVICE_KEY, Ban, DeviceStatus, Token
from headcount.messages.topics import HANDLE, Kind

#: Why somebody isn't let in, as metrics have it.
RefusalReason = Literal[
    "starting", "protocol", "banned", "unknown", "password", "certificate", "client-id", "status", "token"
]
REFUSAL_REASONS: tuple[RefusalReason, ...] = get_args(RefusalReason)
#: Of these, the ones of somebody who may be guessing.
GUESSING_REASONS: frozenset[RefusalReason] = frozenset({"unknown", "password", "certificate", "token"})
#: Devices whose password is remembered as right; hashing it again costs 0.2 ms.
MAX_VERIFIED = 100_000
_TYPES = frozenset({"mqtt", "mqtt_ws"})
_DEVICE, _BAN_DEVICE, _BAN_ADDRESS = DEVICE_KEY.format(id=""), DEVICE_BAN.format(id=""), ADDRESS_BAN


class DeviceAccount(msgspec.Struct, kw_only=True):
    """Of a device, what the gate needs: no name, no label is kept in its memory."""

    id: str
    site: str
    kind: Kind
    status: DeviceStatus = "active"
    secret: str = ""
    certificate: str = ""
    valid_from: float = 0.0
    gateway: bool = False

    def fingerprint(self) -> str:
        """Changes with everything that decides whether, and with which rights, it is let in."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Somebody who is let in."""

    name: str  # at the server
    rights: Permissions
    expires_s: float | None = None  # Unix seconds
    device: str | None = None


class DeviceAuthenticator:
    """The registry, bans and passwords found right, as far as they are needed to decide."""

    def __init__(self, token_key: bytes) -> None:
        """Signed tokens are checked with this key; see `credentials.token_key`."""
        self.ready = False
        self._token_key = token_key
        self._accounts: dict[str, DeviceAccount] = {}
        self._names: dict[str, str] = {}  # id → name at the server
        self._bans: dict[str, Ban] = {}  # by key of the bucket
        self._verified: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._key = secrets.token_bytes(32)  # of digests of passwords in memory
        # hashed in place of nobody's, so that an unknown id takes as long as a wrong password
        self._nobody = credentials.hash_secret(credentials.new_secret())

    def __len__(self) -> int:
        return len(self._accounts)

    # --- the copy of the registry ------------------------------------------------------------------
    def all_devices(self, found: dict[str, bytes]) -> None:
        """Take the whole registry (keys of the bucket to values); from now on it can decide."""
        accounts = (_decode_account(value) for value in found.values())
        self._accounts = {account.id: account for account in accounts if account is not None}
        self._names = {account.id: _connection_name(account) for account in self._accounts.values()}
        self.ready = True

    def device_changed(self, key: str, value: bytes | None) -> str | None:
        """Take one device as it is now; the name of connections that are to be cut for that, if any."""
        id_ = key.removeprefix(_DEVICE)
        before = self._names.get(id_)
        account = None if value is None else _decode_account(value)
        if account is None or account.id != id_:
            self._accounts.pop(id_, None)
            self._names.pop(id_, None)
            self._verified.pop(id_, None)
            return before
        self._accounts[id_] = account
        name = self._names[id_] = _connection_name(account)
        if before is None or before == name:
            return None
        self._verified.pop(id_, None)
        return before

    def all_bans(self, found: dict[str, bytes]) -> None:
        """Take all bans (keys of the bucket to values)."""
        self._bans = {}
        for key, value in found.items():
            self.ban_changed(key, value)

    def ban_changed(self, key: str, value: bytes | None) -> None:
        """Take one ban as it is now."""
        self._bans.pop(key, None)
        if value is not None:
            try:
                self._bans[key] = msgspec.json.decode(value, type=Ban)
            except msgspec.MsgspecError:
                return

    def gateway(self, id_: str) -> bool:
        """Whether a device speaks for others."""
        account = self._accounts.get(id_)
        return account is not None and account.gateway

    def holds(self, name: str, address: str, now_s: float) -> bool:
        """Whether a device's connection of this name, from there, is one that would be let in now."""
        id_ = name.partition(".")[0]
        account = self._accounts.get(id_)
        return (
            account is not None
            and account.status in {"active", "paused"}
            and self._names[id_] == name
            and not self.banned(id_, address, now_s)
        )

    def banned(self, device: str, address: str, now_s: float) -> bool:
        """Whether a device, or whoever comes from an address, is kept out now."""
        if not self._bans:
            return False
        keys = (_BAN_DEVICE + device, _BAN_ADDRESS.format(hex=address.encode().hex()))
        return any(
            key in self._bans and self._bans[key].until > now_s for key in keys if not self._guessing(key)
        )

    def _guessing(self, key: str) -> bool:
        ban = self._bans.get(key)
        return ban is not None and ban.guesses

    def _suspected(self, address: str, now_s: float) -> bool:
        """Whether somebody guesses from an address."""
        ban = self._bans.get(_BAN_ADDRESS.format(hex=address.encode().hex()))
        return ban is not None and ban.guesses and ban.until > now_s

    # --- deciding ------------------------------------------------------------------------------------
    def decide(self, request: AuthRequest, now_s: float) -> Authenticated | RefusalReason:
        """Whether a device is let in."""
        problem = self._outside(request, now_s)
        if problem is not None:
            return problem
        certificate = request.certificate
        id_ = request.user or (certificate.name if certificate else "")
        account = self._accounts.get(id_)
        if account is None and self._suspected(request.address, now_s):
            return "banned"
        if account is None:
            credentials.verify_secret(request.password[: credentials.MAX_SECRET_CHARS] or "-", self._nobody)
            return "unknown"
        proof = self._proof(account, request, now_s)
        if isinstance(proof, str):
            return proof
        if self.banned(
            id_, request.address, now_s
        ):  # only now: whoever guesses isn't told by the time it takes
            return "banned"
        if not _owns_client_id(request.client_id, id_):
            return "client-id"
        rights = permissions.device_permissions(account)
        if rights is None:
            return "status"
        return Authenticated(self._names[id_], rights, proof.expires_s, id_)

    def decide_program(
        self, request: AuthRequest, token: Token | None, now_s: float
    ) -> Authenticated | RefusalReason:
        """Whether a program is let in, whose token has been looked up (None: there is no such token)."""
        problem = self._outside(request, now_s)
        if problem is not None:
            return problem
        if token is None:
            return "token"
        if not _owns_client_id(request.client_id, token.id):
            return "client-id"
        rights = permissions.program_permissions(token.role, tuple(token.sites), tuple(token.scopes))
        return Authenticated(f"{PROGRAM_USER}.{token.id}", rights, token.expires)

    def _outside(self, request: AuthRequest, now_s: float) -> RefusalReason | None:
        if not self.ready:
            return "starting"
        if request.type not in _TYPES:
            return "protocol"
        return "banned" if self.banned("", request.address, now_s) else None

    def _proof(self, account: DeviceAccount, request: AuthRequest, now_s: float) -> _Proof | RefusalReason:
        certificate = request.certificate
        if certificate is not None and HANDLE.fullmatch(certificate.name):
            if not _certificate_matches(account, certificate):
                return "certificate"
            if not request.password:
                return _Proof(None)
        password = request.password
        if not password:
            return "password"
        if credentials.is_token(password):
            signed = credentials.verify_token(self._token_key, password, now_s)
            if signed is None or signed.device != account.id or signed.issued_s < account.valid_from:
                return "password"
            return _Proof(signed.expires_s)
        return _Proof(None) if self._matches(account, password) else "password"

    def _matches(self, account: DeviceAccount, password: str) -> bool:
        if len(password) > credentials.MAX_SECRET_CHARS or not account.secret:
            return False
        digest = hashlib.blake2b(password.encode(errors="replace"), key=self._key, digest_size=32).digest()
        known = self._verified.get(account.id)
        if known is not None and known[0] == account.secret and hmac.compare_digest(known[1], digest):
            return True
        if not credentials.verify_secret(password, account.secret):
            return False
        self._verified[account.id] = (account.secret, digest)
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
        return True


@dataclass(frozen=True, slots=True)
class _Proof:
    """Somebody is who they say, until a time."""

    expires_s: float | None


def _decode_account(value: bytes) -> DeviceAccount | None:
    try:
        return msgspec.json.decode(value, type=DeviceAccount)
    except msgspec.MsgspecError:
        return None


def _connection_name(account: DeviceAccount) -> str:
    return f"{account.id}.{account.fingerprint()}"


def _owns_client_id(client_id: str, id_: str) -> bool:
    return client_id == id_ or client_id.startswith(f"{id_}-")


def _certificate_matches(account: DeviceAccount, certificate: ClientCertificate) -> bool:
    same = not account.certificate or hmac.compare_digest(account.certificate.lower(), certificate.sha256)
    return certificate.name == account.id and same
