"""Commands in the format of OwnTracks, and the regions of a site."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
import shapely

from headcount.counting.site import Site
from headcount.devices.commands import validate_command
from headcount.devices.owntracks_commands import (
    HTTP_MODE,
    MQTT_MODE,
    answered_s,
    is_answered,
    owntracks_messages,
    require_support,
)
from headcount.devices.owntracks_regions import MAX_REGIONS, site_regions
from headcount.errors import DeviceError
from headcount.messages.commands import CommandKind
from headcount.messages.records import Device, DeviceCommand
from headcount.sites.files import bundled_site, load_site

REPORT = {"_type": "cmd", "action": "reportLocation"}
UL = load_site(bundled_site("ul"))
PHONE = Device(id="k7wqz2mfa5ujxh3teyn4", site="ul", kind="person", app="owntracks 18.2")


def command(kind: CommandKind, **fields: Any) -> DeviceCommand:
    """A command to a phone."""
    return DeviceCommand(
        id="0" * 16,
        device=PHONE.id,
        kind="person",
        site="ul",
        command=kind,
        created=0.0,
        expires=1.0,
        **fields,
    )


def test_each_command_requests_a_location() -> None:
    """Each command ends with reportLocation, whose answer confirms it."""
    for each in (
        command("report"),
        command("interval", interval_s=60.0),
        command("message", text="hello"),
        command("zones", regions=site_regions(UL)),
        command("clear_zones"),
    ):
        assert owntracks_messages(each, MQTT_MODE)[-1] == REPORT
    assert owntracks_messages(command("report"), MQTT_MODE) == [REPORT]


@pytest.mark.parametrize("mode", [MQTT_MODE, HTTP_MODE])
def test_an_interval_is_a_configuration(mode: int) -> None:
    """An interval is a configuration with the app's own mode, without which iOS ignores it."""
    [first, _] = owntracks_messages(command("interval", interval_s=60.4), mode)
    assert (first["_type"], first["action"]) == ("cmd", "setConfiguration")
    assert first["configuration"] == {
        "_type": "configuration",
        "mode": mode,
        "locatorInterval": 60,
        "moveModeLocatorInterval": 60,
    }


def test_zones_are_waypoints() -> None:
    """The site is the first region, each region contains its zone, and all have their own id and time."""
    regions = site_regions(UL)
    assert len(regions) == min(MAX_REGIONS, len(UL.zones))
    assert regions[0].name == f"{UL.name}|2|0"
    [first, _] = owntracks_messages(command("zones", regions=regions), MQTT_MODE)
    waypoints = first["waypoints"]["waypoints"]
    assert first["waypoints"]["_type"] == "waypoints"
    assert {waypoint["_type"] for waypoint in waypoints} == {"waypoint"}
    for key in ("rid", "tst"):
        assert len({waypoint[key] for waypoint in waypoints}) == len(waypoints)
    assert all(":" not in waypoint["desc"] for waypoint in waypoints)
    assert len(json.dumps(first)) < 8192  # far below what MQTT and the apps accept
    for zone in UL.zones:
        mine = [each for each in regions if each.name.split("|")[0] == zone.name]
        assert all(_contains(UL, each.lat, each.lon, each.radius_m, zone.plane) for each in mine[:1])
    assert regions == site_regions(UL)


def _contains(site: Site, lat: float, lon: float, radius_m: float, plane: Any) -> bool:
    x_m, y_m = site.project(lat, lon)  # type: ignore[arg-type]  # numbers work as well as arrays
    corners = shapely.get_coordinates(plane)
    return all(math.dist((x_m, y_m), corner) <= radius_m + 1 for corner in corners)


def test_commands_that_an_app_does_not_have() -> None:
    """OwnTracks has no pause; regions are for OwnTracks alone."""
    other = Device(id=PHONE.id, site="ul", kind="person", app="something else")
    refused = [
        ("pause", PHONE),
        ("zones", other),
        ("clear_zones", other),
        ("zones", None),
        ("clear_zones", None),
    ]
    for kind in get_args(CommandKind):
        for device in (PHONE, other, None):
            if (kind, device) in refused:
                with pytest.raises(DeviceError):
                    require_support(kind, device)
            else:
                require_support(kind, device)


@pytest.mark.parametrize(
    ("payload", "made_s"),
    [
        ({"_type": "location", "t": "r", "tst": 5}, 5),
        ({"_type": "location", "t": "r", "tst": 5, "created_at": 9}, 9),
        ([{"_type": "location", "t": "r", "tst": 5}, {"_type": "location", "t": "r", "tst": 7}], 7),
        ({"_type": "location", "t": "u", "tst": 5}, None),
        ({"_type": "transition", "t": "r", "tst": 5}, None),
        ({"_type": "location", "t": "r"}, None),
        ({"_type": "location", "t": "r", "tst": "x"}, None),
        ([1, None, "r"], None),
    ],
)
def test_answers(payload: Any, made_s: float | None) -> None:
    """A location with the trigger `r` is an answer, made at `created_at`, or else at the time of the position."""
    assert answered_s(json.dumps(payload).encode()) == made_s


def test_payloads_that_are_no_answer() -> None:
    """Any bytes are no answer rather than an error."""
    for payload in (b"", b"\xff", b"[" * 60_000, b"7"):
        assert answered_s(payload) is None


def test_only_a_later_location_is_an_answer() -> None:
    """A location that was made before the command was sent does not confirm it; the phone's clock may differ."""
    assert is_answered(1000.0, 1000.0)
    assert is_answered(1000.0, 985.0)
    assert not is_answered(1000.0, 900.0)
    assert not is_answered(-math.inf, 1000.0)


def test_a_command_of_zones_needs_regions() -> None:
    """A command of zones without regions is refused, and so are regions with another command."""
    regions = site_regions(UL)[:1]
    validate_command(command("zones", regions=regions))
    for wrong in (command("zones"), command("report", regions=regions)):
        with pytest.raises(DeviceError):
            validate_command(wrong)
