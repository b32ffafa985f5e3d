"""TLS as Python has it: for our HTTP server, for our own clients, for clients that are anywhere.

Our own clients speak to the server of the same machine, whose certificate may be for any name: they
trust this one certificate and nothing else.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from headcount.errors import CertificateError
from headcount.tls.certificates import certificates_in, check_pair, first_certificate, pem
from headcount.tls.files import TlsFiles

#: Of TLS 1.2 only those with forward secrecy and authenticated encryption; 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server: 1.2 at least. `load_certificate` it again when the files have changed.

    Raises:
        CertificateError: they can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have new connections see what the files hold now; those that are there stay.

    Raises:
        CertificateError: they can't be used.
    """
    check_pair(certificate, key)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(str(certificate), f"can't be used: {error}", "Name other files") from error


def pinned_context(files: TlsFiles) -> ssl.SSLContext:
    """For our own clients: trusts the one certificate that the server shows, whatever name it has.

    Make one for each connection: the certificate may have been renewed.

    Raises:
        CertificateError: the files can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # it is this very certificate, which says more than a name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem(first_certificate(files.certificate)).decode())
    if files.own_certificate is not None and files.own_key is not None:
        context.load_cert_chain(files.own_certificate, files.own_key)
    return context


def client_context(ca: Path | None = None) -> ssl.SSLContext:
    """For a client that is anywhere: the system's authorities, or those in a file.

    Raises:
        CertificateError: the file holds no certificate.
    """
    if ca is not None:
        certificates_in(ca)
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
