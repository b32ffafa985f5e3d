"""The role `api`: HTTP with the map, the API, live streams and metrics."""

from __future__ import annotations

import asyncio
import dataclasses

from headcount.access.client_address import parse_networks
from headcount.access.oidc_provider import OidcProvider
from headcount.api import server
from headcount.api.api_settings import ApiSettings
from headcount.broker.nats_config import SYSTEM
from headcount.errors import SettingsError
from headcount.roles.endpoints import core_endpoint
from headcount.roles.secret import secret_of
from headcount.roles.tls import tls_files_of
from headcount.settings.deployment import Settings
from headcount.settings.formats import split
from headcount.sites.files import load_site


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve HTTP until `stop` is set."""
    core = core_endpoint(settings)
    api_settings = ApiSettings(
        site=load_site(settings.site),
        speed=settings.speed,
        core=core,
        data=settings.data,
        history=settings.history,
        partitions=settings.partitions,
        secret=secret_of(settings),
        open=settings.open,
        smallest_shown=settings.smallest_shown,
        system=dataclasses.replace(core, user=SYSTEM),
        https=settings.encrypted,
        mqtt_port=settings.mqtt_port,
        ws_port=settings.ws_port,
        public_url=settings.public_url,
        embed_origins=tuple(split(settings.embed_origins)),
        trusted=parse_networks(settings.trusted_proxies),
        oidc=oidc_provider_of(settings),
        requests_per_s=settings.requests_per_s,
        device_fixes_per_s=settings.device_fixes_per_s,
    )
    tls = tls_files_of(settings) if settings.encrypts_http else None
    await server.run(api_settings, host=settings.host, port=settings.http_port, stop=stop, tls=tls)


def oidc_provider_of(settings: Settings) -> OidcProvider | None:
    """The identity provider of people who log in on the web page; None without logins.

    Raises:
        SettingsError: the file with the client secret can't be read.
    """
    if not settings.oidc_issuer:
        return None
    path, secret = settings.oidc_client_secret_file, ""
    if path is not None:
        try:
            secret = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError("oidc_client_secret_file", f"{path} cannot be read: {error}") from error
    return OidcProvider(settings.oidc_issuer, settings.oidc_client_id, secret, settings.oidc_role_claim)
