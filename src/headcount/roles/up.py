"""Everything on one machine: the parts that `headcount up` starts, watches and stops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial

from headcount.broker import nats_probe
from headcount.broker.auth_service import READY_SUBJECT as GATE_SUBJECT
from headcount.broker.core import Broker
from headcount.errors import CertificateError, HeadcountError, SettingsError
from headcount.messages.topics import INTERNAL
from headcount.proxy.haproxy_program import find_program
from headcount.roles.server_config import core_config, standalone_config
from headcount.roles.site import site_of
from headcount.roles.tls import tls_files_of
from headcount.runtime.ports import check_free, free_port, free_ports
from headcount.runtime.processes import start_process
from headcount.runtime.supervisor import Supervised, all_running
from headcount.settings.deployment import LOOPBACK, Settings
from headcount.settings.formats import joined, local_host
from headcount.tls.contexts import pinned_context
from headcount.tls.tls_files import TlsFiles

#: The roles of a machine, in the order in which they are started.
WORKING_ROLES = ("devices", "count", "history", "adapters", "api")
READY_S = 60.0
AUTH_SERVICE_ANSWER_S = 1.0
#: The scaler gives its brokers and workers `stop_s` to stop, and has this much more itself.
SCALE_EXTRA_S = 5.0


@contextlib.asynccontextmanager
async def everything(settings: Settings) -> AsyncIterator[dict[str, Supervised]]:
    """The broker and a process for each role; inside, the API answers that it is ready.

    Raises:
        HeadcountError: whatever keeps it from starting; nothing is left behind then.
    """
    site_of(settings)  # report an invalid site file or certificate here, once
    tls = tls_files_of(settings)
    check_free("HTTP", settings.host, settings.http_port, "--http-port")
    async with (
        Broker(standalone_config(settings), stop_s=settings.stop_s),
        watched({role: Part(["run", role], settings) for role in WORKING_ROLES}) as children,
    ):
        await _ready(settings, tls)
        yield children


@contextlib.asynccontextmanager
async def elastic(settings: Settings) -> AsyncIterator[dict[str, Supervised]]:
    """The same with a balancer on the public ports, and behind it as many brokers and workers as are needed.

    Raises:
        HeadcountError: whatever keeps it from starting; nothing is left behind then.
    """
    site_of(settings)
    tls = tls_files_of(settings)
    # report settings here, once, that would make roles fail repeatedly
    if settings.scale.driver != "process":
        raise SettingsError(
            "scale.driver", f"{settings.scale.driver!r} does not work with --elastic; use process"
        )
    if settings.scale.dry_run:
        raise SettingsError("scale.dry_run", "with --elastic no worker would be started; unset it")
    await find_program(settings.proxy.program)
    public = (("HTTP", "http"), ("MQTT", "mqtt"), ("WebSocket", "ws"))
    for purpose, name in public:
        check_free(purpose, settings.host, getattr(settings, f"{name}_port"), f"--{name}-port")
    inside, proxy = _inside(settings)
    parts = {role: Part(["run", role], inside) for role in ("devices", "history", "adapters", "api")}
    parts["proxy"] = Part(["run", "proxy"], proxy)
    parts["scale"] = Part(["run", "scale"], inside, extra_stop_s=SCALE_EXTRA_S)
    async with (
        Broker(core_config(inside), stop_s=settings.stop_s),
        watched(parts) as children,
    ):
        await _ready(settings, tls, devices=True)
        yield children


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
async def watched(parts: Mapping[str, Part]) -> AsyncIterator[dict[str, Supervised]]:
    """Each part in a process of its own, started again whenever it ends."""
    # on a screen shared with the others only what matters; a role run by itself logs more
    children = {
        name: Supervised(
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
    }
    async with all_running(children.values()):
        yield children


async def _ready(settings: Settings, tls: TlsFiles | None, *, devices: bool = False) -> None:
    """Wait until the API reports ready and, with `devices`, a device can connect."""
    where = joined((local_host(settings.host), settings.http_port))
    url = f"{'https' if tls else 'http'}://{where}/readyz"
    reason = "it doesn't answer"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while True:
                ready, reason = await asyncio.to_thread(_ask, url, reason, tls)
                if ready and devices:
                    ready, reason = await _let_in(settings)
                elif ready and not settings.open:
                    ready, reason = await _guarded(settings)
                if ready:
                    return
                await asyncio.sleep(0.1)
    raise HeadcountError(f"{url}: not ready after {READY_S:.0f} s: {reason}")


async def _let_in(settings: Settings) -> tuple[bool, str]:
    try:
        await nats_probe.ask_mqtt(standalone_config(settings))
    except nats_probe.NO_ANSWER as error:
        return False, f"MQTT on port {settings.mqtt_port}: {str(error) or repr(error)}"
    return True, ""


async def _guarded(settings: Settings) -> tuple[bool, str]:
    """Whether the auth service of the core accepts devices, and why not."""
    try:
        answer = await nats_probe.request(
            standalone_config(settings), INTERNAL, GATE_SUBJECT, within_s=AUTH_SERVICE_ANSWER_S
        )
    except nats_probe.NO_ANSWER:
        return False, "the auth service does not respond yet"
    return not answer, answer.decode()


def _ask(url: str, reason: str, tls: TlsFiles | None) -> tuple[bool, str]:
    try:
        context = pinned_context(tls) if tls else None
        with urllib.request.urlopen(url, timeout=2, context=context):  # noqa: S310  our own address
            return True, ""
    except urllib.error.HTTPError as error:
        return False, error.read(1000).decode(errors="replace")
    except (OSError, CertificateError):
        return False, reason
