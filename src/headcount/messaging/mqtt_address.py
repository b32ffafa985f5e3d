"""Our own MQTT clients: where they connect to, and how they log in."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import aiomqtt


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """An MQTT listener of the core, and our login there."""

    host: str
    port: int
    user: str
    password: str
    #: With TLS: makes the context of one connection. Raises CertificateError.
    tls: Callable[[], ssl.SSLContext] | None = None

    def __repr__(self) -> str:
        """Omit the password: representations end up in logs."""
        return f"MqttAddress({self.user}@{self.host}:{self.port})"

    def client(self, name: str, *, unique: bool = True) -> aiomqtt.Client:
        """A client that is not connected yet; a random suffix makes its id `unique`.

        Raises:
            CertificateError: the server's certificate can't be read.
        """
        return aiomqtt.Client(
            self.host,
            self.port,
            username=self.user,
            password=self.password,
            identifier=f"{name}-{secrets.token_hex(4)}" if unique else name,
            tls_context=self.tls() if self.tls else None,
        )
