"""TLS contexts: for our HTTP server, for our own clients, and for clients on other machines.

Our own clients connect to the server on the same machine, whose certificate may have any name: they trust this
one certificate and nothing else.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

from headcount.errors import CertificateError
from headcount.tls.certificates import certificates_in, check_pair, first_certificate, pem
from headcount.tls.tls_files import TlsFiles

#: TLS 1.2 ciphers with forward secrecy and authenticated encryption; TLS 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


#: The rest of a GET request without TLS, after OpenSSL has read "GET /".
_PLAIN_GET = re.compile(
    rb"(?P<path>(?!/)[!-~]*) HTTP/1\.[01]\r\n(?:.*\r\n)*?host: *(?P<host>[\w.:\[\]-]+)\r\n", re.IGNORECASE
)


class _HttpsConnection(ssl.SSLObject):
    """The TLS side of a connection, which answers a plain HTTP request with a redirect to `https://`."""

    bytes_in: ssl.MemoryBIO
    bytes_out: ssl.MemoryBIO

    def do_handshake(self) -> None:
        """Continue the handshake.

        Raises:
            ssl.SSLError: it failed, or more bytes are needed.
        """
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason != "HTTP_REQUEST":
                raise
            self.bytes_out.write(_redirect(self.bytes_in.read()))
            raise ssl.SSLWantReadError from error  # the answer is sent, and the client closes the connection


class _HttpsContext(ssl.SSLContext):
    sslobject_class = _HttpsConnection

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **named: Any
    ) -> ssl.SSLObject:
        """Begin the TLS side of a connection."""
        connection = super().wrap_bio(incoming, outgoing, *args, **named)
        if isinstance(connection, _HttpsConnection):
            connection.bytes_in, connection.bytes_out = incoming, outgoing
        return connection


def _redirect(rest: bytes) -> bytes:
    found = _PLAIN_GET.match(rest)
    url = f"https://{found['host'].decode()}/{found['path'].decode()}" if found else ""
    text = f"This port speaks HTTPS: use {url or 'https://'}\n"
    status = f"307 Temporary Redirect\r\nLocation: {url}" if url else "400 Bad Request"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
        f"Connection: close\r\n\r\n{text}"
    ).encode()


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for a server, with TLS 1.2 or newer; call `load_certificate` when the files have changed.

    Raises:
        CertificateError: the files are not valid.
    """
    context = _HttpsContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load the files for new connections; existing ones are not affected.

    Raises:
        CertificateError: the files are not valid.
    """
    check_pair(certificate, key)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(str(certificate), f"cannot be loaded: {error}", "Use other files") from error


def pinned_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for our own clients, which trusts only the server's certificate, whatever its name.

    Create one for each connection: the certificate may have been renewed.

    Raises:
        CertificateError: the files are not valid.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # trusting a single certificate is stricter than a name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem(first_certificate(files.certificate)).decode())
    if files.own_certificate is not None and files.own_key is not None:
        context.load_cert_chain(files.own_certificate, files.own_key)
    return context


def client_context(ca: Path | None = None) -> ssl.SSLContext:
    """A context for a client on any machine: trusts the system's authorities, or those in a file.

    Raises:
        CertificateError: the file contains no certificate.
    """
    if ca is not None:
        certificates_in(ca)
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
