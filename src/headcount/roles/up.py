"""Everything on one machine: the NATS server and the roles that `headcount up` starts, supervises and stops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from headcount.broker import nats_probe
from headcount.broker.core import Broker
from headcount.broker.nats_config import BrokerConfig
from headcount.errors import CertificateError, HeadcountError, SettingsError
from headcount.messages.topics import AUTH_READY_SUBJECT, INTERNAL
from headcount.roles.server_config import core_config, origins_of, standalone_config
from headcount.roles.site import SiteSummary, summarise
from headcount.runtime.forked import in_fork
from headcount.runtime.http_get import get
from headcount.runtime.ports import check_free, free_port, free_ports
from headcount.runtime.processes import start_process
from headcount.runtime.supervisor import Supervised, all_running
from headcount.settings.deployment import LOOPBACK, Settings
from headcount.settings.formats import joined, local_host

#: The roles of a machine.
WORKING_ROLES = ("devices", "count", "history", "adapters", "api")
READY_S = 60.0
READY_POLL_S = 0.05
AUTH_ANSWER_S = 1.0
#: The scaler gives its brokers and workers `stop_s` to stop, and has this much more itself.
SCALE_EXTRA_S = 5.0


@contextlib.asynccontextmanager
async def everything(settings: Settings) -> AsyncIterator[SiteSummary]:
    """The NATS server and a process for each role; inside, all of them are ready.

    Raises:
        HeadcountError: the reason why it can't start; nothing is left behind then.
    """
    # an invalid site file or certificate is reported here, once
    site, config = in_fork(lambda: (summarise(settings), standalone_config(settings)))
    check_free("HTTP", settings.host, settings.http_port, "--http-port")
    parts = {role: Part(["run", role], settings) for role in (*WORKING_ROLES, *_bridge(settings))}
    async with _running(config, parts, settings):
        await _until_ready(settings, config, _auth_service_problem if not settings.open else None)
        yield site


@contextlib.asynccontextmanager
async def elastic(settings: Settings) -> AsyncIterator[SiteSummary]:
    """The same with a balancer on the public ports, and behind it as many brokers and workers as are needed.

    Raises:
        HeadcountError: the reason why it can't start; nothing is left behind then.
    """
    # settings and programs of its parts: a fault is reported here, once
    from headcount.proxy.haproxy_program import find_program

    if settings.scale.driver != "process":
        raise SettingsError(
            "scale.driver", f"{settings.scale.driver!r} does not work with --elastic; use process"
        )
    if settings.scale.dry_run:
        raise SettingsError("scale.dry_run", "with --elastic no worker would be started; unset it")
    await find_program(settings.proxy.program)
    for purpose, name in (("HTTP", "http"), ("MQTT", "mqtt"), ("WebSocket", "ws")):
        check_free(purpose, settings.host, getattr(settings, f"{name}_port"), f"--{name}-port")
    inside, proxy = _inside(settings)
    site, public, config = in_fork(
        lambda: (summarise(settings), standalone_config(settings), core_config(inside))
    )
    parts = {
        role: Part(["run", role], inside)
        for role in ("api", "devices", "history", "adapters", *_bridge(inside))
    }
    parts["proxy"] = Part(["run", "proxy"], proxy)
    parts["scale"] = Part(["run", "scale"], inside, extra_stop_s=SCALE_EXTRA_S)
    async with _running(config, parts, settings):
        await _until_ready(settings, public, _mqtt_problem)
        yield site


def _bridge(settings: Settings) -> tuple[str, ...]:
    return ("bridge",) if settings.bridge.from_ else ()


@contextlib.asynccontextmanager
async def _running(
    config: BrokerConfig, parts: Mapping[str, Part], settings: Settings
) -> AsyncIterator[None]:
    """The NATS server and the parts. They start side by side: each part waits until the log is there."""
    server, started = Broker(config, stop_s=settings.stop_s), contextlib.AsyncExitStack()
    # not before the data folder and the ports are known to be free
    server.on_first_start = partial(started.enter_async_context, running(parts))
    try:
        async with server, started:
            yield
    finally:
        await started.aclose()  # where the server did not become ready


def _inside(settings: Settings) -> tuple[Settings, Settings]:
    """The settings of the roles behind the balancer, and of the balancer, which has the public ports."""
    mqtt, http, spare = free_ports(3)
    inside = dataclasses.replace(
        settings,
        host=LOOPBACK,
        tls="proxy" if settings.encrypted else "off",
        devices=False,
        mqtt_port=mqtt,
        http_port=http,
        ws_port=spare,  # the core has none
        mqtt_origins=",".join(origins_of(settings)),
        leaf_port=free_port(settings.leaf_port),
        core=joined((settings.advertised, settings.nats_port)),
        core_mqtt=joined((settings.advertised, mqtt)),
        api=joined((LOOPBACK, http)),
    )
    proxy = dataclasses.replace(
        inside,
        host=settings.host,
        tls="on" if settings.encrypted else "off",
        mqtt_port=settings.mqtt_port,
        http_port=settings.http_port,
        ws_port=settings.ws_port,
        health_port=free_port(settings.health_port),
    )
    return inside, proxy


@dataclass(frozen=True, slots=True)
class Part:
    """`headcount <arguments>` with its settings; it may take `stop_s` of them and more to stop."""

    arguments: list[str]
    settings: Settings
    extra_stop_s: float = 0.0


@contextlib.asynccontextmanager
async def running(parts: Mapping[str, Part]) -> AsyncIterator[None]:
    """Each part in a process of its own, restarted whenever it ends."""
    # on a screen shared with the others only what matters; a role run by itself logs more
    children = [
        Supervised(
            name,
            partial(
                start_process,
                name,
                [sys.executable, "-m", "headcount", *part.arguments],
                environment=dataclasses.replace(
                    part.settings, log_level=part.settings.log_level or "WARNING"
                ).environment(),
            ),
            stop_s=(part.settings.stop_s + part.extra_stop_s,),
        )
        for name, part in parts.items()
    ]
    async with all_running(children):
        yield


#: Why devices can't connect yet; "" when they can.
DeviceCheck = Callable[[BrokerConfig], Awaitable[str]]


async def _until_ready(settings: Settings, config: BrokerConfig, devices: DeviceCheck | None) -> None:
    """Wait until the API is ready and devices can connect.

    Raises:
        HeadcountError: not within `READY_S`.
    """
    url = f"{'https' if config.tls else 'http'}://{joined((local_host(settings.host), settings.http_port))}/readyz"
    reason = "no answer"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while True:
                with contextlib.suppress(OSError, CertificateError):
                    reason = await _api_problem(settings, config)
                    if not reason and devices is not None:
                        reason = await devices(config)
                    if not reason:
                        return
                await asyncio.sleep(READY_POLL_S)
    raise HeadcountError(f"{url}: not ready within {READY_S:.0f} s: {reason}")


async def _api_problem(settings: Settings, config: BrokerConfig) -> str:
    context = None
    if config.tls is not None:
        from headcount.tls.contexts import pinned_context

        context = pinned_context(config.tls)
    status, body = await get(local_host(settings.host), settings.http_port, "/readyz", tls=context)
    return "" if status == 200 else body


async def _mqtt_problem(config: BrokerConfig) -> str:
    try:
        await nats_probe.ask_mqtt(config)
    except nats_probe.NO_ANSWER as error:
        return f"MQTT on port {config.mqtt_port}: {str(error) or repr(error)}"
    return ""


async def _auth_service_problem(config: BrokerConfig) -> str:
    try:
        answer = await nats_probe.request(config, INTERNAL, AUTH_READY_SUBJECT, within_s=AUTH_ANSWER_S)
    except nats_probe.NO_ANSWER:
        return "the auth service does not respond yet"
    return answer.decode()
