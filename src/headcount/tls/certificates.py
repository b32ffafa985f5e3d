"""Certificates: checks of an operator's own; creation and renewal of ours.

<data>/tls/server.crt, server.key    our server certificate: P-256, valid for a year, self-signed
<data>/tls/own.crt, own.key          the certificate of our own MQTT clients, where devices must present one
<data>/tls/clients.pem               certificates that the NATS server accepts then: the devices' CA, and our own
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headcount.errors import CertificateError
from headcount.runtime import private_files
from headcount.tls.tls_files import TlsFiles

#: In the data folder.
FOLDER = "tls"
#: Lifetime of our certificates, and how long before their end they are renewed. Apple's limit is 825 days.
LIFETIME, RENEW_BEFORE = timedelta(days=365), timedelta(days=30)
#: Clocks of devices are not exact: certificates are valid since yesterday.
CLOCK_SKEW = timedelta(days=1)
MAX_FILE_BYTES = 1 << 20
_REMEDY = "Use other files, or none to have one created"
_PUBLIC_KEY_FORMAT = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A new certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, certificate: Path, key: Path, password: bytes | None = None) -> None:
        """Write both for the owner only, the key first; replaces existing files.

        Raises:
            CertificateError: they cannot be written.
        """
        write_private_file(key, key_pem(self.key, password))
        write_private_file(certificate, pem(self.certificate))

    def write_new(self, certificate: Path, key: Path) -> None:
        """Write both, but never replace a file.

        Raises:
            CertificateError: a file exists, or they cannot be written.
        """
        for path in (certificate, key):
            if path.exists():
                raise CertificateError(
                    str(path), "exists already", "Remove it, or choose a folder with --into"
                )
        self.write(certificate, key)


# --- our own certificates ----------------------------------------------------------------------------
def ensure_server_certificate(
    folder: Path, names: Sequence[str], *, now: datetime | None = None
) -> tuple[Path, Path]:
    """Create our server certificate, or renew it if it expires soon; return the paths of certificate and key.

    `names` are host names and addresses; a renewed certificate keeps its names.

    Raises:
        CertificateError: the folder cannot be written, or contains other files.
    """
    certificate, key = folder / "server.crt", folder / "server.key"
    now = now or datetime.now(UTC)
    with locked_folder(folder):
        if certificate.exists() and key.exists():
            old = first_certificate(certificate)
            if old.not_valid_after_utc - now > RENEW_BEFORE:
                return certificate, key
            names = _names(old) or names
        name = names[0] if names else "headcount"
        issue(name, now, LIFETIME, names=names, usage=ExtendedKeyUsageOID.SERVER_AUTH).write(certificate, key)
    return certificate, key


def ensure_client_certificates(files: TlsFiles, folder: Path, *, now: datetime | None = None) -> TlsFiles:
    """Create what is needed if devices must present a certificate of `client_ca`; returns all files.

    Raises:
        CertificateError: `client_ca` is not a CA certificate, or the folder cannot be written.
    """
    if files.client_ca is None:
        return files
    cas = certificates_in(files.client_ca)
    if not all(map(_is_ca, cas)):
        raise CertificateError(str(files.client_ca), "contains a certificate that is not a CA's", _REMEDY)
    own, key, clients = folder / "own.crt", folder / "own.key", folder / "clients.pem"
    now = now or datetime.now(UTC)
    with locked_folder(folder):
        if not (own.exists() and key.exists()) or (
            first_certificate(own).not_valid_after_utc - now < RENEW_BEFORE
        ):
            issued = issue("headcount itself", now, LIFETIME, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
            issued.write(own, key)
        text = b"".join(pem(each) for each in [*cas, first_certificate(own)])
        if not clients.exists() or clients.read_bytes() != text:
            write_private_file(clients, text)
    return replace(files, clients=clients, own_certificate=own, own_key=key)


def refresh(files: TlsFiles) -> None:
    """Check the files, and renew our certificates that expire soon.

    Raises:
        CertificateError: a file is not valid.
    """
    if files.self_made:
        ensure_server_certificate(files.certificate.parent, ())
    check_pair(files.certificate, files.key)
    if files.clients is not None:
        ensure_client_certificates(files, files.clients.parent)


# --- reading and checking ----------------------------------------------------------------------------
def check_pair(certificate: Path, key: Path, *, now: datetime | None = None) -> None:
    """Check that a certificate and its key are valid for a server now.

    Raises:
        CertificateError: the problem, and the file.
    """
    first = first_certificate(certificate)
    private = private_key(key)
    if first.public_key().public_bytes(*_PUBLIC_KEY_FORMAT) != private.public_key().public_bytes(
        *_PUBLIC_KEY_FORMAT
    ):
        raise CertificateError(str(key), f"is not the key of {certificate}", "Use files that belong together")
    now = now or datetime.now(UTC)
    if now > first.not_valid_after_utc:
        when = f"{first.not_valid_after_utc:%Y-%m-%d}"
        raise CertificateError(str(certificate), f"expired on {when}", "Renew it")
    if now < first.not_valid_before_utc:
        when = f"{first.not_valid_before_utc:%Y-%m-%d}"
        raise CertificateError(str(certificate), f"is valid from {when} on", "Check this machine's clock")


def private_key(path: Path, password: bytes | None = None) -> PrivateKeyTypes:
    """Read a private key.

    Raises:
        CertificateError: it is not a key, has another password, or is readable by all users.
    """
    text = _read(path)
    if path.stat().st_mode & 0o007:
        raise CertificateError(str(path), "is readable by all users of this machine", f"Run chmod o= {path}")
    try:
        return serialization.load_pem_private_key(text, password)
    except TypeError:
        problem = "has a password" if password is None else "has no password"
        raise CertificateError(str(path), problem, "See `openssl pkey -in … -out …`") from None
    except (ValueError, UnsupportedAlgorithm):
        problem = "is not a private key in PEM" if password is None else "has another password"
        raise CertificateError(str(path), problem, "Use another file") from None


def certificates_in(path: Path) -> list[x509.Certificate]:
    """All certificates in a file, at least one.

    Raises:
        CertificateError: there is none.
    """
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise CertificateError(str(path), "contains no certificate in PEM", _REMEDY) from None


def first_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a file: the one of its owner.

    Raises:
        CertificateError: there is none.
    """
    return certificates_in(path)[0]


def fingerprint(certificate: x509.Certificate) -> str:
    """A certificate's SHA-256 in 64 hexadecimal digits, as in the device registry."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def display_fingerprint(digest: str) -> str:
    """A fingerprint in the usual notation: `AB:CD:…`."""
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)).upper()


# --- issuing -----------------------------------------------------------------------------------------
def issue(
    name: str,
    now: datetime,
    lifetime: timedelta,
    *,
    names: Sequence[str] = (),
    usage: x509.ObjectIdentifier | None = None,
    ca: bool = False,
    issuer: IssuedCertificate | None = None,
) -> IssuedCertificate:
    """Issue a certificate for a new key, valid from `CLOCK_SKEW` before `now`.

    Args:
        name: common name of the subject, cut to 64 characters.
        now: the time.
        lifetime: how long it is valid.
        names: host names and addresses.
        usage: extended key usage; None = any.
        ca: whether it may sign other certificates.
        issuer: the CA; None = self-signed.

    Raises:
        CertificateError: a name cannot be in a certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signing_key = key if issuer is None else issuer.key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    key_usage = x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(key_usage, critical=True)
    )
    extensions: list[x509.ExtensionType] = [
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
    ]
    if usage is not None:
        extensions.append(x509.ExtendedKeyUsage([usage]))
    if names:
        extensions.append(alternative_names(names))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return IssuedCertificate(builder.sign(signing_key, hashes.SHA256()), key)


def machine_names(*more: str) -> list[str]:
    """The names and addresses under which this machine may be reached, including `more`."""
    name = socket.gethostname()
    found = [name, f"{name.partition('.')[0]}.local", "localhost", *more, "127.0.0.1", "::1"]
    with contextlib.suppress(OSError):
        found += [str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(name, None)]
    # the address of the default route: connecting a datagram socket sends nothing
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found.append(probe.getsockname()[0])
    return [
        each for each in dict.fromkeys(found) if each not in {"", "0.0.0.0", "::"} and _is_valid_name(each)
    ]


def _is_valid_name(name: str) -> bool:
    try:
        alternative_names([name])
    except CertificateError:
        return False
    return True


def alternative_names(names: Iterable[str]) -> x509.SubjectAlternativeName:
    """Host names and addresses for a certificate.

    Raises:
        CertificateError: a name cannot be in a certificate.
    """
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(_host_name(name)))
    return x509.SubjectAlternativeName(found)


def _host_name(name: str) -> str:
    try:
        ascii_name = name.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    if re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", ascii_name) is None:
        raise CertificateError(repr(name), "is not a host name or address", "Use another")
    return ascii_name


# --- files -------------------------------------------------------------------------------------------
def pem(certificate: x509.Certificate) -> bytes:
    """A certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKeyTypes, password: bytes | None = None) -> bytes:
    """A private key in PEM, encrypted if there is a password."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write_private_file(path: Path, text: bytes) -> None:
    """Replace a file atomically; only its owner may read it.

    Raises:
        CertificateError: it cannot be written.
    """
    try:
        private_files.write_private(path, text)
    except OSError as error:
        raise _write_error(path, error) from error


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create a folder and lock it: several roles may start at the same time.

    Raises:
        CertificateError: it cannot be created or written.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(private_files.locked_folder(folder, "lock", wait=True))
        except OSError as error:
            raise _write_error(folder, error) from error
        yield


def _write_error(path: Path, error: OSError) -> CertificateError:
    return CertificateError(str(path), f"cannot be written: {error.strerror or error}", "Fix its permissions")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise CertificateError(str(path), problem, "Fix its permissions, or use another file") from error
    if len(text) > MAX_FILE_BYTES:
        raise CertificateError(str(path), f"is larger than {MAX_FILE_BYTES >> 20} MiB", "Use another file")
    return text


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return [*found.get_values_for_type(x509.DNSName), *addresses]
