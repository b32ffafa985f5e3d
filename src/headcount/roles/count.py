"""The one place where real parts are put together: each role opens, runs until told to stop, closes."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from nats.aio.client import Client

from headcount.access.oidc import OidcProvider
from headcount.access.rate_limiter import networks
from headcount.adapters import translator
from headcount.api import server
from headcount.api.api_settings import ApiSettings
from headcount.broker import agent
from headcount.broker import auth_service as keeping
from headcount.broker.auth_service import GateSettings
from headcount.broker.core import Broker
from headcount.broker.data_folder import write_private
from headcount.broker.device_rate_limiter import MqttRateLimits
from headcount.broker.nats_config import INTERNAL, LOCAL, BrokerConfig
from headcount.counting.disclosure import disclosure_key
from headcount.counting.site import Site
from headcount.counting.site_file import at_speed
from headcount.devices import command_delivery
from headcount.devices.one_time_links import open_one_time_links
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.errors import DataFolderError, SettingsError
from headcount.history import writer
from headcount.messaging import scrub
from headcount.messaging.connection import Endpoint, connected
from headcount.messaging.streams import COMMAND_BUCKET, DAYKEY_BUCKET, DEVICE_BUCKET
from headcount.messaging.unit_watch import watching
from headcount.privacy import erasure
from headcount.proxy import balancer as balancing
from headcount.proxy.address_bans import AddressBans, following
from headcount.proxy.balancer import ProxySettings
from headcount.proxy.proxy_settings import ProxyOptions
from headcount.runtime.tasks import until_stopped
from headcount.scaling import scaler as scaling
from headcount.scaling.scale_settings import ScaleSettings
from headcount.settings import ENVIRONMENT, LOOPBACK, Settings, joined
from headcount.sites.files import load_site
from headcount.tls.certificates import (
    FOLDER,
    check_pair,
    ensure_client_rules,
    ensure_server_certificate,
    machine_names,
)
from headcount.tls.contexts import pinned_context
from headcount.tls.files import TlsFiles
from headcount.worker import loops as counting
from headcount.worker.publisher import MqttAddress
from headcount.worker.snapshots import open_snapshots

_log = logging.getLogger(__name__)

MIN_SECRET = 16
#: In the data folder: what broker units need while they run.
UNITS = "units"


def site_of(settings: Settings) -> Site:
    """The site that counts, with its limits and holds scaled for a time-lapse run.

    Raises:
        SiteError: if the file isn't usable.
    """
    site = load_site(settings.site)
    return site if settings.speed == 1 else at_speed(site, settings.speed)


def secret_of(settings: Settings) -> str:
    """The deployment's secret, made at the first start; it never leaves the data folder.

    Raises:
        DataFolderError: if the folder can't be read or written.
    """
    if settings.secret_file is not None:
        return _given_secret(settings.secret_file)
    path = settings.data / "secret"
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text().strip()
    except OSError as error:
        raise DataFolderError(
            str(settings.data),
            f"can't be used: {error}",
            "Choose another one with --data, or mend its rights",
        ) from error


def _given_secret(path: Path) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("--secret-file", f"{path} can't be read: {error}") from error
    if len(secret) < MIN_SECRET:
        raise SettingsError("--secret-file", f"{path} holds less than {MIN_SECRET} characters")
    return secret


def _endpoint(settings: Settings) -> Endpoint:
    return Endpoint(settings.core_addresses, INTERNAL, secret_of(settings))


# --- the roles ---------------------------------------------------------------------------------
async def run_core(settings: Settings, stop: asyncio.Event) -> None:
    """A node of the core: a NATS server with the streams, started, watched and stopped."""

    async def serve() -> None:
        async with Broker(core_config(settings), stop_s=settings.stop_s):
            await asyncio.Event().wait()

    await until_stopped(serve(), stop)  # a node that waits for the others stops as well


def core_config(settings: Settings) -> BrokerConfig:
    """A node of the core that brokers and other nodes can join.

    Raises:
        SettingsError: it would take devices over TLS, and so be of no use to other machines' workers.
        CertificateError: see `tls_of`.
    """
    if settings.devices and settings.encrypted and settings.inside_host != LOOPBACK:
        raise SettingsError(
            "--devices", "with TLS devices reach a core of several machines through brokers: --no-devices"
        )
    config = alone(settings)
    return dataclasses.replace(
        config,
        inside_host=settings.inside_host,
        devices=settings.devices,
        leaf_port=settings.leaf_port,
        cluster_port=settings.cluster_port,
        peers=settings.peer_addresses,
        replicas=settings.replicas,
        server_name=settings.name if settings.peer_addresses else config.server_name,
    )


def tls_of(settings: Settings) -> TlsFiles | None:
    """The certificate of this machine's servers, made if none is named; None where nothing is encrypted.

    Raises:
        CertificateError: a file can't be used.
    """
    if not settings.encrypted:
        return None
    folder = settings.data.absolute() / FOLDER
    client_ca = settings.client_ca and settings.client_ca.absolute()
    if settings.tls_cert is None or settings.tls_key is None:
        certificate, key = ensure_server_certificate(folder, machine_names(*_own_hosts(settings)))
        files = TlsFiles(certificate, key, self_made=True, client_ca=client_ca)
    else:
        files = TlsFiles(settings.tls_cert.absolute(), settings.tls_key.absolute(), client_ca=client_ca)
        check_pair(files.certificate, files.key)
    return ensure_client_rules(files, folder)


def _own_hosts(settings: Settings) -> tuple[str, ...]:
    return settings.host, settings.advertise


def mqtt_addresses(settings: Settings) -> list[MqttAddress]:
    """Where our own MQTT clients find the core, and who they are there.

    Raises:
        CertificateError: see `tls_of`.
    """
    tls = tls_of(settings) if settings.core_takes_tls else None
    context = None if tls is None else partial(pinned_context, tls)
    password = secret_of(settings)
    return [
        MqttAddress(LOCAL.get(host, host), port, INTERNAL, password, context)
        for host, port in settings.core_mqtt_addresses
    ]


def alone(settings: Settings) -> BrokerConfig:
    """One NATS server that is everything.

    Raises:
        CertificateError: see `tls_of`.
    """
    return BrokerConfig(
        data=settings.data,
        password=secret_of(settings),
        host=settings.host,
        mqtt_port=settings.mqtt_port,
        ws_port=settings.ws_port,
        nats_port=settings.nats_port,
        monitor_port=settings.monitor_port,
        partitions=settings.partitions,
        anonymous=settings.open,
        tls=tls_of(settings),
        ws_tls=settings.encrypts_http,
    )


async def run_broker(settings: Settings, stop: asyncio.Event) -> None:
    """A broker unit: a leaf of the core that lets devices in, and its agent."""
    core = settings.core_addresses
    config = dataclasses.replace(
        alone(settings),
        data=settings.data / UNITS / settings.name,
        inside_host=settings.inside_host,
        monitor_port=None,
        hub=settings.core_leaf_addresses,
        replicas=3 if len(core) == 3 else 1,
        server_name=settings.name,
    )
    unit = agent.AgentSettings(
        name=settings.name,
        config=config,
        core=_endpoint(settings),
        host=settings.advertised,
        health_port=settings.health_port,
        drain_s=settings.drain_s,
        stop_s=settings.stop_s,
        limits=limits_of(settings),
    )
    await agent.run(unit, stop)


async def run_count(settings: Settings, stop: asyncio.Event) -> None:
    """A counting worker."""
    if not sys.flags.hash_randomization:
        raise SettingsError(
            "PYTHONHASHSEED",
            "is fixed, so that devices could choose names that the index of devices takes for one; unset it",
        )
    # batches are hundreds of thousands of short-lived objects without cycles
    gc.set_threshold(200_000, 20, 100)
    worker = counting.WorkerSettings(
        site_of(settings),
        _endpoint(settings),
        mqtt_addresses(settings),
        settings.partitions,
        settings.smallest_shown,
        disclosure_key(secret_of(settings).encode()),
    )
    await counting.run(worker, stop)


async def run_history(settings: Settings, stop: asyncio.Event) -> None:
    """The writer of the history."""
    async with connected(_endpoint(settings), "headcount history", stop) as client:
        await writer.run(client, settings.data, stop=stop)


async def run_adapters(settings: Settings, stop: asyncio.Event) -> None:
    """The translator of other formats."""
    options = {
        "servers": _endpoint(settings).urls,
        "user": INTERNAL,
        "password": secret_of(settings),
    }
    site_id, secret = site_of(settings).id, secret_of(settings)
    await translator.run(options, site_id, stop, secret=secret, worker=str(os.getpid()))


async def run_api(settings: Settings, stop: asyncio.Event) -> None:
    """HTTP: API, live stream, map, metrics."""
    api_settings = ApiSettings(
        site=site_of(settings),
        broker_url=",".join(_endpoint(settings).urls),
        data=settings.data,
        partitions=settings.partitions,
        user=INTERNAL,
        password=secret_of(settings),
        secret=secret_of(settings),
        open=settings.open,
        smallest_shown=settings.smallest_shown,
        monitor_url=f"http://{settings.core_addresses[0][0]}:{settings.monitor_port}",
        https=settings.encrypted,
        mqtt_port=settings.mqtt_port,
        ws_port=settings.ws_port,
        public_url=settings.public_url,
        trusted=networks(settings.trusted_proxies),
        oidc=provider_of(settings),
        requests_per_s=settings.requests_per_s,
    )
    tls = tls_of(settings) if settings.encrypts_http else None
    await server.run(api_settings, host=settings.host, port=settings.http_port, stop=stop, tls=tls)


def provider_of(settings: Settings) -> OidcProvider | None:
    """Who knows the people that log in on the web page; None: nobody logs in.

    Raises:
        SettingsError: the file with our secret there can't be read.
    """
    if not settings.oidc_issuer:
        return None
    path, secret = settings.oidc_client_secret_file, ""
    if path is not None:
        try:
            secret = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError("--oidc-client-secret-file", f"{path} can't be read: {error}") from error
    return OidcProvider(settings.oidc_issuer, settings.oidc_client_id, secret, settings.oidc_role_claim)


async def run_devices(settings: Settings, stop: asyncio.Event) -> None:
    """What looks after devices and their data: loops that each do one thing, until told to stop."""
    async with (
        connected(_endpoint(settings), "headcount devices", stop) as client,
        asyncio.TaskGroup() as loops,
    ):
        for name, loop in _keepers(settings, client).items():
            loops.create_task(loop(stop), name=f"devices: {name}")


def _keepers(
    settings: Settings, client: Client
) -> dict[str, Callable[[asyncio.Event], Coroutine[Any, Any, None]]]:
    """The loops of the role `devices`; each ends when the event is set."""
    js = client.jetstream(timeout=5)
    gate = GateSettings(
        settings.name, settings.core_addresses, secret_of(settings), direct=True, limits=limits_of(settings)
    )

    async def saved_seq(partition: int) -> int:
        return await (await open_snapshots(js)).saved_seq(partition)

    # beside a core that lets no devices in there is nothing to guard: its brokers have gates of their own
    guard = {"gate": partial(keeping.run, gate, client)} if settings.devices else {}
    return guard | {
        "pseudonym keys": PseudonymKeys(client, js).run,
        "commands": partial(command_delivery.run, client, mqtt_addresses(settings)),
        "one-time links": open_one_time_links(client, js, secret_of(settings)).run,
        "leftovers": partial(scrub.keep, client, (DEVICE_BUCKET, COMMAND_BUCKET, DAYKEY_BUCKET)),
        "erasing": partial(erasure.run, client, secret_of(settings), settings.partitions, saved_seq),
    }


def limits_of(settings: Settings) -> MqttRateLimits:
    """What one device may send; in a time-lapse as much of its own time."""
    faster = max(settings.speed, 1.0)
    return MqttRateLimits(
        messages_per_s=settings.device_fixes_per_s * faster, bytes_per_s=settings.device_bytes_per_s * faster
    )


async def run_proxy(settings: Settings, stop: asyncio.Event) -> None:
    """The balancer before brokers and API."""
    options = ProxyOptions.from_environment(os.environ)
    ports = (settings.mqtt_port, settings.ws_port, settings.http_port)
    tls = tls_of(settings)
    config = options.config(settings.host, ports, settings.inside_host, settings.health_port, tls)
    apis = tuple(joined(address) for address in settings.api_addresses)
    bans, core = AddressBans(), _endpoint(settings)
    async with watching(core, "headcount proxy") as units, following(core, bans):
        folder = settings.data / "proxy"
        proxy = ProxySettings(config, folder, units, apis, tls, options.program_path(), bans)
        await balancing.run(proxy, stop)


async def run_scale(settings: Settings, stop: asyncio.Event) -> None:
    """As many brokers and workers as the traffic needs."""
    await scale(settings, ScaleSettings.from_environment(os.environ), stop)


async def scale(settings: Settings, chosen: ScaleSettings, stop: asyncio.Event) -> None:
    """The same, with the scaler's settings from elsewhere.

    Raises:
        SettingsError: the driver can't work with these settings.
    """
    if chosen.driver == "docker" and settings.secret_file is None:
        raise SettingsError(
            "--secret-file", "containers need the deployment's secret: name the file to mount"
        )
    # their own ports are other ones
    own = {
        f"{ENVIRONMENT}CORE": joined(*settings.core_addresses),
        f"{ENVIRONMENT}CORE_MQTT": joined(*settings.core_mqtt_addresses),
    }
    # days begin at midnight where the site is; a scaler that has no site file takes UTC
    zone = ZoneInfo(site_of(settings).timezone if settings.site.exists() else "UTC")
    deployment = scaling.Deployment(
        name=settings.name,
        log=_endpoint(settings),
        data=settings.data,
        environment={**settings.environment(), **own},
        drain_s=settings.drain_s,
        stop_s=settings.stop_s,
        zone=zone,
    )
    await scaling.run(chosen, deployment, stop)


#: Roles that count nothing, and so need no site file.
WITHOUT_SITE = frozenset({"core", "broker", "history", "devices", "proxy", "scale"})
ROLES: dict[str, Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]]] = {
    "core": run_core,
    "broker": run_broker,
    "count": run_count,
    "history": run_history,
    "adapters": run_adapters,
    "devices": run_devices,
    "api": run_api,
    "proxy": run_proxy,
    "scale": run_scale,
}


def health_url(role: str, settings: Settings) -> str:
    """Where a role says on this machine whether it is healthy; "" for those that have no such address."""
    addresses = {
        "core": (settings.inside_host, settings.monitor_port),
        "broker": (settings.inside_host, settings.health_port),
        "proxy": (settings.inside_host, settings.health_port),
        "api": (settings.host, settings.http_port),
    }
    if role not in addresses:
        return ""
    host, port = addresses[role]
    scheme = "https" if role == "api" and settings.encrypts_http else "http"
    return f"{scheme}://{joined((LOCAL.get(host, host), port))}/healthz"


def site_path(site: Path | None) -> Path | None:
    """The site to count: the one named, else `site.geojson` here if it exists."""
    here = Path("site.geojson")
    return site or (here if here.exists() else None)
