"""Results of plug-ins between their process and ours: limited and validated; pure."""

from __future__ import annotations

import math
import re

import msgspec

from headcount.decoding import Decoded, DecodedFix, DecodedStatus, DecodeError, Ignored

#: Maximum number of results of one message.
MAX_RESULTS = 100
#: Maximum size of the results of one message: a name has up to 1000 characters.
MAX_RESULT_BYTES = 1 << 20
MAX_NAME_CHARS, MAX_PROBLEM_CHARS = 1000, 200
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}")
_NUMBERS = ("t", "lat", "lon", "acc", "vel", "cog", "alt", "batt")


class _Rejected(msgspec.Struct, frozen=True, gc=False, tag="rejected"):
    label: str
    problem: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[DecodedFix | DecodedStatus | Ignored | _Rejected]).decode


def encode_results(results: object) -> bytes:
    """Anything that a plug-in returned, as bytes; what is not a list of results becomes one rejection."""
    if not isinstance(results, list | tuple):
        return _encode([_rejection("results", f"the decoder returned {_noun(results)}, not a list")])
    try:
        return _encode([_rejection_of(each) if isinstance(each, DecodeError) else each for each in results])
    except (TypeError, ValueError, OverflowError) as error:
        return _encode([_rejection("results", f"the decoder returned a value of a wrong type: {error}")])


def encode_error(error: BaseException, where: str) -> bytes:
    """An exception of a plug-in as a rejection; `where` is the line of the plug-in."""
    if isinstance(error, MemoryError):
        return _encode([_rejection("memory", f"the decoder needs too much memory in {where}")])
    # without the text of the exception, which may have a value of the message
    return _encode([_rejection("error", f"the decoder raised {type(error).__name__} in {where}")])


def decode_results(content: bytes) -> list[Decoded]:
    """The validated results of one message; wrong ones are DecodeErrors. Never raises."""
    try:
        found = _decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return [DecodeError("results", f"the decoder returned a wrong result: {error}"[:MAX_PROBLEM_CHARS])]
    if len(found) > MAX_RESULTS:
        return [
            DecodeError("results", f"the decoder returned {len(found)} results, {MAX_RESULTS} are allowed")
        ]
    return [_validated(each) for each in found]


def _validated(result: DecodedFix | DecodedStatus | Ignored | _Rejected) -> Decoded:
    match result:
        case _Rejected(label, problem):
            return DecodeError(_label(label), _line(problem))
        case Ignored(reason):
            return Ignored(_label(reason))
    if not 0 < len(result.name) <= MAX_NAME_CHARS:
        return DecodeError("no_id", f"the name has {len(result.name)} characters, use 1 to {MAX_NAME_CHARS}")
    if isinstance(result, DecodedFix):
        for field in _NUMBERS:
            value = getattr(result, field)
            if value is not None and not math.isfinite(value):
                return DecodeError("no_position", f"{field} is not a finite number")
        if not 0 < result.acc_probability < 1:
            return DecodeError("results", "acc_probability is not between 0 and 1")
    return result


def _rejection_of(error: DecodeError) -> _Rejected:
    return _rejection(str(error.label), str(error.problem))


def _rejection(label: str, problem: str) -> _Rejected:
    return _Rejected(label, problem[:MAX_PROBLEM_CHARS])


def _label(text: str) -> str:
    """A label of a metric: other texts are `other`."""
    return text if _LABEL.fullmatch(text) else "other"


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:MAX_PROBLEM_CHARS])


def _noun(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
