"""The certificate authority (CA) of a deployment, for devices and servers.

<data>/ca/ca.crt    give it to everyone who should trust the deployment
<data>/ca/ca.key    for the owner only; optionally with a password

Issued certificates are not stored: a device's key belongs to the device, and names of devices belong in the
registry. To revoke a device, disable it in the registry, which takes effect within seconds; there are no
revocation lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from headcount.errors import CertificateError
from headcount.messages.topics import HANDLE
from headcount.tls.certificates import IssuedCertificate, first_certificate, issue, locked_folder, private_key

#: In the data folder.
FOLDER = "ca"
CA_LIFETIME = timedelta(days=3650)
#: The maximum that clients accept of a server, and longer than phones keep their settings.
MAX_DAYS = 825


class CertificateAuthority:
    """A CA in a folder; created by `init`, opened by `open`."""

    def __init__(self, issuer: IssuedCertificate) -> None:
        self._issuer = issuer

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate."""
        return self._issuer.certificate

    @classmethod
    def init(
        cls, folder: Path, name: str, password: bytes | None = None, *, now: datetime | None = None
    ) -> CertificateAuthority:
        """Create a CA that is valid for ten years; `name` is shown to people who are asked to trust it.

        Raises:
            CertificateError: there is a CA already, or the folder cannot be written.
        """
        paths = ca_files(folder)
        with locked_folder(folder):
            for path in paths:
                if path.exists():
                    remedy = (
                        "Certificates that it has issued are worthless without it: use it, or move it away"
                    )
                    raise CertificateError(str(path), "exists already", remedy)
            issuer = issue(name, now or datetime.now(UTC), CA_LIFETIME, ca=True)
            issuer.write(*paths, password)
        return cls(issuer)

    @classmethod
    def open(cls, folder: Path, password: bytes | None = None) -> CertificateAuthority:
        """Open the CA in a folder.

        Raises:
            CertificateError: there is none, or the password is wrong.
        """
        certificate = cls.certificate_in(folder)
        _, path = ca_files(folder)
        key = private_key(path, password)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError(
                str(path), "is not a key that `headcount ca init` created", "Use the tools of that CA"
            )
        return cls(IssuedCertificate(certificate, key))

    @staticmethod
    def certificate_in(folder: Path) -> x509.Certificate:
        """The certificate of the CA in a folder.

        Raises:
            CertificateError: there is none.
        """
        certificate, _ = ca_files(folder)
        if not certificate.exists():
            raise CertificateError(str(certificate), "does not exist", "Create a CA with `headcount ca init`")
        return first_certificate(certificate)

    def issue_device(self, device: str, days: int = 365, *, now: datetime | None = None) -> IssuedCertificate:
        """Issue a client certificate for a device, with its id as common name.

        Raises:
            CertificateError: it is not an id from the registry, or `days` is out of range.
        """
        if HANDLE.fullmatch(device) is None:
            raise CertificateError(
                f"device {device!r}", "is not an id of the registry", "Add it first: `headcount device add`"
            )
        return self._issue(device, (), ExtendedKeyUsageOID.CLIENT_AUTH, days, now)

    def issue_server(
        self, names: Sequence[str], days: int = 365, *, now: datetime | None = None
    ) -> IssuedCertificate:
        """Issue a certificate for a server with these host names and addresses.

        Raises:
            CertificateError: a name is not valid, or `days` is out of range.
        """
        if not names:
            raise CertificateError("server", "has no name", "Add its host names and addresses")
        return self._issue(names[0], names, ExtendedKeyUsageOID.SERVER_AUTH, days, now)

    def _issue(
        self, name: str, names: Sequence[str], usage: x509.ObjectIdentifier, days: int, now: datetime | None
    ) -> IssuedCertificate:
        now, lifetime = now or datetime.now(UTC), timedelta(days=days)
        if not 1 <= days <= MAX_DAYS:
            raise CertificateError("--days", f"{days} is not within 1 to {MAX_DAYS}", "Change it")
        if now + lifetime > self.certificate.not_valid_after_utc:
            when = f"{self.certificate.not_valid_after_utc:%Y-%m-%d}"
            raise CertificateError(
                "--days", f"the CA itself expires on {when}", "Use fewer, or create a new CA"
            )
        return issue(name, now, lifetime, names=names, usage=usage, issuer=self._issuer)


def ca_files(folder: Path) -> tuple[Path, Path]:
    """The paths of a CA's certificate and key."""
    return folder / "ca.crt", folder / "ca.key"
