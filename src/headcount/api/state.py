"""The objects that the endpoints of one application share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from headcount.access.roles import Caller
from headcount.api.api_settings import ApiSettings
from headcount.api.core_connection import CoreConnection
from headcount.api.live_sites import LiveSites, ServedSite
from headcount.api.metrics import Metrics
from headcount.api.public_counts import public_counts
from headcount.api.rate_limits import ApiRateLimits
from headcount.api.schemas.problems import NO_LOGIN, UNKNOWN_SITE, UNKNOWN_ZONE, ProblemError
from headcount.api.stream_slots import StreamSlots
from headcount.devices.registry_cache import RegistryCache
from headcount.history.places import store_at
from headcount.history.quarter_hours import QuarterHours
from headcount.history.reader import SegmentReader
from headcount.messaging.connection import Connection
from headcount.messaging.site_versions import SiteFollower
from headcount.services.container import Services
from headcount.services.history import HistoryQueries
from headcount.services.history_tail import HistoryTail
from headcount.services.ingest import IngestService
from headcount.services.owntracks import OwnTracksService
from headcount.services.personal import PersonalDataService
from headcount.services.positions import PositionService
from headcount.services.stays import StayService
from headcount.settings.deployment import SMALLEST_SHOWN
from headcount.settings.environment import process_environment

if TYPE_CHECKING:
    from headcount.access.oidc import OidcClient  # imported only where it is configured


class ApiState:
    """The connection to the core, the services over it, the live counts, and the limits."""

    def __init__(self, settings: ApiSettings) -> None:
        """Build everything; `core.open` connects."""
        self.settings = settings
        connection = Connection()
        self.sites = SiteFollower(connection, settings.site, settings.speed)
        reader = SegmentReader(store_at(settings.history, settings.data, process_environment()))
        self.history = HistoryQueries(
            settings.max_queries, reader, HistoryTail(connection, settings.partitions)
        )
        self.quarters = QuarterHours()
        self.live = LiveSites(
            self.sites,
            settings.partitions,
            lambda site: public_counts(settings, site, self.history.may_have_counts),
        )
        self.metrics = Metrics(self.live)
        self.core = CoreConnection(settings, connection, self.sites, self.live, self.metrics.take)
        self.registry_cache = RegistryCache()
        self.limits = ApiRateLimits(settings.requests_per_s, settings.device_fixes_per_s)
        self._oidc_client: OidcClient | None = None
        if settings.oidc is not None:
            from headcount.access.oidc import OidcClient  # noqa: PLC0415  # with its HTTP client and JWT library

            self._oidc_client = OidcClient(settings.oidc, settings.secret)
        self.streams = StreamSlots(settings.max_streams)
        self.services = Services(self.core.connection, settings.secret, self.registry_cache)
        self.ingest = IngestService(connection, settings.secret, self.registry_cache)
        self.owntracks = OwnTracksService(
            self.ingest, self.services.command_store, self.core.connection, settings.secret
        )
        self.traces = self.services.traces(self.sites, settings.partitions)
        self.positions = PositionService(
            self.services,
            self.history,
            partitions=settings.partitions,
            # also where everything is open, a cell never shows a single device
            min_cell=settings.smallest_shown if settings.smallest_shown > 1 else SMALLEST_SHOWN,
        )
        self.stays = StayService(self.services, self.history)
        self.personal = PersonalDataService(
            self.services, self.traces, self.history, self.stays, partitions=settings.partitions
        )

    def oidc_client(self) -> OidcClient:
        """Return the client of the identity provider.

        Raises:
            ProblemError: `no-login`, none is configured.
        """
        if self._oidc_client is None:
            raise ProblemError(NO_LOGIN, NO_LOGIN.meaning)
        return self._oidc_client

    def close(self) -> None:
        """End all streams and history queries."""
        self.live.close()
        self.history.close()


def state_of(connection: HTTPConnection) -> ApiState:
    """Return the state of the application that received a request."""
    return cast("ApiState", connection.app.state.headcount)


#: A parameter of endpoints: what they share.
State = Annotated[ApiState, Depends(state_of)]


def check_visible(state: ApiState, caller: Caller, site: str) -> None:
    """Check that a caller may see a site, whether it exists or not.

    Raises:
        ProblemError: `unknown-site`.
    """
    if not caller.sees(site):
        raise _unknown_site(state, caller, site)


def known_site(state: ApiState, caller: Caller, site: str) -> ServedSite:
    """Return the site with an id.

    Raises:
        ProblemError: `unknown-site`; also where the caller may not see it.
    """
    served = state.live.named(site)
    if served is None or not caller.sees(site):
        raise _unknown_site(state, caller, site)
    return served


def _unknown_site(state: ApiState, caller: Caller, site: str) -> ProblemError:
    visible = ", ".join(repr(served.id) for served in state.live.visible(caller)) or "none that you may see"
    return ProblemError(UNKNOWN_SITE, f"There is no site {site[:64]!r}; this API serves {visible}.")


def known_zone(site: ServedSite, zone: str) -> int:
    """Return the index of a zone.

    Raises:
        ProblemError: `unknown-zone`.
    """
    index = site.live.index.get(zone)
    if index is None:
        detail = f"Site {site.id!r} has no zone {zone[:64]!r}; GET /v1/sites/{site.id} lists all zones."
        raise ProblemError(UNKNOWN_ZONE, detail)
    return index


def known_zone_of_any_version(site: ServedSite, zone: str) -> str:
    """Return the id of a zone that the site has or had.

    Raises:
        ProblemError: `unknown-zone`.
    """
    if not any(each.id == zone for version in site.versions.all for each in version.site.zones):
        known_zone(site, zone)
    return zone
