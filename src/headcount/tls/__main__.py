"""`python -m headcount.tls OWN FOLDER NAME…` provides the certificate of a stack of containers.

An operator's own `server.crt`, `server.key` and `clients.crt` in OWN are copied to FOLDER; without the first,
one is created there for the names, or renewed if it expires soon.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headcount.errors import CertificateError
from headcount.tls.certificates import (
    check_pair,
    ensure_server_certificate,
    locked_folder,
    write_private_file,
)


def main(own: Path, folder: Path, names: list[str]) -> None:
    """Provide a certificate in `folder`.

    Raises:
        CertificateError: a file is not valid.
    """
    certificate, key = own / "server.crt", own / "server.key"
    if certificate.exists():
        check_pair(certificate, key)
    else:
        ensure_server_certificate(folder, names)
    with locked_folder(folder):
        # the key first: servers ignore both until the certificate matches the key
        for path in (key, certificate, own / "clients.crt"):
            if path.exists():
                write_private_file(folder / path.name, path.read_bytes())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except CertificateError as error:
        sys.exit(f"headcount: {error}")
