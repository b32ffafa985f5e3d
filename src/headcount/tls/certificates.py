"""Certificates: an operator's own, checked; one that we make for the first start, renewed before it ends.

<data>/tls/server.crt, server.key    the one that we make: P-256, a year, signed by itself
<data>/tls/own.crt, own.key          what our own MQTT clients show where devices must show one
<data>/tls/clients.pem               whom the NATS server lets in then: the devices' CA, and our own
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headcount.errors import CertificateError
from headcount.tls.files import TlsFiles

#: In the data folder.
FOLDER = "tls"
#: What we make lives for so long, and is made anew so long before its end. Apple's limit is 825 days.
LIFETIME, RENEW_BEFORE = timedelta(days=365), timedelta(days=30)
#: Clocks of devices are not exact: valid since yesterday.
CLOCK_SKEW = timedelta(days=1)
MAX_FILE_BYTES = 1 << 20
_REMEDY = "Name other files, or none: then one is made"


def ensure_server_certificate(
    folder: Path, names: Sequence[str], *, now: datetime | None = None
) -> tuple[Path, Path]:
    """The certificate and key that we make for ourselves; made, or made anew when they end soon.

    Args:
        folder: theirs; made for the owner only.
        names: host names and addresses that it is for; one that is made anew keeps its names.
        now: the time, where it isn't now.

    Raises:
        CertificateError: the folder can't be written, or holds something else.
    """
    certificate, key = folder / "server.crt", folder / "server.key"
    now = now or datetime.now(UTC)
    with locked_folder(folder):
        if certificate.exists() and key.exists():
            old = first_certificate(certificate)
            if old.not_valid_after_utc - now > RENEW_BEFORE:
                return certificate, key
            names = _names(old) or names
        private = ec.generate_private_key(ec.SECP256R1())
        made = self_signed(
            private, names[0] if names else "headcount", names, ExtendedKeyUsageOID.SERVER_AUTH, now
        )
        _write_pair(certificate, key, made, private)
    return certificate, key


def ensure_client_certificates(files: TlsFiles, folder: Path, *, now: datetime | None = None) -> TlsFiles:
    """The same files, and those that are needed because devices must show a certificate of `client_ca`.

    Raises:
        CertificateError: it is no CA certificate, or the folder can't be written.
    """
    if files.client_ca is None:
        return files
    cas = certificates_in(files.client_ca)
    for one in cas:
        if not _is_ca(one):
            raise CertificateError(str(files.client_ca), "holds a certificate that is no CA's", _REMEDY)
    own, key, clients = folder / "own.crt", folder / "own.key", folder / "clients.pem"
    now = now or datetime.now(UTC)
    with locked_folder(folder):
        if not (own.exists() and key.exists()) or (
            first_certificate(own).not_valid_after_utc - now < RENEW_BEFORE
        ):
            private = ec.generate_private_key(ec.SECP256R1())
            made = self_signed(private, "headcount itself", (), ExtendedKeyUsageOID.CLIENT_AUTH, now)
            _write_pair(own, key, made, private)
        text = b"".join(pem(one) for one in [*cas, first_certificate(own)])
        if not clients.exists() or clients.read_bytes() != text:
            write_private_file(clients, text)
    return replace(files, clients=clients, own_certificate=own, own_key=key)


def refresh(files: TlsFiles) -> None:
    """See that the files can be used, and make anew what we made and what ends soon.

    Raises:
        CertificateError: they can't.
    """
    if files.self_made:
        ensure_server_certificate(files.certificate.parent, ())
    check_pair(files.certificate, files.key)
    if files.clients is not None:
        ensure_client_certificates(files, files.clients.parent)


def check_pair(certificate: Path, key: Path, *, now: datetime | None = None) -> None:
    """See that a certificate and its key can be used for a server now.

    Raises:
        CertificateError: what is wrong with which.
    """
    first = first_certificate(certificate)
    private = private_key(key)
    if first.public_key().public_bytes(*_PUBLIC_KEY_FORMAT) != private.public_key().public_bytes(
        *_PUBLIC_KEY_FORMAT
    ):
        raise CertificateError(
            str(key), f"isn't the key of {certificate}", "Name the two that belong together"
        )
    now = now or datetime.now(UTC)
    if now > first.not_valid_after_utc:
        when = f"{first.not_valid_after_utc:%Y-%m-%d}"
        raise CertificateError(str(certificate), f"has ended on {when}", "Renew it")
    if now < first.not_valid_before_utc:
        when = f"{first.not_valid_before_utc:%Y-%m-%d}"
        raise CertificateError(str(certificate), f"begins on {when}", "See whether this clock is right")


_PUBLIC_KEY_FORMAT = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_key(path: Path, password: bytes | None = None) -> PrivateKeyTypes:
    """A private key that not everybody can read.

    Raises:
        CertificateError: it is none, has another password, or everybody can read it.
    """
    text = _read(path)
    if path.stat().st_mode & 0o007:
        raise CertificateError(str(path), "can be read by everybody on this machine", f"Run chmod o= {path}")
    try:
        return serialization.load_pem_private_key(text, password)
    except TypeError:
        problem = "has a password" if password is None else "has no password"
        raise CertificateError(str(path), problem, "See `openssl pkey -in … -out …`") from None
    except (ValueError, UnsupportedAlgorithm):
        problem = "is no private key in PEM" if password is None else "isn't opened by this password"
        raise CertificateError(str(path), problem, "Name another") from None


def certificates_in(path: Path) -> list[x509.Certificate]:
    """All certificates of a file, one at least.

    Raises:
        CertificateError: there is none.
    """
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise CertificateError(str(path), "holds no certificate in PEM", _REMEDY) from None


def first_certificate(path: Path) -> x509.Certificate:
    """A file's first certificate: the owner's own.

    Raises:
        CertificateError: there is none.
    """
    return certificates_in(path)[0]


def fingerprint(certificate: x509.Certificate) -> str:
    """A certificate's SHA-256, in 64 hexadecimal digits, as the registry of devices has it."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def display_fingerprint(digest: str) -> str:
    """A fingerprint as programs show it to people: `AB:CD:…`."""
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)).upper()


def common_name(certificate: x509.Certificate) -> str:
    """The name in a certificate's subject; "" where there is none, or more than one."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


# --- making ------------------------------------------------------------------------------------------
def machine_names(*more: str) -> list[str]:
    """Under which names and addresses this machine may be reached, and `more` of them."""
    name = socket.gethostname()
    found = [name, f"{name.partition('.')[0]}.local", "localhost", *more, "127.0.0.1", "::1"]
    with contextlib.suppress(OSError):
        found += [str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(name, None)]
    # the address that faces the world: connecting a datagram socket sends nothing
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found.append(probe.getsockname()[0])
    return [one for one in dict.fromkeys(found) if one not in {"", "0.0.0.0", "::"} and _is_valid_name(one)]


def _is_valid_name(name: str) -> bool:
    try:
        alternative_names([name])
    except CertificateError:
        return False
    return True


def alternative_names(names: Iterable[str]) -> x509.SubjectAlternativeName:
    """Names and addresses as a certificate has them.

    Raises:
        CertificateError: one can't stand in a certificate.
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
        raise CertificateError(repr(name), "is no host name or address", "Use another")
    return ascii_name


def self_signed(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    names: Sequence[str],
    purpose: x509.ObjectIdentifier,
    now: datetime,
) -> x509.Certificate:
    """A certificate that vouches for itself; who trusts it trusts nothing else by it."""
    builder = certificate_builder(name, key.public_key(), now, LIFETIME)
    builder = builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    if names:
        builder = builder.add_extension(alternative_names(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def certificate_builder(
    name: str, public: ec.EllipticCurvePublicKey, now: datetime, lives: timedelta, *, ca: bool = False
) -> x509.CertificateBuilder:
    """What all our certificates have: name, key, time, and whether it may sign others."""
    usage = x509.KeyUsage(
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
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lives)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKeyTypes, password: bytes | None = None) -> bytes:
    """A private key as text, encrypted where there is a password."""
    hidden: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        hidden = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


def write_private_file(path: Path, text: bytes) -> None:
    """Replace a file that only its owner may read, at once: never half of it is there.

    Raises:
        CertificateError: it can't be written.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise _write_error(path, error) from error


def _write_pair(certificate: Path, key: Path, made: x509.Certificate, private: PrivateKeyTypes) -> None:
    write_private_file(key, key_pem(private))
    write_private_file(certificate, pem(made))


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """The folder, made, and nobody else writes in it: several roles may start at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise _write_error(folder, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_error(path: Path, error: OSError) -> CertificateError:
    return CertificateError(str(path), f"can't be written: {error.strerror or error}", "Mend its rights")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problem = f"can't be read: {error.strerror or error}"
        raise CertificateError(str(path), problem, "Mend its rights, or name another") from error
    if len(text) > MAX_FILE_BYTES:
        raise CertificateError(str(path), f"is larger than {MAX_FILE_BYTES >> 20} MiB", "Name another")
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
