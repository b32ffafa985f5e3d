"""One device's own messages of the last hour, read from the log when somebody asks for them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client

from headcount.errors import LogError
from headcount.messages.topics import FIX_STREAM, FORGET_SUBJECT
from headcount.messaging import qos1
from headcount.messaging.streams import PARTITIONS_KEY

#: So many are read at most, the newest: an hour at one a second, said twice with QoS 1.
MOST = 8_000
LOG_S = 3600.0
_BATCH, _BATCH_BYTES = 512, 4 << 20
_ANSWER_S = 5.0
_IDLE_NS = 10 * 10**9


@dataclass(slots=True)
class Messages:
    """Messages in the order of the log, as `payloads.rows` takes them; what was never acknowledged isn't here."""

    #: Everything since then is here (Unix seconds).
    since_s: float
    subjects: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    seq: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.seq)


async def messages_of(
    nc: Client, partition: int, site: str, kind: str, device: str, now_s: float, most: int = MOST
) -> Messages:
    """What the log has of a device, and the marks of who is to be forgotten.

    Args:
        nc: connected with all rights.
        partition: the device's.
        site: its site's id.
        kind: its kind.
        device: its id: no wildcards.
        now_s: Unix seconds.
        most: with more than these, only the newer part of the hour is read.

    Raises:
        LogError: the log doesn't answer.
    """
    own = f"fix.{partition}.{site}.{kind}.{device}"
    plain = [own, f"{own}.status", FORGET_SUBJECT.format(partition=partition)]
    stream, consumer = FIX_STREAM.format(partition=partition), f"t{secrets.token_hex(8)}"
    span_s = LOG_S
    while True:
        config = {
            "name": consumer,
            "deliver_policy": "by_start_time",
            "opt_start_time": _rfc_3339(now_s - span_s),
            "filter_subjects": qos1.with_stored(plain),
            "ack_policy": "none",
            "inactive_threshold": _IDLE_NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        body = {"stream_name": stream, "config": config}
        pending = (await _ask(nc, f"CONSUMER.CREATE.{stream}.{consumer}", body))["num_pending"]
        if pending <= most or span_s < 1.0:
            break
        await _ask(nc, f"CONSUMER.DELETE.{stream}.{consumer}", {})
        span_s /= 2
    try:
        return await _read(nc, stream, consumer, Messages(now_s - span_s), min(pending, most))
    finally:
        await nc.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}")


async def partitions_of_log(nc: Client) -> int:
    """With how many partitions the log was made.

    Raises:
        LogError: the log doesn't answer, or isn't there.
    """
    info = await _ask(nc, f"STREAM.INFO.{FIX_STREAM.format(partition=0)}", {})
    return int(info["config"].get("metadata", {}).get(PARTITIONS_KEY, 1))


async def _read(nc: Client, stream: str, consumer: str, found: Messages, wanted: int) -> Messages:
    inbox, read = nc.new_inbox(), 0
    subscription = await nc.subscribe(inbox)
    ask = msgspec.json.encode({"batch": _BATCH, "max_bytes": _BATCH_BYTES, "no_wait": True})
    try:
        while read < wanted:
            await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", ask, reply=inbox)
            before = read
            while read < before + _BATCH:
                message = await subscription.next_msg(timeout=_ANSWER_S)
                headers = message.headers or {}
                if not message.reply:  # a status: the end of this batch
                    break
                read += 1
                _add(found, message.subject, message.data, message.reply, headers)
            if read == before:
                break
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise LogError(f"the log doesn't give a device's messages: {error!r}") from error
    finally:
        await subscription.unsubscribe()
    return found


def _add(found: Messages, subject: str, data: bytes, reply: str, headers: dict[str, str]) -> None:
    name, qos = subject.encode(), headers.get(qos1.QOS_HEADER, "").encode()
    if not qos1.counts(name, qos):
        return
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.<pending>
    parts = reply.split(".")
    found.subjects.append(qos1.plain(name))
    found.payloads.append(data)
    found.seq.append(int(parts[5]))
    found.received_ns.append(max(int(parts[7]), found.received_ns[-1] if found.received_ns else 0))


async def _ask(nc: Client, request: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = await nc.request(f"$JS.API.{request}", msgspec.json.encode(body), timeout=_ANSWER_S)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise LogError(f"the log doesn't answer {request.partition('.')[0]}: {error!r}") from error
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    if problem := decoded.get("error"):
        raise LogError(f"the log refuses {request.partition('.')[0]}: {problem.get('description', problem)}")
    return decoded


def _rfc_3339(t_s: float) -> str:
    return (
        datetime.fromtimestamp(max(0.0, t_s), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
