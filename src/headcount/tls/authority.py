"""A small certificate authority for one deployment: it vouches for devices, and for servers.

<data>/ca/ca.crt    hand it to whoever is to trust the deployment
<data>/ca/ca.key    for the owner only; with a password where one is given

What it has issued isn't kept: the key of a device belongs to the device, and the names of devices belong
into the registry. A device is kept out by disabling it there, which takes effect within seconds; lists of
revoked certificates don't exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from headcount.errors import CertificateError
from headcount.messages.topics import HANDLE
from headcount.tls.certificates import (
    alternative_names,
    certificate_builder,
    first_certificate,
    key_pem,
    locked_folder,
    pem,
    private_key,
    write_private_file,
)

#: In the data folder.
FOLDER = "ca"
CA_LIFETIME = timedelta(days=3650)
#: What clients accept of a server at most, and more than a phone lives without being set up anew.
MAX_DAYS = 825


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate and its key, which nobody else has."""

    certificate: x509.Certificate
    key: PrivateKeyTypes

    def write(self, certificate: Path, key: Path) -> None:
        """Write both for the owner only; never over what is there.

        Raises:
            CertificateError: something is there, or it can't be written.
        """
        for path in (certificate, key):
            if path.exists():
                raise CertificateError(
                    str(path), "exists already", "Remove it, or choose another place with --into"
                )
        write_private_file(key, key_pem(self.key))
        write_private_file(certificate, pem(self.certificate))


class CertificateAuthority:
    """A CA in a folder; made by `init`, opened by `open`."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        """Use `init` or `open`."""
        self.certificate = certificate
        self._key = key

    @classmethod
    def init(
        cls, folder: Path, name: str, password: bytes | None = None, *, now: datetime | None = None
    ) -> CertificateAuthority:
        """Make a CA; it lives ten years.

        Args:
            folder: where; made for the owner only.
            name: what people see when they are asked whether they trust it.
            password: its key is useless without it, where one is given.
            now: the time, where it isn't now.

        Raises:
            CertificateError: there is one already, or the folder can't be written.
        """
        certificate, key = ca_files(folder)
        with locked_folder(folder):
            for path in (certificate, key):
                if path.exists():
                    remedy = "What it has issued is worth nothing without it: use it, or move it away"
                    raise CertificateError(str(path), "exists already", remedy)
            private = ec.generate_private_key(ec.SECP256R1())
            builder = certificate_builder(
                name, private.public_key(), now or datetime.now(UTC), CA_LIFETIME, ca=True
            )
            made = builder.issuer_name(x509.Name(_subject(name))).add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False
            )
            signed = made.sign(private, hashes.SHA256())
            write_private_file(key, key_pem(private, password))
            write_private_file(certificate, pem(signed))
        return cls(signed, private)

    @classmethod
    def open(cls, folder: Path, password: bytes | None = None) -> CertificateAuthority:
        """The CA in a folder.

        Raises:
            CertificateError: there is none, or the password isn't its.
        """
        certificate = cls.certificate_in(folder)
        _, key = ca_files(folder)
        private = private_key(key, password)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise CertificateError(
                str(key), "isn't a key that `headcount ca init` made", "Use that CA's own tools"
            )
        return cls(certificate, private)

    @staticmethod
    def certificate_in(folder: Path) -> x509.Certificate:
        """The certificate of the CA in a folder.

        Raises:
            CertificateError: there is none.
        """
        certificate, _ = ca_files(folder)
        if not certificate.exists():
            raise CertificateError(str(certificate), "isn't there", "Make a CA with `headcount ca init`")
        return first_certificate(certificate)

    def issue_device(self, device: str, days: int = 365, *, now: datetime | None = None) -> IssuedCertificate:
        """A client certificate for a device: its common name is the device's id.

        Raises:
            CertificateError: that is no id that the registry has given, or the time is out of range.
        """
        if HANDLE.fullmatch(device) is None:
            raise CertificateError(
                f"device {device!r}", "is no id of the registry", "Add it first: `headcount device add`"
            )
        return self._issue(device, (), ExtendedKeyUsageOID.CLIENT_AUTH, days, now)

    def issue_server(
        self, names: Sequence[str], days: int = 365, *, now: datetime | None = None
    ) -> IssuedCertificate:
        """A certificate for a server with these host names and addresses.

        Raises:
            CertificateError: a name can't stand in a certificate, or the time is out of range.
        """
        if not names:
            raise CertificateError("server", "has no name", "Name its host names and addresses")
        return self._issue(names[0], names, ExtendedKeyUsageOID.SERVER_AUTH, days, now)

    def _issue(
        self,
        name: str,
        names: Sequence[str],
        purpose: x509.ObjectIdentifier,
        days: int,
        now: datetime | None,
    ) -> IssuedCertificate:
        now = now or datetime.now(UTC)
        if not 1 <= days <= MAX_DAYS:
            raise CertificateError("--days", f"{days} is not within 1 to {MAX_DAYS}", "Choose another number")
        if now + timedelta(days=days) > self.certificate.not_valid_after_utc:
            when = f"{self.certificate.not_valid_after_utc:%Y-%m-%d}"
            raise CertificateError(
                "--days", f"the CA itself ends on {when}", "Choose fewer, or make a new CA"
            )
        private = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            certificate_builder(name, private.public_key(), now, timedelta(days=days))
            .issuer_name(self.certificate.subject)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
            )
        )
        if names:
            builder = builder.add_extension(alternative_names(names), critical=False)
        return IssuedCertificate(builder.sign(self._key, hashes.SHA256()), private)


def ca_files(folder: Path) -> tuple[Path, Path]:
    """Where certificate and key of a CA are."""
    return folder / "ca.crt", folder / "ca.key"


def _subject(name: str) -> list[x509.NameAttribute[str]]:
    return [x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name[:64])]
