"""A key-value bucket of the log: all its newest values at once, and writing by compare-and-set.

nats-py's own key-value calls read one key at a time and know no time to live of a single key.
All times are the server's, so clocks needn't agree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from headcount.errors import LogError

_ANSWER_S = 1.0
#: Of what is stored, and (three replicas) of what is about to be.
_WRONG_REVISION = (10071, 10164)
_NO_MESSAGE = (10037, 10043, 10057)  # none found; none of that sequence; deleted by somebody else
#: What the server says when more than 1024 keys would have to be told at once.
_TOO_MANY = "413"
#: Values told for one question where there are more; a server that reads them from disk takes its time.
_PAGE, _PAGE_S = 1000, 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's newest value, the revision to compare with, and when the server received it (Unix seconds)."""

    value: bytes
    revision: int
    stored_s: float


class Bucket:
    """One bucket over one connection; every call raises LogError if the log doesn't answer."""

    def __init__(self, nc: Client, js: JetStreamContext, name: str) -> None:
        """Use the bucket `name`, which `streams` has made."""
        self._nc = nc
        self._js = js
        self._name = name
        self._prefix = f"$KV.{name}."

    async def newest(self, keys: str = ">") -> dict[str, Entry]:
        """The newest value of each key that `keys` matches and that isn't deleted.

        With three replicas any of them answers, so what has just been written may be missing:
        whoever acts on what he reads writes by compare-and-set.
        """
        pattern = self._prefix + keys
        status, messages, _ = await self._told({"multi_last": [pattern]})
        start = 1
        while status == _TOO_MANY:  # page by page instead, in the order in which they were written
            question = {"next_by_subj": pattern, "seq": start, "batch": _PAGE}
            _, page, pending = await self._told(question, _PAGE_S)
            messages += page
            if not page or not pending:
                break
            start = int((page[-1].headers or {})["Nats-Sequence"]) + 1
        return self._entries(messages)

    def _entries(self, messages: list[Msg]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for message in messages:  # of a key with more than one, the newest comes last
            headers = message.headers or {}
            _, _, key = headers["Nats-Subject"].partition(self._prefix)
            if message.data:
                stored_s = _unix(headers["Nats-Time-Stamp"])
                entries[key] = Entry(message.data, int(headers["Nats-Sequence"]), stored_s)
            else:  # deleted
                entries.pop(key, None)
        return entries

    async def _told(
        self, question: dict[str, Any], within_s: float = _ANSWER_S
    ) -> tuple[str, list[Msg], int]:
        """The messages that answer a question, the status at their end, and how many more there are."""
        inbox, messages = self._nc.new_inbox(), list[Msg]()
        try:
            subscription = await self._nc.subscribe(inbox)
            try:
                ask = json.dumps(question).encode()
                await self._nc.publish(f"$JS.API.DIRECT.GET.KV_{self._name}", ask, reply=inbox)
                while True:
                    message = await subscription.next_msg(timeout=within_s)
                    headers = message.headers or {}
                    status = headers.get("Status")
                    if not status:
                        messages.append(message)
                    elif status in {"204", "404", _TOO_MANY}:  # the end, or nothing there
                        return status, messages, int(headers.get("Nats-Num-Pending", 0))
                    else:
                        raise LogError(f"the bucket {self._name}: {headers}")
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogError(f"the bucket {self._name} doesn't answer: {error!r}") from error

    async def now_s(self) -> float:
        """The server's time, by the clock that stamps this bucket's values (Unix seconds)."""
        try:
            answer = await self._nc.request(f"$JS.API.STREAM.INFO.KV_{self._name}", timeout=_ANSWER_S)
            return _unix(msgspec.json.decode(answer.data)["ts"])
        except (nats.errors.Error, OSError, TimeoutError, KeyError) as error:
            raise LogError(f"the bucket {self._name} doesn't answer: {error!r}") from error

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Write a key, whatever is there; with `ttl_s` the server removes it after that. The new revision."""
        return await self._put(key, value, _living(ttl_s))

    async def replace(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int | None:
        """Write a key whose revision is still this one (0: there is none). None: it isn't."""
        expected = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            return await self._put(key, value, expected | _living(ttl_s))
        except _WrongRevisionError:
            return None

    async def delete(self, key: str, *, ttl_s: int) -> None:
        """Remove a key; the mark of that is removed after `ttl_s`."""
        await self._put(key, b"", {"KV-Operation": "DEL", "Nats-TTL": f"{ttl_s}s"})

    async def rewrite(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int | None:
        """As `replace`, and what stood there is overwritten on disk. For buckets that keep what is replaced."""
        new = await self.replace(key, value, revision, ttl_s=ttl_s)
        if new is not None and revision:
            await self._overwrite(revision)
        return new

    async def erase(self, key: str) -> int:
        """Overwrite everything that was ever stored under a key, and its name; how many values that were.

        Nobody who watches the bucket is told: what they must know is written before.
        """
        erased = 0
        while (last := await self._last(key)) is not None:
            await self._overwrite(last)
            erased += 1
        return erased

    async def _last(self, key: str) -> int | None:
        answer = await self._ask("MSG.GET", {"last_by_subj": self._prefix + key})
        return None if "error" in answer else int(answer["message"]["seq"])

    async def _overwrite(self, sequence: int) -> None:
        await self._ask("MSG.DELETE", {"seq": sequence, "no_erase": False})

    async def _ask(self, question: str, body: dict[str, Any]) -> dict[str, Any]:
        """An answer of JetStream's API; "no message found" is one too."""
        subject = f"$JS.API.STREAM.{question}.KV_{self._name}"
        try:
            message = await self._nc.request(subject, json.dumps(body).encode(), timeout=_ANSWER_S)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogError(f"the bucket {self._name} doesn't answer: {error!r}") from error
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        problem = answer.get("error", {})
        if problem and problem.get("err_code") not in _NO_MESSAGE:
            raise LogError(f"the bucket {self._name} refuses {question}: {problem.get('description')}")
        return answer

    async def _put(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        try:
            ack = await self._js.publish(self._prefix + key, value, _ANSWER_S, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_REVISION:
                raise _WrongRevisionError(f"the bucket {self._name}: {key} has changed") from error
            raise LogError(f"the bucket {self._name}: {error}") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogError(f"the bucket {self._name} takes nothing: {error!r}") from error
        return ack.seq


class _WrongRevisionError(LogError):
    """Somebody has written the key since."""


def _living(ttl_s: int | None) -> dict[str, str]:
    return {} if ttl_s is None else {"Nats-TTL": f"{ttl_s}s"}


def _unix(stamp: str) -> float:
    """RFC 3339 with nanoseconds as Unix seconds."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
