"""Responses of the media types that endpoints return."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

GEOJSON = "application/geo+json"
JSON_LD = "application/ld+json"
CSV = "text/csv; charset=utf-8"


class Json(Response):
    """JSON of anything that msgspec encodes; bytes are JSON already."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the body."""
        return content if isinstance(content, bytes) else msgspec.json.encode(content)


class GeoJson(Json):
    """GeoJSON (RFC 7946)."""

    media_type = GEOJSON


class JsonLd(Json):
    """JSON-LD 1.1."""

    media_type = JSON_LD


class Csv(Response):
    """A table (RFC 4180)."""

    media_type = CSV


def revalidated(request: Request, answer: Response) -> Response:
    """Let browsers keep a response and ask whether it has changed; 304: it has not."""
    etag = etag_of(answer)
    if etag in request.headers.get("if-none-match", ""):
        answer = Response(status_code=304)
    answer.headers.update({"etag": etag, "cache-control": "no-cache"})
    return answer


def etag_of(answer: Response) -> str:
    """Return the entity tag of a response: that of its body."""
    return f'W/"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
