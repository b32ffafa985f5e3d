"""The base of all schemas."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """A request or response with exactly the declared fields."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class OpenSchema(BaseModel):
    """A response that may have more fields than the declared ones."""

    model_config = ConfigDict(extra="allow")
