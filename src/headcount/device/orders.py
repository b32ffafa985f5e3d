"""Commands that a device receives, and its answers."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

OrderName = Literal["interval", "report", "pause", "message"]
#: Answers that are remembered, for repeated commands.
MAX_ANSWERS = 64
MAX_ID_CHARS = 64
MAX_TEXT_CHARS = 256


@dataclass(frozen=True, slots=True)
class DeviceOrder:
    """A command to this device."""

    id: str
    name: OrderName
    interval_s: float | None = None  # of `interval`
    until: float | None = None  # of `pause`: Unix seconds
    text: str = ""  # of `message`


class OrderRefusedError(Exception):
    """The device does not execute a command; its text is the answer."""


class OrderAnswers:
    """Executes each command once, and answers a repeated one as before."""

    def __init__(self, execute: Callable[[DeviceOrder], None]) -> None:
        """Take the function that executes a command, or raises."""
        self._execute = execute
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def answer(self, payload: bytes, now: float) -> bytes | None:
        """Execute a command; returns the payload of the answer, None if there is none."""
        try:
            fields = json.loads(payload)
            id_, expires = fields["id"], float(fields["expires"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID_CHARS or not now < expires:
            return None
        if id_ not in self._answers:
            self._answers[id_] = self._answer(fields, id_)
            if len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)
        return self._answers[id_]

    def _answer(self, fields: dict[str, object], id_: str) -> bytes:
        try:
            self._execute(_order(fields, id_))
        except Exception as error:  # noqa: BLE001  # of the program's callback, too: it becomes the answer
            text = str(error)[:MAX_TEXT_CHARS] or type(error).__name__
            return json.dumps({"id": id_, "ok": False, "text": text}).encode()
        return json.dumps({"id": id_, "ok": True}).encode()


def _order(fields: dict[str, object], id_: str) -> DeviceOrder:
    name, text = fields.get("command"), fields.get("text")
    if name not in get_args(OrderName):
        raise OrderRefusedError("unknown command")
    order = DeviceOrder(
        id_,
        cast(OrderName, name),
        interval_s=_number(fields.get("interval_s")),
        until=_number(fields.get("until")),
        text=text[:MAX_TEXT_CHARS] if isinstance(text, str) else "",
    )
    if (name == "interval" and not order.interval_s) or (name == "pause" and order.until is None):
        raise OrderRefusedError("a parameter is missing")
    return order


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return None
    return float(value)
