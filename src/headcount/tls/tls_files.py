"""The files of a TLS server; pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The certificates of a server, of the clients it accepts, and of our own clients."""

    certificate: Path  # PEM: the server's certificate, then the intermediate ones
    key: Path
    #: Whether we created it, and so renew it.
    self_made: bool = False
    #: The CA whose certificates devices must present; None: none are required.
    client_ca: Path | None = None
    #: With `client_ca`: it and our own clients' certificate, in one file for the NATS server.
    clients: Path | None = None
    own_certificate: Path | None = None
    own_key: Path | None = None

    @property
    def watched(self) -> tuple[Path, ...]:
        """The files that are reloaded when they change."""
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))
