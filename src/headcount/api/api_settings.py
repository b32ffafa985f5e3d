"""The settings of the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headcount.access.client_address import Network
from headcount.access.oidc_provider import OidcProvider
from headcount.counting.site import Site
from headcount.messaging.connection import Endpoint

#: The folder of the built map (`make web`).
WEB = Path(__file__).resolve().parents[1] / "web"


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The site, the core and the data folder of one API, and its limits."""

    site: Site  # of the site file; served until the core has answered
    core: Endpoint
    data: Path  # the data folder
    partitions: int
    secret: str = field(default="", repr=False)  # the deployment's; keys are derived from it
    history: str = ""  # as the setting `history`
    speed: float = 1.0  # of a time-lapse run
    system: Endpoint | None = None  # the core's NATS servers, with the login for questions about them
    web: Path = WEB
    open: bool = False  # anybody is a viewer, a program on this machine an operator
    https: bool = False  # browsers use TLS, to this API or to a load balancer
    smallest_shown: int = 5  # the public does not see smaller counts
    public_url: str = ""  # the address for browsers; "" = as they request it
    mqtt_port: int = 1883  # of the broker for devices, on the same host
    ws_port: int = 9001  # the same over WebSocket
    embed_origins: tuple[str, ...] = ()  # pages that may show the map in a frame
    trusted: tuple[Network, ...] = ()  # networks of load balancers, in addition to this machine
    oidc: OidcProvider | None = None  # the identity provider
    requests_per_s: float = 100.0  # per token and address
    device_fixes_per_s: float = 5.0  # per device
    max_streams: int = 1000  # open SSE and WebSocket connections; beyond it 503
    max_queries: int = 4  # history queries at the same time; beyond it 503
    ping_s: float = 5.0  # between keep-alive messages of a stream
    send_timeout_s: float = 30.0  # after which a stream whose reader takes nothing is closed
