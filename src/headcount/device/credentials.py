"""The account of a device, and where it connects: from a file, or in exchange for a one-time link or claim code."""

from __future__ import annotations

import json
import os
import re
import ssl
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from headcount.device.http_requests import HttpTarget
from headcount.device.site_areas import KINDS, DeviceKind
from headcount.errors import DeviceLibraryError

T = TypeVar("T")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_FILE_BYTES = 64 << 10
REDEEM_TIMEOUT_S = 30.0
_REMEDY = "Use the JSON of a one-time link or of `headcount device add --json`"


@dataclass(frozen=True, slots=True)
class DeviceCredentials:
    """A device's account, and the addresses of the system; empty ones are unknown."""

    device: str
    secret: str = field(repr=False)  # empty where a certificate proves the id
    site: str
    kind: DeviceKind
    host: str = "127.0.0.1"
    port: int = 1883
    tls: bool = False
    websocket: str = ""  # URL of MQTT over WebSocket
    url: str = ""  # of the API, for HTTP

    @property
    def topic(self) -> str:
        """The start of the device's topics."""
        return f"headcount/{self.site}/{self.kind}/{self.device}"


@dataclass(frozen=True, slots=True)
class DeviceCertificates:
    """Files in PEM: the certificates that the device trusts, and its own with its key."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """The TLS context.

        Raises:
            DeviceLibraryError: a file cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path)
            raise DeviceLibraryError(
                f"certificates {files}", f"cannot be used: {error}", "Use PEM files"
            ) from error
        return context


def credentials_of(fields: Any, source: str) -> DeviceCredentials:
    """The credentials in the JSON of `POST /v1/provision` or `headcount device add --json`.

    Raises:
        DeviceLibraryError: a field is missing or not valid; `source` names the place of the JSON.
    """
    fields = fields if isinstance(fields, dict) else {}
    mqtt = fields.get("mqtt") if isinstance(fields.get("mqtt"), dict) else fields
    device, site, kind = (fields.get(name) for name in ("device", "site", "kind"))
    device = device or fields.get("id")
    for name, value in (("device", device), ("site", site)):
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise DeviceLibraryError(source, f"has no valid {name}", _REMEDY)
    if kind not in KINDS:
        raise DeviceLibraryError(source, "has no valid kind", _REMEDY)
    return DeviceCredentials(
        str(device),
        _value(fields, "secret", ""),
        str(site),
        kind,
        host=_value(mqtt, "host", "127.0.0.1"),
        port=_value(mqtt, "port", 1883),
        tls=_value(mqtt, "tls", False),
        websocket=_value(fields, "websocket", ""),
        url=_value(fields, "url", ""),
    )


def _value(fields: Any, name: str, default: T) -> T:
    """A field of the type of its default."""
    value = fields.get(name)
    return value if isinstance(value, type(default)) else default


def read_credentials(path: Path) -> DeviceCredentials:
    """The credentials in a file.

    Raises:
        DeviceLibraryError: it cannot be read, or is not valid.
    """
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not JSON"
        raise DeviceLibraryError(f"credentials {path}", f"cannot be read: {problem}", _REMEDY) from error
    return credentials_of(fields, f"credentials {path}")


def write_credentials(path: Path, credentials: DeviceCredentials) -> None:
    """Write a file that only its owner can read.

    Raises:
        DeviceLibraryError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(credentials), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise DeviceLibraryError(
            f"credentials {path}", f"cannot be written: {error.strerror}", "Choose another file"
        ) from error


def redeem(link: str, url: str = "", certificates: DeviceCertificates | None = None) -> DeviceCredentials:
    """Exchange a one-time link or claim code for credentials; it is used up.

    Args:
        link: as printed by `headcount device link` or `claim`: for the browser, for OwnTracks, or the code.
        url: public URL of the API, for a code without one.
        certificates: to trust, if not the system's.

    Raises:
        DeviceLibraryError: it has no code or no URL, is used or expired, or the API does not answer.
    """
    base, code = _base_and_code(link, url)
    try:
        target = HttpTarget(base, (certificates or DeviceCertificates()).context(), REDEEM_TIMEOUT_S)
        status, _, answer = target.request("POST", "/v1/provision", json.dumps({"code": code}).encode())
        target.close()
        fields = json.loads(answer)
    except (OSError, HTTPException, ValueError) as error:
        raise DeviceLibraryError(
            f"link to {base}", f"is not answered: {error}", "Is the URL right?"
        ) from error
    if status != 200:
        problem = fields.get("detail") if isinstance(fields, dict) else None
        raise DeviceLibraryError(f"link to {base}", str(problem or f"HTTP {status}"), "Request a new one")
    return replace(credentials_of(fields, f"answer of {base}"), url=base)


def _base_and_code(link: str, url: str) -> tuple[str, str]:
    given = urlsplit(link.strip())
    if given.scheme == "owntracks":
        given = urlsplit(parse_qs(given.query).get("url", [""])[0])
    if given.scheme in ("http", "https"):
        path, _, file = given.path.partition("/v1/provision/")
        code = file.removesuffix(".otrc") or given.fragment.removeprefix("join=")
        url = f"{given.scheme}://{given.netloc}{path.removesuffix('/me')}"
    else:
        code = link.strip()
    if not code or not url:
        raise DeviceLibraryError(
            "link", "has no code or no URL", "Give the whole link, or the code and the URL of the API"
        )
    return url.rstrip("/"), code
