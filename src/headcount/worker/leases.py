"""Who lives and who counts which partition, in a key-value bucket of the log.

    member.<worker>   written every second by a worker that lives; gone a minute after its last word
    p.<partition>     {owner, epoch}; an owner's rights end when it is no longer alive

All times are the server's: a worker is alive while its last word is at most `ttl_s` older than the
newest word of whoever asks, both as the server received them, so clocks needn't agree. A partition
is taken and given back by compare-and-set, and each taking raises its epoch: an owner that was
paused and comes back finds a larger one, and whatever it still says carries the old one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from headcount.errors import LogError
from headcount.fixlog.streams import LEASE_BUCKET

#: A worker that says nothing for so long has lost its partitions.
TTL_S = 3.0
HEARTBEAT_S = 1.0
#: A member's key is removed by the server after this.
MEMBER_TTL_S = 60
NOBODY = ""
_PREFIX = f"$KV.{LEASE_BUCKET}."
_ANSWER_S = 1.0


class _Lease(msgspec.Struct):
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A partition's entry, and the revision to compare with when it is changed."""

    owner: str
    epoch: int
    revision: int


FREE = Lease(NOBODY, 0, 0)


@dataclass(frozen=True, slots=True)
class Table:
    """The bucket at one moment: when each member last spoke (the server's Unix seconds), and the leases."""

    members: dict[str, float]
    leases: dict[int, Lease]

    def alive(self, now_s: float, ttl_s: float = TTL_S) -> set[str]:
        """The members whose last word is not older than `ttl_s` at the server's time `now_s`."""
        return {member for member, spoke_s in self.members.items() if now_s - spoke_s <= ttl_s}


class Leases:
    """The bucket as one worker uses it; every call raises LogError if the log doesn't answer."""

    def __init__(self, nc: Client, js: JetStreamContext) -> None:
        """Talk over this connection."""
        self._nc = nc
        self._js = js

    async def speak(self, worker: str) -> None:
        """Say that a worker lives."""
        await self._put(f"member.{worker}", b"{}", {"Nats-TTL": f"{MEMBER_TTL_S}s"})

    async def retire(self, worker: str) -> None:
        """Say that a worker has ended: others needn't wait for its silence."""
        await self._put(f"member.{worker}", b"", {"KV-Operation": "DEL", "Nats-TTL": f"{MEMBER_TTL_S}s"})

    async def take(self, partition: int, worker: str, before: Lease, epoch: int) -> Lease | None:
        """Take a partition whose entry is still `before`; None if somebody was faster."""
        return await self._change(partition, _Lease(worker, epoch), before)

    async def give_back(self, partition: int, before: Lease) -> Lease | None:
        """Free a partition whose entry is still `before`; its epoch stays."""
        return await self._change(partition, _Lease(NOBODY, before.epoch), before)

    async def table(self) -> Table:
        """Everything in the bucket."""
        inbox = self._nc.new_inbox()
        members: dict[str, float] = {}
        leases: dict[int, Lease] = {}
        try:
            subscription = await self._nc.subscribe(inbox)
            try:
                ask = json.dumps({"multi_last": [f"{_PREFIX}>"]}).encode()
                await self._nc.publish(f"$JS.API.DIRECT.GET.KV_{LEASE_BUCKET}", ask, reply=inbox)
                while True:
                    message = await subscription.next_msg(timeout=_ANSWER_S)
                    headers = message.headers or {}
                    if headers.get("Status"):
                        if headers["Status"] in {"204", "404"}:  # end of the batch, or nothing there
                            return Table(members, leases)
                        raise LogError(f"the bucket {LEASE_BUCKET}: {headers}")
                    _, _, key = headers["Nats-Subject"].partition(_PREFIX)
                    kind, _, name = key.partition(".")
                    if kind == "member" and message.data:
                        members[name] = _unix(headers["Nats-Time-Stamp"])
                    elif kind == "p" and message.data:
                        lease = msgspec.json.decode(message.data, type=_Lease)
                        leases[int(name)] = Lease(lease.owner, lease.epoch, int(headers["Nats-Sequence"]))
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogError(f"the bucket {LEASE_BUCKET} doesn't answer: {error!r}") from error

    async def _change(self, partition: int, value: _Lease, before: Lease) -> Lease | None:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(before.revision)}
        try:
            revision = await self._put(f"p.{partition}", msgspec.json.encode(value), headers)
        except nats.js.errors.BadRequestError as error:
            if error.err_code == 10071:  # wrong last sequence
                return None
            raise LogError(f"the bucket {LEASE_BUCKET}: {error}") from error
        return Lease(value.owner, value.epoch, revision)

    async def _put(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        try:
            ack = await self._js.publish(_PREFIX + key, value, _ANSWER_S, headers=headers)
        except nats.js.errors.BadRequestError:
            raise
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogError(f"the bucket {LEASE_BUCKET} takes nothing: {error!r}") from error
        return ack.seq


def _unix(stamp: str) -> float:
    """RFC 3339 with nanoseconds as Unix seconds."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
