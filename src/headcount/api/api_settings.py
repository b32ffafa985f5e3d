"""Where the API gets what it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headcount.access.oidc import OidcProvider
from headcount.access.rate_limiter import Network
from headcount.counting.site import Site
from headcount.messaging.connection import Endpoint

#: Where `make web` puts the map.
WEB = Path(__file__).resolve().parents[1] / "web"


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The site, the broker and the data folder behind one API, and the API's limits."""

    site: Site
    core: Endpoint
    data: Path  # the data folder, for the history
    partitions: int
    secret: str = field(default="", repr=False)  # the deployment's, for the keys that are derived from it
    monitor_url: str | None = None  # the broker's monitoring, http://host:port
    web: Path = WEB
    open: bool = False  # anybody may see what a viewer may, this machine what an operator may
    https: bool = False  # browsers come over TLS, to us or to a balancer ahead of us
    smallest_shown: int = 5  # the public sees no count below it
    public_url: str = ""  # under which browsers reach it; "" = as they ask
    mqtt_port: int = 1883  # on which devices reach the broker, on the same host as us
    ws_port: int = 9001  # the same over WebSocket
    trusted: tuple[Network, ...] = ()  # where our balancers are, beside this machine
    oidc: OidcProvider | None = None  # who knows the people that log in
    requests_per_s: float = 100.0  # of each token and address
    max_streams: int = 1000  # open SSE and WebSocket connections; beyond it 503
    max_queries: int = 4  # history queries at the same time; beyond it 503
    ping_s: float = 5.0  # between signs of life in a stream
    send_timeout_s: float = 30.0  # a stream's reader that takes nothing for so long is given up
