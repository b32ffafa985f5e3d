"""The registry of devices over HTTP: list, add, change, remove; links, claim codes and tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection

from headcount.access.roles import Caller
from headcount.api.middleware.authentication import base_url
from headcount.api.middleware.authorization import Require
from headcount.api.parameters import SiteId
from headcount.api.routes.sites import Json
from headcount.api.schemas import devices
from headcount.api.schemas.examples import failures, success
from headcount.api.schemas.problems import ALIAS_TAKEN, INVALID, UNKNOWN_DEVICE, ProblemError, invalid
from headcount.api.services import Parts, known_site, parts_of
from headcount.devices import csv_table
from headcount.devices.device_fields import CHANGEABLE, MAX_LABEL_CHARS
from headcount.devices.device_filter import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, DeviceFilter
from headcount.devices.provisioning import DeviceEndpoint, provisioning_links, public_host, qr_svg
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.devices.registry import unknown_device
from headcount.errors import AliasTakenError, DeviceError, LogError, SettingsError, UnknownDeviceError
from headcount.messages.records import Device, DeviceStatus
from headcount.messages.times import iso
from headcount.messages.topics import HANDLE_PATTERN, ID_PATTERN, Kind

#: Devices of one import: beyond it, the command line is the place.
MOST_IMPORTED = 10_000
_CHUNK = 500
CSV = "text/csv; charset=utf-8"

router = APIRouter(prefix="/v1/sites/{site}", tags=["devices"])
Running = Annotated[Parts, Depends(parts_of)]
Reader = Annotated[Caller, Depends(Require("devices:read"))]
Writer = Annotated[Caller, Depends(Require("devices:write"))]
DeviceHandle = Annotated[
    str,
    Path(pattern=f"^{HANDLE_PATTERN}$", description="The device's id.", examples=["k3qv7m2xw5yd4hbt6zra"]),
]
_ONE = ("unknown-site", "unknown-device", "invalid-parameter")


class Csv(Response):
    """A table (RFC 4180)."""

    media_type = CSV


@router.get(
    "/devices",
    summary="Registered devices",
    response_model=devices.RegisteredPageShape,
    responses={
        **success("A page of them, in the order of their ids", devices.REGISTERED_PAGE),
        **failures("unknown-site", "invalid-parameter"),
    },
)
async def listed(
    site: SiteId,
    parts: Running,
    _: Reader,
    kind: Annotated[Kind | None, Query(description="Only this kind.")] = None,
    status: Annotated[DeviceStatus | None, Query(description="Only with this status.")] = None,
    group: Annotated[
        str | None,
        Query(pattern=f"^{ID_PATTERN}$", description="Only those in this group.", examples=["staff"]),
    ] = None,
    text: Annotated[
        str | None,
        Query(max_length=MAX_LABEL_CHARS, description="Only with this in the label, whatever its case."),
    ] = None,
    after: Annotated[
        str, Query(pattern=f"^({HANDLE_PATTERN})?$", description="The page after this id.")
    ] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Devices at most.")] = DEFAULT_PAGE_SIZE,
) -> Json:
    """Devices of a site, filtered, a page at a time. Labels are personal data.

    A change shows here within a fraction of a second.
    """
    known_site(parts, site)
    wanted = DeviceFilter(site, kind, status, group, text, after, limit)
    page = _directory(parts).list(wanted)
    return _json(devices.told_page(site, page))


@router.post(
    "/devices",
    status_code=201,
    summary="Register a device",
    response_model=devices.WithSecretShape,
    responses={
        201: success("It is registered; its secret is told here and never again", devices.WITH_SECRET)[200],
        **failures("unknown-site", "invalid-parameter", "alias-taken"),
    },
)
async def added(site: SiteId, body: devices.NewDevice, parts: Running, who: Writer) -> Json:
    """Register a device: it gets an id and a secret, its MQTT user name and password."""
    known_site(parts, site)
    fields = body.model_dump(exclude={"kind"})
    try:
        device, secret = await parts.registry.add(site, body.kind, **fields)
    except DeviceError as error:
        raise _problem(error) from error
    try:
        await _note(parts, who, "device.add", device)
    except LogError:
        await parts.registry.forget(device.id)
        raise
    location = f"/v1/sites/{site}/devices/{device.id}"
    return _json({**devices.told(device), "secret": secret}, 201, {"location": location})


@router.get(
    "/devices.csv",
    summary="All registered devices as a table",
    response_class=Csv,
    responses={**success("The table", devices.TABLE, CSV), **failures("unknown-site")},
)
async def exported(site: SiteId, parts: Running, who: Reader) -> Response:
    """Every device of a site, as CSV. It goes into the audit log.

    A cell that a spreadsheet would take for a formula has an apostrophe before it.
    """
    known_site(parts, site)
    directory = _directory(parts)
    devices = [device for device in directory.all() if device.site == site]
    seen = dict(directory.seen)
    await parts.audit.record("device.export", who.subject, "", {"site": site, "devices": len(devices)})

    def chunks() -> Iterator[str]:
        lines: list[str] = []
        for line in csv_table.export_devices(devices, seen):
            lines.append(line)
            if len(lines) == _CHUNK:
                yield "".join(lines)
                lines.clear()
        yield "".join(lines)

    named = {"content-disposition": f'attachment; filename="devices-{site}.csv"'}
    return StreamingResponse(chunks(), media_type=Csv.media_type, headers=named)


@router.post(
    "/devices.csv",
    summary="Register the devices of a table",
    response_class=Csv,
    responses={
        **success("Their ids and secrets: told here and never again", devices.SECRETS_TABLE, CSV),
        **failures("unknown-site", "invalid-parameter", "alias-taken"),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "text/csv": {
                    "schema": {"type": "string"},
                    "example": "kind,label,groups\r\nperson,Ada,staff\r\n",
                }
            },
        }
    },
)
async def imported(site: SiteId, request: Request, parts: Running, who: Writer) -> Csv:
    """Register up to 10 000 devices from CSV, all or none.

    The header names the columns: `kind` (`person` or `vehicle`) and any of `label`, `groups`, `aliases`,
    `gateway`, `firmware`, `app`; several groups or aliases have semicolons between. Columns of an export that
    are ours to give are read past.
    """
    known_site(parts, site)
    try:
        text = (await request.body()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid("body", f"is no UTF-8: {error.reason} at byte {error.start}") from error
    try:
        rows = csv_table.parse_devices(text, site, MOST_IMPORTED)
        await parts.audit.record("device.import", who.subject, "", {"site": site, "devices": len(rows)})
        given = await csv_table.import_devices(parts.registry, site, rows)
    except DeviceError as error:
        raise _problem(error, "body") from error
    lines = [csv_table.csv_line(csv_table.SECRET_COLUMNS)]
    lines += [csv_table.csv_line((device.id, secret, device.label)) for device, secret in given]
    return Csv("".join(lines))


@router.post(
    "/claims",
    summary="Claim codes for new devices",
    response_class=Csv,
    responses={
        **success("The codes: told here and never again", devices.CODES_TABLE, CSV),
        **failures("unknown-site", "invalid-parameter"),
    },
)
async def claimed(
    site: SiteId, body: devices.ClaimsWish, request: Request, parts: Running, who: Writer
) -> Csv:
    """Codes of which each registers one new device of a kind and in some groups, once, for whoever shows it.

    As CSV, with the links of each for the app OwnTracks and for the browser.
    """
    known_site(parts, site)
    detail: dict[str, Any] = {
        "site": site,
        "kind": body.kind,
        "codes": body.count,
        "groups": " ".join(body.groups),
    }
    base = _base(request, parts)
    try:
        await parts.audit.record("device.claims", who.subject, "", detail)
        codes = await parts.links.create_claim_codes(site, body.kind, body.count, body.groups, body.within_s)
    except DeviceError as error:
        raise _problem(error) from error
    return Csv(csv_table.claim_codes_csv(codes, base, time.time() + body.within_s))


@router.get(
    "/devices/{device}",
    summary="A registered device",
    response_model=devices.RegisteredShape,
    responses={**success("The device", devices.REGISTERED), **failures(*_ONE)},
)
async def shown(site: SiteId, device: DeviceHandle, parts: Running, _: Reader) -> Json:
    """One device, as it is registered."""
    entry = await _known(parts, site, device)
    return _json(devices.told(entry, parts.directory.seen.get(device)))


@router.patch(
    "/devices/{device}",
    summary="Change a device",
    response_model=devices.RegisteredShape,
    responses={
        **success("As it is now", devices.REGISTERED),
        **failures(*_ONE, "alias-taken"),
    },
)
async def changed(
    site: SiteId,
    device: DeviceHandle,
    body: devices.DeviceChange,
    parts: Running,
    who: Writer,
) -> Json:
    """Change what is named; disable, pause or enable it with `status`.

    A device that is disabled is out within 2 s, and links to it end. One that is paused may stay connected and
    isn't counted.
    """
    entry = await _known(parts, site, device)
    fields = {
        name: value
        for name, value in body.model_dump(exclude_unset=True).items()
        if name == "resume" or value is not None
    }
    if fields.get("resume") is not None:
        if fields.get("status", entry.status) != "paused":
            raise invalid("resume", "is for a pause: set `status` to `paused`")
        if fields["resume"] <= time.time():
            raise invalid("resume", "is over already")
    elif fields.get("status") is not None:
        fields["resume"] = None
    detail = {"fields": " ".join(sorted(fields)), "status": fields.get("status", entry.status)}
    await _note(parts, who, "device.change", entry, detail)
    try:
        entry = await parts.registry.change(device, **fields)
    except DeviceError as error:
        raise _problem(error) from error
    return _json(devices.told(entry, parts.directory.seen.get(device)))


@router.delete(
    "/devices/{device}",
    summary="Remove a device",
    response_model=devices.RegisteredShape,
    responses={**success("It is being erased", devices.ERASING), **failures(*_ONE)},
)
async def removed(site: SiteId, device: DeviceHandle, parts: Running, who: Writer) -> Json:
    """Let it in no more, and erase what is kept of it, from history and log as well, within minutes.

    Its name is gone at once.
    """
    entry = await _known(parts, site, device)
    await _note(parts, who, "device.remove", entry)
    try:
        entry = await parts.registry.remove(device)
    except DeviceError as error:
        raise _problem(error) from error
    return _json(devices.told(entry))


@router.post(
    "/devices/{device}/rotate",
    summary="A new secret for a device",
    response_model=devices.WithSecretShape,
    responses={
        **success("The device with its new secret, told here and never again", devices.WITH_SECRET),
        **failures(*_ONE),
    },
)
async def rotated(site: SiteId, device: DeviceHandle, parts: Running, who: Writer) -> Json:
    """The old secret, signed tokens and links are refused from now on; a connection with them is cut."""
    entry = await _known(parts, site, device)
    await _note(parts, who, "device.rotate", entry)
    try:
        entry, secret = await parts.registry.rotate(device)
    except DeviceError as error:
        raise _problem(error) from error
    return _json({**devices.told(entry, parts.directory.seen.get(device)), "secret": secret})


@router.post(
    "/devices/{device}/link",
    summary="A one-time link for a device",
    response_model=devices.LinkShape,
    responses={
        **success("The link, with QR codes: told here and never again", devices.LINK),
        **failures(*_ONE),
    },
)
async def linked(
    site: SiteId,
    device: DeviceHandle,
    request: Request,
    parts: Running,
    who: Writer,
    body: devices.LinkWish | None = None,
) -> Json:
    """A link that gives whoever opens it first a new secret for this device; the old one is refused then."""
    entry = await _known(parts, site, device)
    within_s = (body or devices.LinkWish()).within_s
    base = _base(request, parts)
    await _note(parts, who, "device.link", entry, {"within_s": within_s})
    try:
        code, _ = await parts.links.create_link(device, within_s)
    except DeviceError as error:
        raise _problem(error) from error
    links = provisioning_links(base, code)
    return _json(
        {
            "device": device,
            "code": code,
            "expires": iso(time.time() + within_s),
            "owntracks": {"link": links.owntracks, "qr_svg": qr_svg(links.owntracks)},
            "page": {"link": links.page, "qr_svg": qr_svg(links.page)},
        }
    )


def address_of(connection: HTTPConnection, parts: Parts) -> DeviceEndpoint:
    """Where the sender of a request reaches the broker: on the machine that they asked.

    Raises:
        ProblemError: `bad-request`, the request doesn't name a machine.
    """
    sources = parts.sources
    return DeviceEndpoint(
        public_host(_base(connection, parts)), sources.mqtt_port, sources.ws_port, sources.https
    )


def _base(connection: HTTPConnection, parts: Parts) -> str:
    base = base_url(connection, parts.sources.public_url)
    try:
        public_host(base)
    except SettingsError as error:
        raise invalid("host", "the header Host names no machine") from error
    return base


def _directory(parts: Parts) -> Any:
    if not parts.directory.ready.is_set():
        raise LogError("the registry hasn't been read yet")
    return parts.directory


async def _known(parts: Parts, site: str, id_: str) -> Device:
    known_site(parts, site)
    device = await parts.registry.get(id_)
    if device is None or device.site != site or device.status == "erasing":
        raise _problem(unknown_device(id_))
    return device


async def _note(
    parts: Parts, who: Caller, action: str, device: Device, detail: dict[str, Any] | None = None
) -> None:
    """Write down who does what, before it is done; without ids and names."""
    subject = await daily_pseudonym(parts.nats, device.kind, device.id)
    await parts.audit.record(action, who.subject, subject, {"site": device.site, **(detail or {})})


def _problem(error: DeviceError, parameter: str = "") -> ProblemError:
    if isinstance(error, UnknownDeviceError):
        return ProblemError(UNKNOWN_DEVICE, f"{error.device} {error.problem}.")
    if isinstance(error, AliasTakenError):
        return ProblemError(ALIAS_TAKEN, f"{error}.")
    return ProblemError(INVALID, f"{error}.", parameter=parameter or _field(error))


def _field(error: DeviceError) -> str:
    return error.device if error.device in CHANGEABLE else "body"


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Json:
    return Json(msgspec.json.encode(content), status, headers)
