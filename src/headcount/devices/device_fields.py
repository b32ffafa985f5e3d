"""The changeable fields of a device and their limits; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from headcount.decoders.plugins import installed
from headcount.errors import DeviceError
from headcount.messages.records import Device
from headcount.messages.topics import HANDLE, ID, KINDS

MAX_LABEL_CHARS = 100
MAX_GROUPS, MAX_ALIASES = 20, 10
#: Of an alias, and of the names of a firmware and an app.
MAX_TEXT_CHARS = 128
#: The other fields are derived from these, or never change.
CHANGEABLE = ("label", "groups", "aliases", "gateway", "firmware", "app", "certificate", "status", "resume")
#: Names in shipped formats: the topic of OwnTracks without wildcards, and the `id` of `…-iotp`.
_ALIAS = re.compile(r"owntracks/[^/+#]+/[^/+#]+|iotp/.+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def apply_changes(device: Device, fields: dict[str, Any]) -> Device:
    """The device with new values for some of `CHANGEABLE`.

    Raises:
        DeviceError: a value is not valid.
    """
    for name in fields:
        if name not in CHANGEABLE:
            raise DeviceError(f"field {name!r}", "cannot be changed", f"Use {', '.join(CHANGEABLE)}")
    if fields.get("status") == "erasing":
        raise DeviceError("status", "cannot be set to 'erasing'", "Remove the device instead")
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    try:  # checks the types as for data from outside
        device = msgspec.convert(msgspec.to_builtins(device) | fields, Device)
    except msgspec.ValidationError as error:
        raise DeviceError(f"device {device.id}", str(error), "See docs/guides/devices.md") from error
    _validate(device)
    if "aliases" in fields:  # a device keeps those that it was given before they were checked
        _check_aliases(device.aliases)
    return device


def _validate(device: Device) -> None:
    if device.kind not in KINDS or ID.fullmatch(device.site) is None or HANDLE.fullmatch(device.id) is None:
        raise DeviceError(f"device {device.id[:64]!r}", "site, kind or id is not valid", "Correct them")
    _check_text("label", device.label, MAX_LABEL_CHARS)
    _check_text("firmware", device.firmware, MAX_TEXT_CHARS)
    _check_text("app", device.app, MAX_TEXT_CHARS)
    _check_list("groups", device.groups, MAX_GROUPS)
    _check_list("aliases", device.aliases, MAX_ALIASES)
    if any(ID.fullmatch(group) is None for group in device.groups):
        raise DeviceError("groups", "a group has 1 to 64 of A-Z a-z 0-9 _ -", "Choose other names")
    if device.certificate and _SHA256.fullmatch(device.certificate) is None:
        raise DeviceError("certificate", "not a SHA-256 of 64 hexadecimal digits", "Use `headcount ca`")


def _check_aliases(aliases: Sequence[str]) -> None:
    """Refuse an alias that is the name of no message: it would have no effect."""
    for alias in aliases:
        if not _ALIAS.fullmatch(alias) and not _is_of_plugin(alias):
            raise DeviceError(
                "aliases", f"{alias!r} matches no message", "Use owntracks/USER/DEVICE or iotp/ID"
            )


def _is_of_plugin(alias: str) -> bool:
    """Whether an alias is a name in the format of an installed package."""
    format_, _, name = alias.partition("/")
    return bool(name) and any(format_ == plugin.name for plugin in installed()[0])


def _check_list(name: str, values: Sequence[str], max_length: int) -> None:
    if len(values) > max_length:
        raise DeviceError(name, f"{len(values)} values, the maximum is {max_length}", "Use fewer")
    if len(set(values)) < len(values):
        raise DeviceError(name, "contains a duplicate", "List each value once")
    for value in values:
        if not value:
            raise DeviceError(name, "contains an empty value", "Remove it")
        _check_text(name, value, MAX_TEXT_CHARS)


def _check_text(name: str, text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise DeviceError(name, f"{len(text)} characters, the maximum is {max_chars}", "Shorten it")
    if not text.isprintable():
        remedy = "Use letters, digits, punctuation and spaces"
        raise DeviceError(name, "contains characters that are not printable", remedy)
    if text != text.strip():
        raise DeviceError(name, "starts or ends with a space", "Remove it")
