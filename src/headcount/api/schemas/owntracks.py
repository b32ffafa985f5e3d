"""Messages to the app OwnTracks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headcount.api.schemas.base import OpenSchema


class OwnTracksMessage(OpenSchema):
    """A message to the app, such as a command; see the OwnTracks booklet."""

    type_: Literal["cmd", "encrypted"] = Field(alias="_type")
