"""Where the parts of a TLS server are; pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a server shows, whom it asks for a certificate, and what our own clients show it."""

    certificate: Path  # PEM: the server's own first, then those between it and its CA
    key: Path
    #: Whether we made it, and so renew it.
    self_made: bool = False
    #: Of the CA whose certificates devices must show; None: they needn't.
    client_ca: Path | None = None
    #: With `client_ca`: it and our own clients' certificate, in one file for the NATS server.
    clients: Path | None = None
    own_certificate: Path | None = None
    own_key: Path | None = None

    @property
    def watched(self) -> tuple[Path, ...]:
        """The files whose change means loading again."""
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))
