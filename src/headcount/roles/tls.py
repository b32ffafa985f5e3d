"""The certificate of this machine's servers."""

from __future__ import annotations

from headcount.settings.deployment import Settings
from headcount.tls.tls_files import TlsFiles


def tls_files_of(settings: Settings) -> TlsFiles | None:
    """The certificate of this machine's servers, made if none is configured; None where nothing is encrypted.

    Raises:
        CertificateError: a file can't be used.
    """
    if not settings.encrypted:
        return None
    from headcount.tls import certificates

    folder = settings.data.absolute() / certificates.FOLDER
    client_ca = settings.client_ca and settings.client_ca.absolute()
    if settings.tls_cert is None or settings.tls_key is None:
        names = certificates.machine_names(settings.host, settings.advertise)
        certificate, key = certificates.ensure_server_certificate(folder, names)
        files = TlsFiles(certificate, key, self_made=True, client_ca=client_ca)
    else:
        files = TlsFiles(settings.tls_cert.absolute(), settings.tls_key.absolute(), client_ca=client_ca)
        certificates.check_pair(files.certificate, files.key)
    return certificates.ensure_client_certificates(files, folder)
