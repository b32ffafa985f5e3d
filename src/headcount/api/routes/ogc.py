"""OGC API - Features at `/ogc`: thin over the package `ogc`; its own API definition is at `/ogc/api`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from headcount.access.roles import Caller
from headcount.api.media_types import Json
from headcount.api.middleware.authorization import Reason
from headcount.api.middleware.identity import AnyCaller
from headcount.api.ogc import api_definition, documents, flatgeobuf
from headcount.api.ogc.collection import Collection, Reading, read_page
from headcount.api.ogc.collection_list import collection_named, visible
from headcount.api.ogc.documents import FLATGEOBUF, GEOJSON, HTML, JSON, OPENAPI, SCHEMA_JSON, link, own_links
from headcount.api.ogc.parameters import ITEMS, REASON, Format, check_names, format_of, items_query
from headcount.api.public_url import checked_base_url
from headcount.api.schemas.problems import BAD_REQUEST, INVALID, NOT_FOUND, ProblemError, invalid
from headcount.api.state import ApiState, State
from headcount.errors import QueryError

_ITEM_FORMATS = {"json": GEOJSON, "html": HTML, "fgb": FLATGEOBUF}


class OgcRoute(APIRoute):
    """A route that answers 400 where a parameter is not valid, as the standard requires; `/v1` answers 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except QueryError as error:
                raise ProblemError(BAD_REQUEST, f"{error}.", parameter=error.parameter) from error
            except RequestValidationError as error:  # of the reason, the only parameter that FastAPI parses
                problem = f"reason: {error.errors()[0]['msg']}"
                raise ProblemError(BAD_REQUEST, problem, parameter="reason") from error
            except ProblemError as error:
                if error.kind is not INVALID:
                    raise
                raise ProblemError(BAD_REQUEST, error.detail, parameter=error.parameter) from error

        return handle


class OgcRequest(NamedTuple):
    """A request, and what answers need."""

    request: Request
    state: ApiState
    caller: Caller
    base: str  # the landing page's address

    def formatted(
        self, formats: Sequence[Format] = ("json", "html"), known: Sequence[str] = ("f",)
    ) -> Format:
        """Check the names of parameters, and return the format."""
        check_names(self.request.query_params, known)
        return format_of(self.request.query_params, self.request.headers.get("accept", ""), formats)

    def url(self, **changes: str) -> str:
        """Return the request's address, with other parameters."""
        given = {name: value for name, value in self.request.query_params.items() if name != "f"}
        path = quote(self.request.scope["path"].removeprefix("/ogc").rstrip("/"), safe="/@")
        query = urlencode(given | changes)
        return f"{self.base}{path}{'?' if query else ''}{query}"

    def answer(
        self,
        document: dict[str, Any],
        shown: Format,
        media_type: str = JSON,
        formats: dict[str, str] | None = None,
    ) -> Response:
        """Return a document with links to itself, as JSON or HTML."""
        formats = formats or {"json": media_type, "html": HTML}
        document = {**document, "links": [*own_links(self.url(), shown, formats), *document.get("links", [])]}
        if shown == "html":
            return HTMLResponse(documents.html_page(document))
        return _json(document, media_type)


async def _ogc_request(request: Request, state: State, caller: AnyCaller) -> OgcRequest:
    return OgcRequest(request, state, caller, f"{checked_base_url(request, state.settings)}/ogc")


async def _collection(collection: str, state: State, caller: AnyCaller) -> Collection:
    return collection_named(state, caller, collection)


Ogc = Annotated[OgcRequest, Depends(_ogc_request)]
CollectionInPath = Annotated[Collection, Depends(_collection)]
router = APIRouter(prefix="/ogc", route_class=OgcRoute, include_in_schema=False)


@router.get("")
@router.get("/")
async def get_landing_page(ogc: Ogc) -> Response:
    """Return the landing page."""
    return ogc.answer(documents.landing_page(ogc.base), ogc.formatted())


@router.get("/api")
async def get_api_definition(ogc: Ogc) -> Response:
    """Return the API definition."""
    shown = ogc.formatted()
    definition = api_definition.document(visible(ogc.state, ogc.caller), ogc.base)
    if shown == "html":
        info = definition["info"]
        return HTMLResponse(documents.html_page({**info, "paths": definition["paths"]}))
    return _json(definition, OPENAPI)


@router.get("/conformance")
async def get_conformance(ogc: Ogc) -> Response:
    """Return the conformance classes."""
    return ogc.answer({"title": "Conformance", "conformsTo": documents.CONFORMANCE}, ogc.formatted())


@router.get("/collections")
async def get_collections(ogc: Ogc) -> Response:
    """Return the collections that the caller may read."""
    shown = ogc.formatted()
    found = [_described(each, ogc.base, shown) for each in visible(ogc.state, ogc.caller)]
    return ogc.answer({"title": "Collections", "collections": found}, shown)


@router.get("/collections/{collection}")
async def get_collection(ogc: Ogc, collection: CollectionInPath) -> Response:
    """Return the description of a collection."""
    return ogc.answer(documents.collection_document(collection, ogc.base), ogc.formatted())


@router.get("/collections/{collection}/queryables")
async def get_queryables(ogc: Ogc, collection: CollectionInPath) -> Response:
    """Return the properties that filters may use."""
    shown, schema = ogc.formatted(), documents.queryables(collection, ogc.base)
    return HTMLResponse(documents.html_page(schema)) if shown == "html" else _json(schema, SCHEMA_JSON)


@router.get("/collections/{collection}/items")
async def get_items(ogc: Ogc, collection: CollectionInPath, reason: Reason = None) -> Response:
    """Return a page of features."""
    names = [each.name for each in ITEMS] + [each.name for each in collection.properties]
    shown = ogc.formatted(("json", "html", "fgb"), [*names, *_reason_name(collection)])
    query = items_query(ogc.request.query_params, collection.properties)
    found = await read_page(collection, _reading(ogc, collection, reason), query)
    following = None if found.cursor is None else ogc.url(cursor=found.cursor, f=shown)
    if shown == "fgb":
        body = await asyncio.to_thread(flatgeobuf.encode, found.features)
        headers = None if following is None else {"link": f'<{following}>; rel="next"'}
        return Response(body, media_type=FLATGEOBUF, headers=headers)
    links = [link(f"{ogc.base}/collections/{collection.id}", "collection", JSON, collection.title)]
    if following is not None:
        links.append(link(following, "next", _ITEM_FORMATS[shown], "Next page"))
    return ogc.answer(documents.items_document(found, links), shown, GEOJSON, _ITEM_FORMATS)


@router.get("/collections/{collection}/items/{feature}")
async def get_item(ogc: Ogc, collection: CollectionInPath, feature: str, reason: Reason = None) -> Response:
    """Return a feature."""
    shown = ogc.formatted(known=["f", *_reason_name(collection)])
    query = collection.query_of(feature)
    reading = _reading(ogc, collection, reason)
    found = None if query is None else await read_page(collection, reading, query)
    if found is None or not len(found.features):
        raise ProblemError(NOT_FOUND, f"The collection {collection.id} has no feature {feature[:64]!r}.")
    links = [link(f"{ogc.base}/collections/{collection.id}", "collection", JSON, collection.title)]
    return ogc.answer({**found.features.features()[0], "links": links}, shown, GEOJSON)


def _described(collection: Collection, base: str, shown: str) -> dict[str, Any]:
    document = documents.collection_document(collection, base)
    own = own_links(f"{base}/collections/{collection.id}", shown, {"json": JSON, "html": HTML})
    return {**document, "links": [*own, *document["links"]]}


def _reason_name(collection: Collection) -> list[str]:
    return [REASON.name] if collection.needs_reason else []


def _reading(ogc: OgcRequest, collection: Collection, reason: str | None) -> Reading:
    if collection.needs_reason and reason is None:
        raise invalid("reason", "is required for positions; it goes into the audit log")
    return Reading(ogc.state, ogc.caller, reason)


def _json(document: dict[str, Any], media_type: str) -> Response:
    answer = Json(msgspec.json.encode(document))
    answer.headers["content-type"] = media_type
    return answer
