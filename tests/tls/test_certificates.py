"""Certificates: creation, checks and renewal, and the certificate authority."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from headcount.cli.main import main
from headcount.errors import CertificateError
from headcount.tls.authority import FOLDER, MAX_DAYS, CertificateAuthority
from headcount.tls.certificates import (
    LIFETIME,
    RENEW_BEFORE,
    check_pair,
    display_fingerprint,
    ensure_client_certificates,
    ensure_server_certificate,
    fingerprint,
    first_certificate,
    key_pem,
    machine_names,
    refresh,
)
from headcount.tls.contexts import pinned_context, server_context
from headcount.tls.tls_files import TlsFiles

DEVICE = "abcdefghij234567abcd"
NAMES = ["campus.example.org", "localhost", "127.0.0.1", "::1"]


def test_our_server_certificate(tmp_path: Path) -> None:
    """Our certificate is P-256, valid for a year, for the given names, for servers only, and readable by its owner only."""
    certificate, key = ensure_server_certificate(tmp_path / "tls", NAMES)
    made = first_certificate(certificate)
    public = made.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    assert timedelta(0) < LIFETIME - (made.not_valid_after_utc - datetime.now(UTC)) < timedelta(minutes=1)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == NAMES[:2]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == NAMES[2:]
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for path in (certificate, key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    check_pair(certificate, key)


def test_it_is_renewed_before_it_expires(tmp_path: Path) -> None:
    """It stays the same until a month before its end, and is then renewed with the same names."""
    now = datetime.now(UTC)
    certificate, _ = ensure_server_certificate(tmp_path, NAMES, now=now)
    first = certificate.read_bytes()
    ensure_server_certificate(tmp_path, ["other"], now=now + LIFETIME - RENEW_BEFORE - timedelta(hours=1))
    assert certificate.read_bytes() == first
    ensure_server_certificate(tmp_path, ["other"], now=now + LIFETIME - RENEW_BEFORE + timedelta(hours=1))
    assert certificate.read_bytes() != first
    names = first_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == NAMES[:2]


def test_roles_that_start_together_create_one(tmp_path: Path) -> None:
    """Eight concurrent calls all get the same certificate and its key."""
    with ThreadPoolExecutor(8) as pool:
        for certificate, key in pool.map(lambda _: ensure_server_certificate(tmp_path, NAMES), range(8)):
            check_pair(certificate, key)


def test_the_names_of_this_machine() -> None:
    """The names contain the host name, the loopback addresses and additional names once each, and no wildcard address."""
    names = machine_names("0.0.0.0", "campus.example.org", "localhost", "bad name", "")
    assert {"localhost", "127.0.0.1", "::1", "campus.example.org"} <= set(names)
    assert len(set(names)) == len(names)
    assert not {"0.0.0.0", "::", "", "bad name"} & set(names)


def test_invalid_files(tmp_path: Path) -> None:
    """The error has the invalid file, the problem and a remedy."""
    now = datetime.now(UTC)
    good = ensure_server_certificate(tmp_path / "a", NAMES)
    other = ensure_server_certificate(tmp_path / "b", NAMES)
    old = ensure_server_certificate(tmp_path / "c", NAMES, now=now - LIFETIME - timedelta(days=1))
    early = ensure_server_certificate(tmp_path / "d", NAMES, now=now + timedelta(days=9))
    shared, empty = tmp_path / "shared.key", tmp_path / "empty"
    shared.write_bytes(good[1].read_bytes())
    shared.chmod(0o644)
    empty.touch(mode=0o600)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"password"))
    locked.chmod(0o600)
    for certificate, key, problem in [
        (good[0], other[1], "is not the key of"),
        (*old, "expired on"),
        (*early, "is valid from"),
        (good[0], shared, "readable by all users"),
        (empty, good[1], "contains no certificate"),
        (good[0], empty, "is not a private key"),
        (good[0], locked, "has a password"),
        (tmp_path / "none.crt", good[1], "cannot be read: No such file"),
        (good[0], tmp_path, "cannot be read: Is a directory"),
    ]:
        with pytest.raises(CertificateError, match=problem) as caught:
            check_pair(certificate, key)
        assert caught.value.file in {str(certificate), str(key)}
        assert caught.value.remedy


def test_a_key_may_be_readable_by_the_group(tmp_path: Path) -> None:
    """A key that a group may read is accepted: Kubernetes' secrets and certbot's files are set up like this."""
    certificate, key = ensure_server_certificate(tmp_path, NAMES)
    key.chmod(0o640)
    check_pair(certificate, key)


def test_rsa_is_accepted(tmp_path: Path) -> None:
    """An operator's certificate may have any kind of key."""
    key, certificate = tmp_path / "rsa.key", tmp_path / "rsa.crt"
    private = rsa.generate_private_key(65537, 2048)
    key.write_bytes(key_pem(private))
    key.chmod(0o600)
    request = ["openssl", "req", "-x509", "-new", "-key", str(key), "-subj", "/CN=rsa", "-days", "1"]
    subprocess.run([*request, "-out", str(certificate)], check=True, capture_output=True)
    check_pair(certificate, key)
    server_context(certificate, key)


def test_fingerprints_match_openssl(tmp_path: Path) -> None:
    """A displayed fingerprint is the one of `openssl x509 -fingerprint -sha256`."""
    certificate, _ = ensure_server_certificate(tmp_path, NAMES)
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert output.partition("=")[2] == display_fingerprint(fingerprint(first_certificate(certificate)))


def test_client_certificates(tmp_path: Path) -> None:
    """The devices' CA and our own clients' certificate are accepted; a certificate that is not a CA's is rejected."""
    ca = CertificateAuthority.init(tmp_path / "ca", "Test")
    files = TlsFiles(*ensure_server_certificate(tmp_path, NAMES), client_ca=tmp_path / "ca" / "ca.crt")
    files = ensure_client_certificates(files, tmp_path)
    assert files.clients is not None
    assert files.own_certificate is not None
    found = x509.load_pem_x509_certificates(files.clients.read_bytes())
    assert found == [ca.certificate, first_certificate(files.own_certificate)]
    pinned_context(files)
    before = files.clients.stat().st_mtime_ns
    refresh(files)
    assert files.clients.stat().st_mtime_ns == before
    wrong = TlsFiles(files.certificate, files.key, client_ca=files.certificate)
    with pytest.raises(CertificateError, match="not a CA's"):
        ensure_client_certificates(wrong, tmp_path)


# --- the certificate authority --------------------------------------------------------------------------------
def headcount(*arguments: str | Path) -> str:
    """Run a command that must succeed; returns its output."""
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def verified(certificate: Path, ca: Path, purpose: str) -> bool:
    """Whether OpenSSL verifies the certificate for a purpose with the CA."""
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(ca), str(certificate)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_issued_certificates(tmp_path: Path) -> None:
    """OpenSSL verifies issued certificates, those of devices as clients only and those of servers as servers only."""
    output = headcount("ca", "init", "--data", tmp_path, "--name", "Campus")
    ca = tmp_path / FOLDER / "ca.crt"
    digest = display_fingerprint(fingerprint(first_certificate(ca)))
    assert digest in output
    assert digest in headcount("ca", "show", "--data", tmp_path)
    assert stat.S_IMODE((tmp_path / FOLDER / "ca.key").stat().st_mode) == 0o600
    output = headcount("ca", "issue", DEVICE, "--data", tmp_path, "--into", tmp_path, "--days", "30")
    headcount("ca", "server", "localhost", "127.0.0.1", "--data", tmp_path, "--into", tmp_path)
    device, server = tmp_path / f"{DEVICE}.crt", tmp_path / "server.crt"
    made = first_certificate(device)
    assert made.subject.rfc4514_string() == f"CN={DEVICE}"
    assert fingerprint(made) in output
    assert stat.S_IMODE((tmp_path / f"{DEVICE}.key").stat().st_mode) == 0o600
    assert verified(device, ca, "sslclient")
    assert not verified(device, ca, "sslserver")
    assert verified(server, ca, "sslserver")
    assert not verified(server, ca, "sslclient")
    check_pair(device, tmp_path / f"{DEVICE}.key")
    check_pair(server, tmp_path / "server.key")
    assert not [path for path in (tmp_path / FOLDER).rglob("*") if DEVICE in str(path)]


def test_limits_of_the_ca(tmp_path: Path) -> None:
    """A CA is created once, issues for registered devices only, outlives its certificates and overwrites nothing."""
    folder = tmp_path / FOLDER
    with pytest.raises(CertificateError, match="headcount ca init"):
        CertificateAuthority.open(folder)
    ca = CertificateAuthority.init(
        folder, "Test", b"a password", now=datetime.now(UTC) - timedelta(days=3300)
    )
    with pytest.raises(CertificateError, match="exists already"):
        CertificateAuthority.init(folder, "Test")
    with pytest.raises(CertificateError, match="not an id of the registry"):
        ca.issue_device("Alice's phone")
    for days in (0, MAX_DAYS + 1):
        with pytest.raises(CertificateError, match="--days"):
            ca.issue_device(DEVICE, days)
    with pytest.raises(CertificateError, match="the CA itself expires"):
        ca.issue_device(DEVICE, 400)
    with pytest.raises(CertificateError, match="not a host name"):
        ca.issue_server(["a" * 300], 30)
    with pytest.raises(CertificateError, match="has a password"):
        CertificateAuthority.open(folder)
    with pytest.raises(CertificateError, match="another password"):
        CertificateAuthority.open(folder, b"another")
    made = CertificateAuthority.open(folder, b"a password").issue_device(DEVICE, 30)
    made.write_new(tmp_path / "a.crt", tmp_path / "a.key")
    with pytest.raises(CertificateError, match="exists already"):
        made.write_new(tmp_path / "a.crt", tmp_path / "b.key")


def test_tls_1_2_and_newer(tmp_path: Path) -> None:
    """Our contexts accept TLS 1.2 and newer, and for 1.2 only ciphers with forward secrecy."""
    files = TlsFiles(*ensure_server_certificate(tmp_path, NAMES))
    context = server_context(files.certificate, files.key)
    for one in (context, pinned_context(files)):
        assert one.minimum_version == ssl.TLSVersion.TLSv1_2
    for cipher in context.get_ciphers():
        assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-"), cipher["name"]
        assert cipher["aead"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """If a file has the name of the folder, the error names it."""
    (tmp_path / "tls").touch()
    with pytest.raises(CertificateError, match="cannot be written") as caught:
        ensure_server_certificate(tmp_path / "tls", NAMES)
    assert caught.value.file.startswith(os.fspath(tmp_path))
