"""JetStream: requests to its API, messages stored with an answer, stored messages read back.

nats-py's own calls neither know every field of a stream's configuration nor read many messages with one
request, so the API is used as it is: JSON on `$JS.API.…` (docs/decisions).
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from headcount.errors import (
    JetStreamError,
    LogError,
    LogUnavailableError,
    MessageNotFoundError,
    NoRespondersError,
    StreamExistsError,
    StreamFullError,
    StreamNotFoundError,
    WrongRevisionError,
)
from headcount.messaging.connection import Connection, Message

ANSWER_S = 5.0
NS = 10**9
_PAGE = 1000
_ERRORS: dict[int, type[LogError]] = {
    10037: MessageNotFoundError,
    10043: MessageNotFoundError,  # none of that sequence
    10057: MessageNotFoundError,  # deleted
    10059: StreamNotFoundError,
    10014: StreamNotFoundError,  # consumer
    10058: StreamExistsError,
    10077: StreamFullError,
    10071: WrongRevisionError,  # of what is stored
    10164: WrongRevisionError,  # of what is about to be, with three replicas
    10005: LogUnavailableError,  # too few nodes for the replicas
    10008: LogUnavailableError,  # no leader
    10009: LogUnavailableError,  # no leader of the cluster
    10023: LogUnavailableError,  # too few resources, while a node is still missing
    10118: LogUnavailableError,  # the stream has no leader
}
#: The end of a batch of direct reads; nothing found; more than 1024 subjects match.
_END, _NONE, TOO_MANY = "204", "404", "413"
_NO_RESPONDERS = "503"


class _JetStreamProblem(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _JetStreamReply(msgspec.Struct):
    error: _JetStreamProblem | None = None


class _PubAck(msgspec.Struct):
    seq: int


class StreamState(msgspec.Struct):
    """Messages of a stream, by number and size."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    num_subjects: int = 0


class StreamInfo(msgspec.Struct):
    """Configuration and state of a stream, and the server's time."""

    config: dict[str, Any]
    state: StreamState
    ts: str
    created: str  # a stream that is created again has another time, and its sequences start again

    @property
    def now_s(self) -> float:
        """The server's time, by the clock that stamps the messages (Unix seconds)."""
        return _unix_ns(self.ts) / NS


class _Sequences(msgspec.Struct):
    stream_seq: int = 0


class ConsumerInfo(msgspec.Struct):
    """How far a consumer is."""

    name: str
    num_pending: int = 0
    num_ack_pending: int = 0
    ack_floor: _Sequences = msgspec.field(default_factory=_Sequences)
    config: dict[str, Any] = {}

    @property
    def acknowledged(self) -> int:
        """The sequence up to which all messages are acknowledged; 0 where none is."""
        return self.ack_floor.stream_seq


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream; from a consumer with the number and the reply subject of its delivery."""

    subject: str
    data: bytes
    sequence: int
    stored_ns: int  # Unix nanoseconds, by the server's clock
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery: int = 0
    pending: int = 0  # messages that the consumer has yet to deliver
    reply: str = ""

    @property
    def stored_s(self) -> float:
        """When it was stored (Unix seconds)."""
        return self.stored_ns // NS + self.stored_ns % NS / NS


# --- requests and storing -----------------------------------------------------------------------------
async def request(
    connection: Connection, call: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = ANSWER_S
) -> dict[str, Any]:
    """The answer to one request of JetStream's API, such as `STREAM.INFO.FIX_0`.

    Raises:
        LogUnavailableError: no answer, or no leader.
        MessageNotFoundError, StreamNotFoundError, StreamExistsError, JetStreamError: refused.
    """
    payload = b"" if body is None else msgspec.json.encode(body)
    answer = await connection.request(f"$JS.API.{call}", payload, timeout_s=timeout_s)
    check_answer(call, answer)
    decoded: dict[str, Any] = msgspec.json.decode(answer)
    return decoded


def check_answer(call: str, answer: bytes) -> None:
    """Raise the error that an answer holds; see `request`."""
    problem = msgspec.json.decode(answer, type=_JetStreamReply).error
    if problem is None:
        return
    text = f"JetStream refuses {call}: {problem.description}"
    raise _ERRORS[problem.err_code](text) if problem.err_code in _ERRORS else JetStreamError(text)


def temporary_consumer(idle_s: int, **fields: Any) -> dict[str, Any]:
    """Configuration of a consumer in the memory of one server, which is deleted when it isn't read for `idle_s`.

    Nothing is acknowledged.
    """
    idle = {"mem_storage": True, "num_replicas": 1, "inactive_threshold": idle_s * NS}
    return {"ack_policy": "none", **idle, **fields}


async def append(
    connection: Connection,
    subject: str,
    payload: bytes,
    *,
    headers: dict[str, str] | None = None,
    timeout_s: float = ANSWER_S,
) -> int:
    """Store a message in the stream of its subject; its sequence there.

    Raises:
        WrongRevisionError: a header names an expected sequence, and the stream has another one.
        StreamFullError: the stream drops no old messages, and has no room.
        LogError: it isn't known to be stored.
    """
    answer = await connection.request_message(subject, payload, timeout_s=timeout_s, headers=headers)
    check_answer(subject, answer.data)
    return msgspec.json.decode(answer.data, type=_PubAck).seq


class NewMessage(NamedTuple):
    """A message to store."""

    subject: str
    payload: bytes
    #: A message with the id of one that its stream has taken within the duplicate window is not stored again.
    id: str = ""


async def append_all(
    connection: Connection, messages: Sequence[NewMessage], *, timeout_s: float = ANSWER_S
) -> None:
    """Store messages, those of one stream in this order, and wait until all are stored.

    Raises:
        LogError: at least one isn't known to be stored.
    """
    async with connection.inbox() as inbox:
        for subject, payload, id_ in messages:
            headers = {"Nats-Msg-Id": id_} if id_ else None
            await connection.publish(subject, payload, reply=inbox.subject, headers=headers)
        for _ in messages:
            answer = await inbox.next(timeout_s)
            if (answer.headers or {}).get("Status") == _NO_RESPONDERS:
                raise NoRespondersError("no stream takes the message")
            check_answer("a message", answer.data)


async def stream_names(connection: Connection, *, timeout_s: float = ANSWER_S) -> list[str]:
    """The names of all streams."""
    names: list[str] = []
    while True:
        page = await request(connection, "STREAM.NAMES", {"offset": len(names)}, timeout_s=timeout_s)
        names += page.get("streams") or []
        if len(names) >= page["total"] or not page.get("streams"):
            return names


async def stream_info(connection: Connection, stream: str, *, timeout_s: float = ANSWER_S) -> StreamInfo:
    """Configuration and state of a stream."""
    return msgspec.convert(
        await request(connection, f"STREAM.INFO.{stream}", timeout_s=timeout_s), StreamInfo
    )


async def subjects(
    connection: Connection, stream: str, pattern: str, *, timeout_s: float = ANSWER_S
) -> list[str]:
    """The subjects of a stream's messages that match a pattern, the first 100 000."""
    body = {"subjects_filter": pattern}
    answer = await request(connection, f"STREAM.INFO.{stream}", body, timeout_s=timeout_s)
    return sorted(answer["state"].get("subjects") or {})


async def consumer_info(
    connection: Connection, stream: str, consumer: str, *, timeout_s: float = ANSWER_S
) -> ConsumerInfo:
    """State of a consumer.

    Raises:
        StreamNotFoundError: there is no such consumer.
    """
    answer = await request(connection, f"CONSUMER.INFO.{stream}.{consumer}", timeout_s=timeout_s)
    return msgspec.convert(answer, ConsumerInfo)


# --- single messages and pages of them ----------------------------------------------------------------
async def consumer_infos(
    connection: Connection, stream: str, *, timeout_s: float = ANSWER_S
) -> list[ConsumerInfo]:
    """All consumers of a stream.

    Raises:
        LogUnavailableError: not all nodes of a cluster have answered, or there is more than a page (256).
        LogError: the server doesn't answer or refuses.
    """
    answer = await request(connection, f"CONSUMER.LIST.{stream}", {}, timeout_s=timeout_s)
    found = msgspec.convert(answer["consumers"] or [], list[ConsumerInfo])
    if answer.get("missing") or len(found) < answer["total"]:
        raise LogUnavailableError(f"the list of consumers of {stream} is not complete")
    return found


async def get_message(
    connection: Connection, stream: str, query: Mapping[str, Any], *, timeout_s: float = ANSWER_S
) -> StoredMessage | None:
    """The message that a query means, or None.

    `seq` means the one with this sequence, `seq` with `next_by_subj` the first one on a subject from there,
    `last_by_subj` the last one. The leader of the stream answers, so what has just been stored is found.
    """
    try:
        answer = await request(connection, f"STREAM.MSG.GET.{stream}", query, timeout_s=timeout_s)
    except MessageNotFoundError:
        return None
    found = answer["message"]
    data = base64.b64decode(found.get("data", ""))
    return StoredMessage(found["subject"], data, found["seq"], _unix_ns(found["time"]))


async def delete_message(
    connection: Connection, stream: str, sequence: int, *, timeout_s: float = ANSWER_S
) -> bool:
    """Overwrite a message on disk and remove it; False: it was gone already."""
    body = {"seq": sequence, "no_erase": False}
    try:
        await request(connection, f"STREAM.MSG.DELETE.{stream}", body, timeout_s=timeout_s)
    except MessageNotFoundError:
        return False
    return True


async def direct_get(
    connection: Connection, stream: str, query: Mapping[str, Any], *, timeout_s: float = ANSWER_S
) -> tuple[list[StoredMessage], int, str]:
    """Messages that any replica of a stream has, so the newest may be missing.

    Args:
        connection: to the core.
        stream: one with `allow_direct`.
        query: `multi_last`: subjects of which the last message is wanted; or `next_by_subj`, `seq` and `batch`.
        timeout_s: for each message.

    Returns:
        The messages, how many more match, and the server's status, TOO_MANY in place of some.
    """
    found: list[StoredMessage] = []
    async with connection.inbox() as inbox:
        subject = f"$JS.API.DIRECT.GET.{stream}"
        await connection.publish(subject, msgspec.json.encode(query), reply=inbox.subject)
        while True:
            message = await inbox.next(timeout_s)
            headers = message.headers or {}
            status = headers.get("Status")
            if not status:
                found.append(_direct(message, headers))
            elif status in {_END, _NONE, TOO_MANY}:
                return found, int(headers.get("Nats-Num-Pending", 0)), status
            elif status == _NO_RESPONDERS:
                raise NoRespondersError(f"{subject}: nothing answers there")
            else:
                raise JetStreamError(f"JetStream refuses {subject}: {headers}")


async def direct_scan(
    connection: Connection,
    stream: str,
    subject: str,
    *,
    first: int = 1,
    last: int | None = None,
    page: int = _PAGE,
    timeout_s: float = ANSWER_S,
) -> AsyncIterator[StoredMessage]:
    """All messages on `subject`, which may have wildcards, from one sequence to another in order."""
    more = 1
    while more and (last is None or first <= last):
        batch = page if last is None else min(page, last - first + 1)
        query = {"next_by_subj": subject, "seq": first, "batch": batch}
        found, more, _ = await direct_get(connection, stream, query, timeout_s=timeout_s)
        for message in found:
            first = message.sequence + 1
            if last is not None and message.sequence > last:
                return
            yield message
        more = more if found else 0


async def direct_last(
    connection: Connection, stream: str, subject: str, *, timeout_s: float = ANSWER_S
) -> StoredMessage | None:
    """The last message on one subject that any replica of a stream has; None: there is none."""
    body = msgspec.json.encode({"last_by_subj": subject})
    call = f"$JS.API.DIRECT.GET.{stream}"
    message = await connection.request_message(call, body, timeout_s=timeout_s)
    headers = message.headers or {}
    if headers.get("Status") == _NONE:
        return None
    if "Status" in headers:
        raise JetStreamError(f"JetStream refuses {call}: {headers}")
    return _direct(message, headers)


def _direct(message: Message, headers: Mapping[str, str]) -> StoredMessage:
    stored_ns = _unix_ns(headers["Nats-Time-Stamp"])
    return StoredMessage(
        headers["Nats-Subject"], message.data, int(headers["Nats-Sequence"]), stored_ns, headers
    )


def _unix_ns(stamp: str) -> int:
    """RFC 3339 in UTC with up to nine decimals as Unix nanoseconds."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * NS + int(f"{fraction:0<9}"[:9])
