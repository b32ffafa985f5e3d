"""The addresses at which browsers and devices reach this deployment."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from headcount.api.api_settings import ApiSettings
from headcount.api.schemas.problems import invalid
from headcount.devices.provisioning import DeviceEndpoint, public_host
from headcount.errors import SettingsError


def is_secure(connection: HTTPConnection, public_url: str) -> bool:
    """Whether browsers use TLS."""
    return connection.scope["scheme"] in ("https", "wss") or public_url.startswith("https://")


def base_url(connection: HTTPConnection, public_url: str) -> str:
    """Return the address at which browsers reach this API, without a slash at the end."""
    if public_url:
        return public_url.rstrip("/")
    scheme = "https" if connection.scope["scheme"] in ("https", "wss") else "http"
    return f"{scheme}://{connection.headers.get('host', '')}"


def is_same_origin(connection: HTTPConnection, public_url: str) -> bool:
    """Whether the header Origin is this API's own origin."""
    ours = urlsplit(base_url(connection, public_url))
    origin = urlsplit(connection.headers.get("origin", ""))
    return (origin.scheme, origin.netloc) == (ours.scheme, ours.netloc)


def checked_base_url(connection: HTTPConnection, settings: ApiSettings) -> str:
    """Return `base_url` if it names a host.

    Raises:
        ProblemError: `invalid-parameter`, the request does not name a host.
    """
    base = base_url(connection, settings.public_url)
    try:
        public_host(base)
    except SettingsError as error:
        raise invalid("host", "the header Host does not name a host") from error
    return base


def device_endpoint(connection: HTTPConnection, settings: ApiSettings) -> DeviceEndpoint:
    """Return where a request's sender reaches broker and API: on the host of the request.

    Raises:
        ProblemError: `invalid-parameter`, the request does not name a host.
    """
    base = checked_base_url(connection, settings)
    return DeviceEndpoint(base, public_host(base), settings.mqtt_port, settings.ws_port, settings.https)
