"""Cursors of pages of fixes: the last row of a page, and the span of the query. Pure."""

from __future__ import annotations

import base64
import binascii

import msgspec

from headcount.errors import QueryError

#: The place of a fix in answers: -t in µs, kind, lat and lon in stored units, device; smaller ones come first.
Key = tuple[int, int, int, int, int]


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a page ends. The span stays that of the first page, whose end may have been now."""

    from_us: int
    to_us: int
    key: Key


_decode = msgspec.msgpack.Decoder(Cursor).decode


def cursor_text(cursor: Cursor) -> str:
    """A cursor as text for clients."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def cursor_of(text: str) -> Cursor:
    """The cursor in a text.

    Raises:
        QueryError: it is not a cursor.
    """
    try:
        return _decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise QueryError("cursor", "is not the `next` of an answer") from None
