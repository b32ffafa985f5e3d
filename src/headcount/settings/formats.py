"""Texts with a format: each a check and, for the error, what a valid value looks like."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

from headcount.messages.topics import ID

Address = tuple[str, int]

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::(\d{1,5}))?")


class TextFormat(NamedTuple):
    """The required format of a text."""

    is_valid: Callable[[str], bool]
    name: str
    #: An example or a rule for a valid value; continues "use …".
    rule: str
    #: Stands for the value in `--help`.
    metavar: str


def local_host(host: str) -> str:
    """The address at which a server that listens on `host` is reached from its own machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def joined(*addresses: Address) -> str:
    """Addresses as a setting holds them: `host:port,[::1]:port`."""
    return ",".join(f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in addresses)


def split(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def addresses(text: str, default_port: int) -> tuple[Address, ...]:
    """Parse `host:port,host`.

    Raises:
        ValueError: if one of them is not an address.
    """
    return tuple(_address(part, default_port) for part in split(text))


def _address(text: str, default_port: int) -> Address:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match[2] or default_port) <= 65_535:
        raise ValueError(text)
    host = match[1].strip("[]")
    if match[1].startswith("["):
        ipaddress.IPv6Address(host)
    return host, int(match[2] or default_port)


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def is_valid(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return is_valid


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


def _is_mount(text: str) -> bool:
    parts = text.split(":")
    return 2 <= len(parts) <= 3 and parts[1].startswith("/")


NAME = TextFormat(lambda text: ID.fullmatch(text) is not None, "name", "1 to 64 of A-Z a-z 0-9 _ -", "NAME")
HOST = TextFormat(_matches(r"[0-9A-Za-z.:_-]+"), "host name or IP address", "", "HOST")
ADDRESSES = TextFormat(
    _parses(lambda text: addresses(text, 1)),
    "list of addresses",
    "HOST:PORT, separated by commas",
    "HOST:PORT,…",
)
NETWORKS = TextFormat(
    _parses(lambda text: [ipaddress.ip_network(part, strict=False) for part in split(text)]),
    "list of networks",
    "10.0.0.0/8,fd00::/8",
    "NETWORK,…",
)
_URL = r"https?://[0-9A-Za-z.:\[\]-]+"
ORIGINS = TextFormat(
    lambda text: all(re.fullmatch(_URL, part) for part in split(text)),
    "list of origins",
    "https://HOST or http://HOST:PORT, separated by commas",
    "ORIGIN,…",
)
PUBLIC_URL = TextFormat(
    _matches(rf"{_URL}/?"),
    "URL",
    "https://HOST or http://HOST:PORT, without a path",
    "URL",
)
ISSUER = TextFormat(
    _matches(r"(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]).*"),
    "issuer",
    "https://…, or http:// on this machine only",
    "URL",
)
S3_SCHEME = "s3://"
HISTORY_PLACE = TextFormat(
    _matches(r"/.*|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9/_.=-]*)?"),
    "place for the history",
    "s3://BUCKET/PREFIX, or the absolute path of a folder",
    "PLACE",
)
BRIDGE_URL = TextFormat(
    _matches(r"(mqtts?|amqps?|kafkas?|rediss?|gtfs-rt\+https?)://[!-~]+"),
    "URL",
    "mqtt://HOST:PORT, mqtts://, amqp://, amqps://, kafka://, kafkas://, redis://, rediss:// or gtfs-rt+https://",
    "URL",
)
MOUNTS = TextFormat(
    lambda text: all(_is_mount(part) for part in split(text)),
    "list of mounts",
    "FROM:TO or FROM:TO:ro, separated by commas",
    "FROM:TO,…",
)
