"""`python -m headcount.tls OWN FOLDER NAME…`: the certificate of a stack of containers, before it starts.

An operator's own `server.crt`, `server.key` and `clients.crt` in OWN are copied to FOLDER; without
the first one is made there for these names, or made anew where it ends soon.
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
    """Have a certificate in `folder`.

    Raises:
        CertificateError: what is there can't be used.
    """
    certificate, key = own / "server.crt", own / "server.key"
    if certificate.exists():
        check_pair(certificate, key)
    else:
        ensure_server_certificate(folder, names)
    with locked_folder(folder):
        # the key first: until the certificate fits it nobody takes either
        for path in (key, certificate, own / "clients.crt"):
            if path.exists():
                write_private_file(folder / path.name, path.read_bytes())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except CertificateError as error:
        sys.exit(f"headcount: {error}")
