"""Configurations of the NATS servers."""

from __future__ import annotations

import dataclasses

from headcount.broker.device_rate_limiter import MqttRateLimits
from headcount.broker.nats_config import BrokerConfig, auth_issuer
from headcount.decoders.plugins import plugin_subjects
from headcount.errors import SettingsError
from headcount.roles.secret import secret_of
from headcount.roles.tls import tls_files_of
from headcount.settings.deployment import LOOPBACK, Settings
from headcount.settings.formats import split


def standalone_config(settings: Settings) -> BrokerConfig:
    """One NATS server that is everything.

    Raises:
        CertificateError: see `tls_files_of`.
    """
    password = secret_of(settings)
    return BrokerConfig(
        data=settings.data,
        password=password,
        issuer=auth_issuer(password),
        host=settings.host,
        mqtt_port=settings.mqtt_port,
        ws_port=settings.ws_port,
        nats_port=settings.nats_port,
        partitions=settings.partitions,
        anonymous=settings.open,
        origins=origins_of(settings),
        tls=tls_files_of(settings),
        ws_tls=settings.encrypts_http,
        plugin_subjects=plugin_subjects(),
    )


def origins_of(settings: Settings) -> tuple[str, ...]:
    """Pages that may connect where no account is needed; empty: none, but programs on other machines."""
    return (*split(settings.mqtt_origins), *split(settings.public_url.rstrip("/")))


def core_config(settings: Settings) -> BrokerConfig:
    """A node of the core that brokers and other nodes can join.

    Raises:
        SettingsError: it would take devices over TLS, which the workers of other machines can't use.
        CertificateError: see `tls_files_of`.
    """
    if settings.devices and settings.encrypted and settings.internal_host != LOOPBACK:
        raise SettingsError(
            "devices",
            "with TLS, devices connect to a core of several machines through brokers; use --no-devices",
        )
    config = standalone_config(settings)
    return dataclasses.replace(
        config,
        internal_host=settings.internal_host,
        devices=settings.devices,
        leaf_port=settings.leaf_port,
        cluster_port=settings.cluster_port,
        peers=settings.peer_addresses,
        replicas=settings.replicas,
        server_name=settings.name if settings.peer_addresses else config.server_name,
    )


def rate_limits_of(settings: Settings) -> MqttRateLimits:
    """The rate limits of one device; in a time-lapse, per second of simulated time."""
    faster = max(settings.speed, 1.0)
    return MqttRateLimits(
        messages_per_s=settings.device_fixes_per_s * faster, bytes_per_s=settings.device_bytes_per_s * faster
    )
