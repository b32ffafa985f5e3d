"""Refuse query parameters that an endpoint does not have: a misspelled filter must not return everything."""

from __future__ import annotations

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from headcount.api.schemas.problems import invalid

#: Apps of others send what they like.
_ANY_PARAMETER = ("/v1/osmand",)


async def known_parameters(connection: HTTPConnection) -> None:
    """Check the names in a request's query.

    Raises:
        ProblemError: `invalid-parameter`, naming the unknown parameter and those that exist.
    """
    dependant = getattr(connection.scope.get("route"), "dependant", None)
    path: str = connection.scope["path"]
    if dependant is None or not path.startswith("/v1/") or path in _ANY_PARAMETER:
        return
    known = _names(dependant)
    for name in connection.query_params:
        if name not in known:
            exist = f"; these do: {', '.join(known)}" if known else ""
            raise invalid(name[:64], f"no parameter has this name here{exist}")


def _names(dependant: Dependant) -> list[str]:
    names = [parameter.alias for parameter in dependant.query_params]
    return names + [name for inner in dependant.dependencies for name in _names(inner)]
