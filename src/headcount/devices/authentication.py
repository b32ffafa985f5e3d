"""Authentication of devices and programs, from a copy of the registry in memory; no socket, no clock.

    user        password               client id         certificate         authenticates
    <id>        its secret             <id>, <id>-…      none, or CN <id>     a device
    <id>        a signed token of <id> the same          the same            a device, until the token expires
    <id> or -   -                      the same          CN <id>             a device
    token       an API token           <token's id>, -…  any                 a program

A client id starts with the client's own id: otherwise one client could take over the session of another. A
device's connection name at the server is its id and a fingerprint of its account, so that a connection whose
account has changed since is recognised at any time.

Until the registry has been read once, no one is authenticated.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from headcount.devices import credentials
from headcount.devices.auth_callout import AuthRequest, ClientCertificate
from headcount.devices.bans import ADDRESS_BAN, DEVICE_BAN
from headcount.devices.permissions import PROGRAM_USER, Permissions, device_permissions, program_permissions
from headcount.messages.records import DEVICE_KEY, ApiToken, Ban, DeviceStatus, decode_or_none
from headcount.messages.topics import HANDLE, Kind

#: Why a connection is refused, as in the metrics.
RefusalReason = Literal[
    "starting",
    "protocol",
    "banned",
    "unknown",
    "password",
    "certificate",
    "client-id",
    "status",
    "site",
    "token",
]
REFUSAL_REASONS: tuple[RefusalReason, ...] = get_args(RefusalReason)
#: Those of a client that may be guessing.
GUESSING_REASONS: frozenset[RefusalReason] = frozenset({"unknown", "password", "certificate", "token"})
#: Devices whose verified password is cached; hashing it again takes 0.2 ms.
MAX_VERIFIED = 100_000
_TYPES = frozenset({"mqtt", "mqtt_ws"})
_DEVICE_PREFIX, _BAN_PREFIX = DEVICE_KEY.format(id=""), DEVICE_BAN.format(id="")


class DeviceAccount(msgspec.Struct, kw_only=True):
    """The part of a device's entry that authentication needs: no label, no alias."""

    id: str
    site: str
    kind: Kind
    status: DeviceStatus = "active"
    secret: str = ""
    certificate: str = ""
    valid_from: float = 0.0
    gateway: bool = False

    def fingerprint(self) -> str:
        """Changes with everything that decides about authentication and permissions."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Authenticated:
    """An accepted client."""

    name: str  # of its connection at the server
    permissions: Permissions
    expires_s: float | None = None  # Unix seconds
    device: str | None = None


class DeviceAuthenticator:
    """Decides from copies of the registry and the bans, and a cache of verified passwords."""

    def __init__(self, token_key: bytes, plugin_subjects: tuple[str, ...] = ()) -> None:
        """Check signed tokens with a key; `plugin_subjects` are those of installed formats."""
        self._plugin_subjects = plugin_subjects
        self.ready = False
        #: site → when it is removed (Unix seconds), infinite for those that are not; empty until they are known
        self.sites: Mapping[str, float] = {}
        self._token_key = token_key
        self._accounts: dict[str, DeviceAccount] = {}
        self._names: dict[str, str] = {}  # id → connection name
        self._bans: dict[str, Ban] = {}  # by key of the bucket
        self._verified: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._key = secrets.token_bytes(32)  # of digests of passwords in memory
        # verified for unknown ids, so that they take as long as a wrong password
        self._dummy_hash = credentials.hash_secret(credentials.new_secret())

    def __len__(self) -> int:
        return len(self._accounts)

    # --- copies ------------------------------------------------------------------------------------
    def replace_devices(self, found: dict[str, bytes]) -> None:
        """Replace the copy of the registry (keys of the bucket to values); it is ready from now on."""
        accounts = (decode_or_none(value, DeviceAccount) for value in found.values())
        self._accounts = {account.id: account for account in accounts if account is not None}
        self._names = {account.id: _connection_name(account) for account in self._accounts.values()}
        self.ready = True

    def update_device(self, key: str, value: bytes | None) -> str | None:
        """Update one device; returns the name of connections that must be closed because of it, if any."""
        id_ = key.removeprefix(_DEVICE_PREFIX)
        before = self._names.get(id_)
        account = decode_or_none(value, DeviceAccount)
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

    def replace_bans(self, found: dict[str, bytes]) -> None:
        """Replace all bans (keys of the bucket to values)."""
        self._bans = {}
        for key, value in found.items():
            self.update_ban(key, value)

    def update_ban(self, key: str, value: bytes | None) -> None:
        """Update one ban."""
        self._bans.pop(key, None)
        if ban := decode_or_none(value, Ban):
            self._bans[key] = ban

    def is_registered(self, id_: str) -> bool:
        """Whether a device exists and is not being erased."""
        account = self._accounts.get(id_)
        return account is not None and account.status != "erasing"

    def is_gateway(self, id_: str) -> bool:
        """Whether a device may publish for others."""
        account = self._accounts.get(id_)
        return account is not None and account.gateway

    def is_still_valid(self, name: str, address: str, now_s: float) -> bool:
        """Whether a device's connection with this name and address would be accepted now."""
        id_ = name.partition(".")[0]
        account = self._accounts.get(id_)
        return (
            account is not None
            and account.status in {"active", "paused"}
            and self._names[id_] == name
            and self._is_counted(account.site, now_s)
            and not self.is_banned(id_, address, now_s)
        )

    def is_banned(self, device: str, address: str, now_s: float) -> bool:
        """Whether a device or all connections from an address are banned now."""
        if not self._bans:
            return False
        bans = (self._bans.get(key) for key in (_BAN_PREFIX + device, _address_key(address)))
        return any(ban is not None and ban.until > now_s and not ban.guesses for ban in bans)

    def _is_counted(self, site: str, now_s: float) -> bool:
        """Whether the deployment counts a site."""
        return not self.sites or now_s < self.sites.get(site, 0.0)

    def _is_suspected(self, address: str, now_s: float) -> bool:
        """Whether an address is banned for guessing."""
        ban = self._bans.get(_address_key(address))
        return ban is not None and ban.guesses and ban.until > now_s

    # --- deciding ------------------------------------------------------------------------------------
    def authenticate_device(self, request: AuthRequest, now_s: float) -> Authenticated | RefusalReason:
        """Authenticate a device."""
        problem = self._precondition(request, now_s)
        if problem is not None:
            return problem
        certificate = request.certificate
        id_ = request.user or (certificate.name if certificate else "")
        account = self._accounts.get(id_)
        if account is None and self._is_suspected(request.address, now_s):
            return "banned"
        if account is None:
            credentials.verify_secret(
                request.password[: credentials.MAX_SECRET_CHARS] or "-", self._dummy_hash
            )
            return "unknown"
        proof = self._verify(account, request, now_s)
        if isinstance(proof, str):
            return proof
        # only now: the duration must not reveal a ban to a client that guesses
        if self.is_banned(id_, request.address, now_s):
            return "banned"
        if not _owns_client_id(request.client_id, id_):
            return "client-id"
        permissions = device_permissions(account, self._plugin_subjects)
        if permissions is None:
            return "status"
        if not self._is_counted(account.site, now_s):
            return "site"
        return Authenticated(self._names[id_], permissions, proof.expires_s, id_)

    def authenticate_program(
        self, request: AuthRequest, token: ApiToken | None, now_s: float
    ) -> Authenticated | RefusalReason:
        """Authenticate a program by its API token, already looked up (None: it does not exist)."""
        problem = self._precondition(request, now_s)
        if problem is not None:
            return problem
        if token is None:
            return "token"
        if not _owns_client_id(request.client_id, token.id):
            return "client-id"
        permissions = program_permissions(token.role, tuple(token.sites), tuple(token.scopes))
        return Authenticated(f"{PROGRAM_USER}.{token.id}", permissions, token.expires)

    def _precondition(self, request: AuthRequest, now_s: float) -> RefusalReason | None:
        if not self.ready:
            return "starting"
        if request.type not in _TYPES:
            return "protocol"
        return "banned" if self.is_banned("", request.address, now_s) else None

    def _verify(self, account: DeviceAccount, request: AuthRequest, now_s: float) -> _Proof | RefusalReason:
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
            claims = credentials.verify_token(self._token_key, password, now_s)
            if claims is None or claims.device != account.id or claims.issued_s < account.valid_from:
                return "password"
            return _Proof(claims.expires_s)
        return _Proof(None) if self._password_matches(account, password) else "password"

    def _password_matches(self, account: DeviceAccount, password: str) -> bool:
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
    """A verified identity, valid until a time."""

    expires_s: float | None


def _address_key(address: str) -> str:
    return ADDRESS_BAN.format(hex=address.encode().hex())


def _connection_name(account: DeviceAccount) -> str:
    return f"{account.id}.{account.fingerprint()}"


def _owns_client_id(client_id: str, id_: str) -> bool:
    return client_id == id_ or client_id.startswith(f"{id_}-")


def _certificate_matches(account: DeviceAccount, certificate: ClientCertificate) -> bool:
    same = not account.certificate or hmac.compare_digest(account.certificate.lower(), certificate.sha256)
    return certificate.name == account.id and same
