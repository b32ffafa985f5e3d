"""Parameters of endpoints: moments, spans and ids."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated, NamedTuple

from fastapi import Depends, Path, Query
from pydantic import BeforeValidator, WithJsonSchema

from headcount.access.audit_log import HEAD_PATTERN
from headcount.access.tokens import TOKEN_ID_PATTERN
from headcount.devices import trace
from headcount.devices.one_time_links import MAX_CODE_CHARS
from headcount.messages.times import HISTORY_TICK_S
from headcount.messages.topics import HANDLE_PATTERN, ID_PATTERN

#: 2100-01-01: later moments are mistakes, like milliseconds for seconds.
MAX_MOMENT_S = 4_102_444_800.0
#: The span that ends at `to`, without `from`.
DEFAULT_SPAN_S = 3600.0
#: The longest step: as long as counts by the minute are stored.
MAX_STEP_S = 400 * 86_400
#: Rows of one history answer.
MAX_ROWS = 10_000

# RFC 3339, section 5.6; a "+" that was not percent-encoded arrives as a space.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+ -]\d\d:\d\d)")
_OFFSET_AT = -6


def moment(value: object) -> float:
    """Parse RFC 3339 text or Unix seconds; return Unix seconds.

    Raises:
        ValueError: it is neither, or not between 1970 and 2100.
    """
    text = str(value)[:64]
    if _RFC_3339.fullmatch(text):
        if text[_OFFSET_AT] == " ":
            text = f"{text[:_OFFSET_AT]}+{text[_OFFSET_AT + 1 :]}"
        try:
            t_s = datetime.fromisoformat(text.upper()).timestamp()
        except (ValueError, OverflowError):
            raise ValueError("this day or time does not exist") from None
    else:
        try:
            t_s = float(text)
        except ValueError:
            raise ValueError("expected RFC 3339 with offset, 2026-11-24T13:00:00Z, or Unix seconds") from None
    if not (math.isfinite(t_s) and 0 <= t_s <= MAX_MOMENT_S):
        raise ValueError("not between 1970 and 2100; Unix times are in seconds")
    return t_s


Moment = Annotated[
    float,
    BeforeValidator(moment),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 64,
            "description": "RFC 3339 with offset, or Unix seconds",
            "examples": ["2026-11-24T13:00:00Z", "1795525200"],
        }
    ),
]
At = Annotated[Moment | None, Query(description="The moment; default: now.")]
From = Annotated[Moment | None, Query(alias="from", description="Start; default: an hour before `to`.")]
To = Annotated[Moment | None, Query(description="End, inclusive; default: now.")]
Step = Annotated[
    float,
    Query(
        ge=HISTORY_TICK_S,
        le=MAX_STEP_S,
        allow_inf_nan=False,
        description=f"Seconds from row to row; counts are stored every {HISTORY_TICK_S:g} s, and by the minute "
        "before the last 24 hours. "
        f"At most {MAX_ROWS} rows are returned.",
    ),
]


class HistorySteps(NamedTuple):
    """The steps of a history; without `to_s` up to now, without `from_s` the last DEFAULT_SPAN_S."""

    from_s: float | None
    to_s: float | None
    step_s: float


def _steps(from_: From = None, to: To = None, step: Step = 60.0) -> HistorySteps:
    return HistorySteps(from_, to, step)


Steps = Annotated[HistorySteps, Depends(_steps)]
Every = Annotated[
    float,
    Query(ge=0.1, le=60, allow_inf_nan=False, description="Minimum time between two updates, in seconds."),
]
Zones = Annotated[
    str | None,
    Query(max_length=10_000, description="Only these zones: comma-separated ids.", examples=["site,library"]),
]
# Site and zone ids have no pattern: an invalid one is simply unknown.
SiteId = Annotated[str, Path(description="The site's id.", examples=["ul"])]
ZoneId = Annotated[
    str, Path(description="The zone's id; `site` is the boundary itself.", examples=["library"])
]
#: A device that may not be registered.
DeviceId = Annotated[
    str, Path(pattern=f"^{ID_PATTERN}$", description="The device's id.", examples=["phone-1"])
]
#: A registered device.
DeviceHandle = Annotated[
    str,
    Path(pattern=f"^{HANDLE_PATTERN}$", description="The device's id.", examples=["k3qv7m2xw5yd4hbt6zra"]),
]
CommandId = Annotated[
    str, Path(max_length=64, description="The command's id.", examples=["5f0c2b9a7d13e486"])
]
TokenId = Annotated[
    str, Path(alias="id", pattern=f"^{TOKEN_ID_PATTERN}$", description="As GET /v1/tokens returns it.")
]
Code = Annotated[str, Path(max_length=MAX_CODE_CHARS, description="The code; the request uses it up.")]
AuditHead = Annotated[
    str | None,
    Query(
        pattern=f"^{HEAD_PATTERN}$",
        description="`head` of an earlier answer, which must still be in the log.",
    ),
]
TraceLimit = Annotated[
    int, Query(ge=1, le=trace.MAX_LIMIT, description="Maximum number of messages, the newest ones.")
]
DEFAULT_TRACE_LIMIT = trace.DEFAULT_LIMIT
