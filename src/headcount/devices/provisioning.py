"""Provisioning: links, QR codes and app settings that make a phone a registered device."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from headcount.devices.owntracks_commands import (
    DEVICE_NAME,
    HTTP_MODE,
    MQTT_MODE,
    command_topic,
    publish_topic,
)
from headcount.errors import SettingsError
from headcount.messages.records import Device, PhoneOptions
from headcount.settings.formats import joined

#: Pixels of a QR code's modules, and the width of its white border in modules.
_SCALE, _BORDER = 5, 4
_HOST = re.compile(r"[0-9A-Za-z.-]{1,253}|[0-9A-Fa-f:.]{2,45}")
#: Path of MQTT on the broker's WebSocket port.
_WEBSOCKET_PATH = "/mqtt"


class RedeemedLink(NamedTuple):
    """The credentials that the first use of a link or code returns."""

    device: Device
    secret: str
    payload_key: str  # of encrypted messages; "" = they are not encrypted
    phone: PhoneOptions


@dataclass(frozen=True, slots=True)
class DeviceEndpoint:
    """The public addresses of broker and API."""

    api: str  # URL, without a trailing slash
    host: str
    mqtt_port: int
    ws_port: int
    tls: bool

    @property
    def websocket(self) -> str:
        """The WebSocket URL, for browsers."""
        return f"{'wss' if self.tls else 'ws'}://{joined((self.host, self.ws_port))}{_WEBSOCKET_PATH}"


@dataclass(frozen=True, slots=True)
class ProvisioningLinks:
    """A link for a phone's app and one for its browser; either uses up the code."""

    owntracks: str
    page: str


def provisioning_links(base: str, code: str) -> ProvisioningLinks:
    """The links of a code.

    The page has the code in the fragment, which browsers do not send, so that no server logs it. The app sends
    no fragment and no POST request: it needs the code in the URL, which it requests once.

    Args:
        base: public URL of the API, without a trailing slash.
        code: from `OneTimeLinks`.
    """
    plain = code.replace("-", "")
    file = f"{base}/v1/provision/{plain}.otrc"
    return ProvisioningLinks(f"owntracks:///config?url={quote(file, safe='')}", f"{base}/me#join={plain}")


@dataclass(frozen=True, slots=True)
class IngestKeyLinks:
    """Addresses that contain an ingest key: one for the QR scanner of Traccar Client, one for OsmAnd."""

    traccar: str
    osmand: str


def ingest_key_links(base: str, key: str) -> IngestKeyLinks:
    """The addresses for an ingest key.

    Traccar Client takes the server's URL and its identifier from the QR code. OsmAnd fills in the numbers;
    `{3}` is the accuracy in m.

    Args:
        base: public URL of the API, without a trailing slash.
        key: of the device.
    """
    link = f"{base}/v1/osmand?id={key}"
    fields = "&lat={0}&lon={1}&timestamp={2}&accuracy={3}&altitude={4}&bearing={6}"
    return IngestKeyLinks(link, link + fields)


def public_host(base: str) -> str:
    """The host in a URL.

    Raises:
        SettingsError: it is not a URL of a host.
    """
    try:
        parts = urlsplit(base)
        host = parts.hostname or ""
    except ValueError:
        parts, host = None, ""
    if parts is None or parts.scheme not in {"http", "https"} or _HOST.fullmatch(host) is None:
        raise SettingsError("public address", f"{base[:200]!r} is not of the form http(s)://HOST[:PORT]")
    return host


def owntracks_settings(redeemed: RedeemedLink, address: DeviceEndpoint) -> dict[str, Any]:
    """The settings of the app OwnTracks (an .otrc file) for a device.

    Source: OwnTracks booklet, tech/json, `_type=configuration`. The app sends with QoS 1 and retains nothing. It
    accepts no commands and subscribes to nothing, unless the link allows commands.
    """
    device, commands = redeemed.device, redeemed.phone.commands
    settings = {
        "_type": "configuration",
        "mode": HTTP_MODE if redeemed.phone.http else MQTT_MODE,
        "auth": True,
        "username": device.id,
        "password": redeemed.secret,
        "deviceId": DEVICE_NAME,
        "tid": device.id[:2],
        "cmd": commands,
        "remoteConfiguration": commands,
        "allowRemoteLocation": commands,
        "pubExtendedData": False,
        "monitoring": 2,
    }
    if redeemed.payload_key:
        settings["encryptionKey"] = redeemed.payload_key
    if redeemed.phone.http:
        return settings | {"url": f"{address.api}/v1/owntracks"}
    settings |= {
        "host": address.host,
        "port": address.mqtt_port,
        "mqttProtocolLevel": 4,
        "tls": address.tls,
        "ws": False,
        "clientId": device.id,
        "pubTopicBase": publish_topic(device.id),
        "pubQos": 1,
        "pubRetain": False,
        "willRetain": False,
        "cleanSession": True,
        "sub": commands,
        "keepalive": 60,
    }
    return settings | ({"subTopic": command_topic(device.id), "subQos": 1} if commands else {})


def owntracks_inline_link(redeemed: RedeemedLink, address: DeviceEndpoint) -> str:
    """A link that sets the app OwnTracks up on the phone that opens it; it contains the credentials."""
    settings = json.dumps(owntracks_settings(redeemed, address)).encode()
    return f"owntracks:///config?inline={quote(base64.b64encode(settings), safe='')}"


def qr_svg(text: str) -> str:
    """A QR code as SVG."""
    out = io.BytesIO()
    _qr_code(text, "m").save(out, kind="svg", scale=_SCALE, border=_BORDER, xmldecl=False)
    return out.getvalue().decode().strip()


def qr_file(text: str, path: str) -> None:
    """Write a QR code as SVG or PNG, by the ending of its name.

    Raises:
        SettingsError: the ending is different, or the file cannot be written.
    """
    if not path.lower().endswith((".svg", ".png")):
        raise SettingsError("--qr", f"{path}: the name must end with .svg or .png")
    try:
        _qr_code(text, "m").save(path, scale=_SCALE, border=_BORDER)
    except OSError as error:
        raise SettingsError("--qr", f"cannot write {path}: {error.strerror or error}") from error


def qr_text(text: str) -> str:
    """A QR code for a terminal with a dark background."""
    out = io.StringIO()
    _qr_code(text, "l").terminal(out, border=2, compact=True)
    return out.getvalue()


def _qr_code(text: str, error_correction: str) -> Any:
    import segno  # noqa: PLC0415  # only where a QR code is drawn

    return segno.make(text, error=error_correction, micro=False)
