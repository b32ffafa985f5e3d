"""The device registry: list, register, change, remove; tables, links and claim codes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from headcount.access.roles import Caller
from headcount.api.media_types import Csv, Json
from headcount.api.middleware.authorization import RequireScope
from headcount.api.middleware.site_access import KnownSiteId
from headcount.api.parameters import DeviceHandle
from headcount.api.public_url import checked_base_url
from headcount.api.schemas import devices, ingest
from headcount.api.schemas.problems import invalid
from headcount.api.state import ApiState, State
from headcount.devices import csv_table
from headcount.devices.device_fields import MAX_LABEL_CHARS
from headcount.devices.device_filter import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, DeviceFilter
from headcount.devices.provisioning import ingest_key_links, provisioning_links, qr_svg
from headcount.messages.records import Device, DeviceStatus, PhoneOptions
from headcount.messages.times import iso
from headcount.messages.topics import HANDLE_PATTERN, ID_PATTERN, Kind
from headcount.services.devices import device_as_json, page_as_json, secrets_table

#: The maximum number of devices of one import; larger ones are for the command line.
MAX_IMPORTED = 10_000
_CHUNK = 500

router = APIRouter(prefix="/v1/sites/{site}", tags=["devices"])
Reader = Annotated[Caller, Depends(RequireScope("devices:read"))]
Writer = Annotated[Caller, Depends(RequireScope("devices:write"))]


@router.get(
    "/devices",
    summary="List devices",
    response_model=devices.DeviceListResponse,
    response_description="A page of devices, ordered by id",
)
async def list_devices(
    site: KnownSiteId,
    state: State,
    _: Reader,
    kind: Annotated[Kind | None, Query(description="Only this kind.")] = None,
    status: Annotated[DeviceStatus | None, Query(description="Only with this status.")] = None,
    group: Annotated[
        str | None,
        Query(pattern=f"^{ID_PATTERN}$", description="Only members of this group.", examples=["staff"]),
    ] = None,
    text: Annotated[
        str | None,
        Query(max_length=MAX_LABEL_CHARS, description="Only labels that contain this text, in any case."),
    ] = None,
    after: Annotated[
        str, Query(pattern=f"^({HANDLE_PATTERN})?$", description="The page after this id.")
    ] = "",
    limit: Annotated[
        int, Query(ge=1, le=MAX_PAGE_SIZE, description="Maximum number of devices.")
    ] = DEFAULT_PAGE_SIZE,
) -> Json:
    """List a site's devices, filtered, a page at a time. Labels are personal data.

    A change shows here within a fraction of a second.
    """
    page = await state.services.devices.list(DeviceFilter(site, kind, status, group, text, after, limit))
    return Json(page_as_json(site, page, await state.services.bans.of_devices()))


@router.post(
    "/devices",
    status_code=201,
    summary="Register a device",
    response_model=devices.DeviceWithSecretResponse,
    response_description="The device, with its secret, which cannot be read again",
    openapi_extra={"x-problems": ["alias-taken"]},
)
async def create_device(site: KnownSiteId, body: devices.DeviceCreate, state: State, actor: Writer) -> Json:
    """Register a device. It gets an id and a secret: its MQTT user name and password."""
    fields = body.model_dump(exclude={"kind"})
    device, secret = await state.services.devices.add(actor, site, body.kind, **fields)
    location = f"/v1/sites/{site}/devices/{device.id}"
    return Json({**device_as_json(device), "secret": secret}, 201, {"location": location})


@router.get(
    "/devices.csv", summary="Export all devices as CSV", response_class=Csv, response_description="The table"
)
async def export_devices(site: KnownSiteId, state: State, actor: Reader) -> Response:
    """Export every device of a site as CSV. The audit log records it.

    A cell that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    lines = await state.services.devices.export_table(actor, site)
    named = {"content-disposition": f'attachment; filename="devices-{site}.csv"'}
    return StreamingResponse(_chunks(lines), media_type=Csv.media_type, headers=named)


def _chunks(lines: Iterator[str]) -> Iterator[str]:
    chunk: list[str] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == _CHUNK:
            yield "".join(chunk)
            chunk.clear()
    yield "".join(chunk)


@router.post(
    "/devices.csv",
    summary="Import devices from CSV",
    response_class=Csv,
    response_description="Ids and secrets, which cannot be read again",
    openapi_extra={
        "x-problems": ["alias-taken"],
        "requestBody": {
            "required": True,
            "content": {
                "text/csv": {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "kind,label,groups\r\nperson,Ada,staff\r\n",
                }
            },
        },
    },
)
async def import_devices(site: KnownSiteId, request: Request, state: State, actor: Writer) -> Csv:
    """Register up to 10 000 devices from CSV, all or none.

    The header names the columns: `kind` (`person` or `vehicle`) and any of `label`, `groups`, `aliases`,
    `gateway`, `firmware`, `app`. Separate several groups or aliases with semicolons. Columns of an export that
    headcount assigns are ignored.
    """
    text = csv_table.decode_table(await request.body())
    added = await state.services.devices.import_table(actor, site, text, MAX_IMPORTED)
    return Csv("".join(secrets_table(added)))


@router.post(
    "/claims",
    summary="Create claim codes for new devices",
    response_class=Csv,
    response_description="The codes, which cannot be read again",
)
async def create_claim_codes(
    site: KnownSiteId, body: devices.ClaimCodesCreate, request: Request, state: State, actor: Writer
) -> Csv:
    """Create codes that each register one new device of a kind in some groups, for the first person to use it.

    The answer is CSV, with the links of each code for the app OwnTracks and for the browser.
    """
    base = checked_base_url(request, state.settings)
    codes = await state.services.provisioning.claim_codes(
        actor, site, body.kind, body.count, body.groups, body.within_s, _phone(body.owntracks)
    )
    return Csv(csv_table.claim_codes_csv(codes, base, time.time() + body.within_s))


@router.get(
    "/devices/{device}",
    summary="Get a device",
    response_model=devices.DeviceResponse,
    response_description="The device",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def get_device(site: KnownSiteId, device: DeviceHandle, state: State, _: Reader) -> Json:
    """Return one registered device."""
    entry = await state.services.devices.get(device, site)
    return Json(await _shown(state, entry))


@router.patch(
    "/devices/{device}",
    summary="Change a device",
    response_model=devices.DeviceResponse,
    response_description="The changed device",
    openapi_extra={"x-problems": ["unknown-device", "alias-taken"]},
)
async def update_device(
    site: KnownSiteId, device: DeviceHandle, body: devices.DeviceUpdate, state: State, actor: Writer
) -> Json:
    """Change the given fields; disable, pause or enable the device with `status`.

    A disabled device is disconnected within 2 s, and its links end. A paused device may stay connected and is
    not counted.
    """
    entry = await state.services.devices.get(device, site)
    fields = {
        name: value
        for name, value in body.model_dump(exclude_unset=True).items()
        if name == "resume" or value is not None
    }
    if fields.get("resume") is not None:
        if fields.get("status", entry.status) != "paused":
            raise invalid("resume", "is only for a pause: set `status` to `paused`")
        if fields["resume"] <= time.time():
            raise invalid("resume", "is in the past")
    elif fields.get("status") is not None:
        fields["resume"] = None
    entry = await state.services.devices.change(actor, entry, **fields)
    return Json(await _shown(state, entry))


@router.delete(
    "/devices/{device}",
    summary="Remove a device",
    response_model=devices.DeviceResponse,
    response_description="The device is being erased",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def delete_device(site: KnownSiteId, device: DeviceHandle, state: State, actor: Writer) -> Json:
    """Reject the device from now on, and erase everything about it.

    Its label is erased immediately, its data in the log and the history within minutes.
    """
    entry = await state.services.devices.get(device, site)
    return Json(device_as_json(await state.services.devices.remove(actor, entry)))


@router.post(
    "/devices/{device}/rotate",
    summary="Replace a device's secret",
    response_model=devices.DeviceWithSecretResponse,
    response_description="The device, with its new secret, which cannot be read again",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def rotate_device(site: KnownSiteId, device: DeviceHandle, state: State, actor: Writer) -> Json:
    """Replace the secret.

    The old one, the ingest key, signed tokens and links are rejected, and connections with them close.
    """
    entry = await state.services.devices.get(device, site)
    entry, secret = await state.services.devices.rotate(actor, entry)
    return Json({**await _shown(state, entry), "secret": secret})


@router.post(
    "/devices/{device}/link",
    summary="Create a one-time link for a device",
    response_model=devices.LinkResponse,
    response_description="The link with QR codes, which cannot be read again",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def create_device_link(
    site: KnownSiteId,
    device: DeviceHandle,
    request: Request,
    state: State,
    actor: Writer,
    body: devices.LinkCreate | None = None,
) -> Json:
    """Create a link that gives its first user a new secret for this device; the old secret is rejected then."""
    entry = await state.services.devices.get(device, site)
    body = body or devices.LinkCreate()
    base = checked_base_url(request, state.settings)
    code = await state.services.provisioning.link(actor, entry, body.within_s, _phone(body.owntracks))
    links = provisioning_links(base, code)
    return Json(
        {
            "device": device,
            "code": code,
            "expires": iso(time.time() + body.within_s),
            "owntracks": {"link": links.owntracks, "qr_svg": qr_svg(links.owntracks)},
            "page": {"link": links.page, "qr_svg": qr_svg(links.page)},
        }
    )


@router.post(
    "/devices/{device}/key",
    summary="Create the key of a device's messages",
    response_model=devices.PayloadKeyResponse,
    response_description="The key, which cannot be read again",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def create_payload_key(site: KnownSiteId, device: DeviceHandle, state: State, actor: Writer) -> Json:
    """Replace the key with which a device encrypts its messages; from now on, others are rejected."""
    entry = await state.services.devices.get(device, site)
    return Json({"device": device, "key": await state.services.devices.create_payload_key(actor, entry)})


@router.delete(
    "/devices/{device}/key",
    status_code=204,
    summary="Remove the key of a device's messages",
    response_class=Response,
    response_description="Messages that are not encrypted are accepted",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def delete_payload_key(
    site: KnownSiteId, device: DeviceHandle, state: State, actor: Writer
) -> Response:
    """Remove the key, so that the device sends messages that are not encrypted."""
    entry = await state.services.devices.get(device, site)
    await state.services.devices.remove_payload_key(actor, entry)
    return Response(status_code=204)


def _phone(options: devices.OwnTracksOptions) -> PhoneOptions:
    return PhoneOptions(**options.model_dump())


@router.post(
    "/devices/{device}/ingest-key",
    status_code=201,
    summary="Create a device's ingest key",
    response_model=ingest.IngestKeyResponse,
    response_description="The key with its addresses, which cannot be read again",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def create_ingest_key(
    site: KnownSiteId, device: DeviceHandle, request: Request, state: State, actor: Writer
) -> Json:
    """Create a key with which OsmAnd or Traccar Client sends fixes of this device, and can do nothing else.

    An earlier key is rejected from now on. The device's secret stays valid.
    """
    base = checked_base_url(request, state.settings)
    entry = await state.services.devices.get(device, site)
    key = await state.services.devices.create_ingest_key(actor, entry)
    links = ingest_key_links(base, key)
    shown = {"device": device, "ingest_key": key, "link": links.traccar, "osmand": links.osmand}
    return Json({**shown, "qr_svg": qr_svg(links.traccar)}, 201)


@router.delete(
    "/devices/{device}/ingest-key",
    status_code=204,
    summary="Revoke a device's ingest key",
    response_class=Response,
    response_description="The key is rejected from now on",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def delete_ingest_key(site: KnownSiteId, device: DeviceHandle, state: State, actor: Writer) -> Response:
    """Reject the device's ingest key from now on; its secret stays valid."""
    entry = await state.services.devices.get(device, site)
    await state.services.devices.remove_ingest_key(actor, entry)
    return Response(status_code=204)


async def _shown(state: ApiState, entry: Device) -> dict[str, Any]:
    seen = await state.services.devices.last_seen(entry.id)
    return device_as_json(entry, seen, (await state.services.bans.of_devices()).get(entry.id))
