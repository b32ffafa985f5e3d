"""Fixes that authenticated devices send over HTTP: check each, store the valid ones in the log.

A verdict here rests on the fix alone. A stored fix is judged once more by the counting rules, which know
where the device was before.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from headcount.counting.verdicts import FUTURE_S
from headcount.decoders.canonical import CanonicalMessage, Outcome, Sender, canonical
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoding import Decoded, DecodedFix, DecodedStatus, DecodeError, Ignored
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.records import Device
from headcount.messages.topics import HANDLE
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import ANSWER_S, NewMessage, append_all

#: `stored`: the log has it. `ignored`: valid, and without a position. `inactive`: the device is paused or disabled.
#: `not_allowed`: it is of another device. The others are those of rule 1.
ReceiptVerdict = Literal["stored", "ignored", "inactive", "not_allowed", "malformed", "invalid", "future"]
RECEIPT_VERDICTS: tuple[ReceiptVerdict, ...] = get_args(ReceiptVerdict)
#: The format that names of a gateway's devices belong to: they have the aliases `iotp/<name>`.
_NAMES_FORMAT = "iotp"


class Receipt(NamedTuple):
    """The verdict on a received fix."""

    verdict: ReceiptVerdict
    problem: str = ""


STORED = Receipt("stored")


class IngestService:
    """Stores fixes of devices; every method raises LogError unless the log has acknowledged all valid ones."""

    def __init__(
        self,
        connection: Connection,
        secret: str,
        cache: RegistryCache,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store over `connection`; `cache` and `secret` resolve the names that gateways use."""
        self._connection = connection
        self._secret = secret
        self._cache = cache
        self._clock = clock

    async def store(self, device: Device, decoded: Sequence[Decoded], request: str = "") -> list[Receipt]:
        """Store what a device sent of itself, by whatever name, in the order of event times.

        Args:
            device: the authenticated device.
            decoded: the content of a request.
            request: identifies the request, "" = nothing does: what one with the same id has stored within
                `DUPLICATE_WINDOW_S` is not stored again.

        Returns:
            A receipt for each element of `decoded`.
        """
        return await self._store(device, decoded, request, lambda each: _of_device(device, each))

    async def store_named(
        self, sender: Device, decoded: Sequence[Decoded], request: str = ""
    ) -> list[Receipt]:
        """Store what a device sent of the devices that each element names: of itself, for gateways of others, too.

        A gateway names a device of its site by its id, or any device by its name in the format `iotp`.
        """
        if not sender.gateway:
            own = {"", sender.id} | {
                alias.partition("/")[2]
                for alias in sender.aliases
                if alias.partition("/")[0] == _NAMES_FORMAT
            }
            return await self._store(sender, decoded, request, lambda each: _of_itself(sender, own, each))
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._cache.ready.wait()
        except TimeoutError:
            raise LogError("the registry has not been read yet") from None
        names = AliasResolver(self._secret, self._cache, sender.site)
        return await self._store(sender, decoded, request, lambda each: self._of_named(sender, names, each))

    async def _store(
        self, sender: Device, decoded: Sequence[Decoded], request: str, outcome: Callable[[Decoded], Outcome]
    ) -> list[Receipt]:
        now_s = self._clock()
        receipts: list[Receipt] = []
        accepted: list[tuple[float, NewMessage]] = []
        digest = hashlib.blake2b(
            f"{sender.id}\0{request}".encode(errors="replace"), digest_size=16
        ).hexdigest()
        for index, each in enumerate(decoded):
            receipt, message = _judge(each, outcome, now_s)
            receipts.append(receipt)
            if message is not None:
                t_s = each.t if isinstance(each, DecodedFix) else math.inf
                id_ = f"{digest}.{index}" if request else ""
                accepted.append((t_s, NewMessage(message.subject, message.payload, id_)))
        accepted.sort(key=lambda each: each[0])
        if accepted:
            await append_all(self._connection, [message for _, message in accepted])
        return receipts

    def _of_named(self, gateway: Device, names: AliasResolver, decoded: Decoded) -> Outcome:
        if not isinstance(decoded, DecodedFix | DecodedStatus):
            return decoded
        if not decoded.name:
            return _of_device(gateway, decoded)
        named = self._cache.get(decoded.name) if HANDLE.fullmatch(decoded.name) else None
        if named is not None and named.site == gateway.site:
            return _of_device(named, decoded)
        return names.outcome(_NAMES_FORMAT, decoded)


def _judge(
    decoded: Decoded, outcome: Callable[[Decoded], Outcome], now_s: float
) -> tuple[Receipt, CanonicalMessage | None]:
    if isinstance(decoded, DecodedFix) and (problem := problem_of(decoded, now_s)) is not None:
        return problem, None
    found = outcome(decoded)
    if isinstance(found, CanonicalMessage):
        return STORED, found
    if isinstance(found, Ignored):
        inactive = not isinstance(decoded, Ignored)
        return Receipt("inactive" if inactive else "ignored", found.reason), None
    verdict: ReceiptVerdict = "not_allowed" if found.label == "not_allowed" else "malformed"
    return Receipt(verdict, found.problem or found.label), None


def problem_of(fix: DecodedFix, now_s: float) -> Receipt | None:
    """The verdict of rule 1 on a fix that was received at `now_s`, as far as it follows from the fix alone."""
    if not all(map(math.isfinite, (fix.t, fix.lat, fix.lon))):
        return Receipt("malformed", "t, lat or lon is not a finite number")
    if abs(fix.lat) > 90 or abs(fix.lon) > 180:
        return Receipt("invalid", "lat is not within ±90 degrees, or lon not within ±180")
    if fix.lat == fix.lon == 0:
        return Receipt("invalid", "lat and lon are 0")
    if fix.t > now_s + FUTURE_S:
        problem = f"t is {fix.t - now_s:.0f} s after now, {FUTURE_S:.0f} s are allowed: check the clock"
        return Receipt("future", problem)
    return None


def _of_device(device: Device, decoded: Decoded) -> Outcome:
    if not isinstance(decoded, DecodedFix | DecodedStatus):
        return decoded
    if device.status != "active":
        return Ignored(device.status)
    return canonical(Sender(device.site, device.kind, device.id), decoded)


def _of_itself(sender: Device, own: set[str], decoded: Decoded) -> Outcome:
    if isinstance(decoded, DecodedFix | DecodedStatus) and decoded.name not in own:
        return DecodeError("not_allowed", "id is of another device: only a gateway may send its fixes")
    return _of_device(sender, decoded)
