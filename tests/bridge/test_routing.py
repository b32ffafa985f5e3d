"""Where messages of a source go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.adapters.translator import topic_of
from headcount.bridge.routing import FOREIGN, LOG, Route, Router
from headcount.decoders.formats import SHIPPED
from headcount.devices.registry_cache import RegistryCache
from headcount.messages.records import Device
from headcount.messages.topics import subject_of

ACTIVE, PAUSED, GONE = "a" * 20, "b" * 20, "c" * 20


def router(*, accounts: bool = True) -> Router:
    """A router of a deployment with two devices."""
    devices = RegistryCache()
    devices.put(Device(id=ACTIVE, site="ul", kind="person"))
    devices.put(Device(id=PAUSED, site="ul", kind="person", status="paused"))
    return Router(devices, SHIPPED, 100, accounts=accounts)


@pytest.mark.parametrize(
    ("topic", "route"),
    [
        ("headcount/ul/person/x/fix", Route("headcount.ul.person.x.fix", LOG)),
        ("headcount/ul/vehicle/x-1/status", Route("headcount.ul.vehicle.x-1.status", LOG)),
        (f"headcount/ul/person/{ACTIVE}/fix", Route(f"headcount.ul.person.{ACTIVE}.fix", LOG)),
        (f"headcount/ul/vehicle/{ACTIVE}/fix", Route("", "not_its_topic")),
        (f"headcount/other/person/{ACTIVE}/fix", Route("", "not_its_topic")),
        (f"headcount/ul/person/{PAUSED}/fix", Route("", "paused")),
        (f"headcount/ul/person/{GONE}/fix", Route("", "unregistered")),
        ("owntracks/jane.doe/phone", Route("owntracks.jane//doe.phone", FOREIGN)),
        ("car-iotp", Route("car-iotp", FOREIGN)),
        ("headcount/ul/person/x/ack", Route("", "topic")),
        ("headcount/ul/robot/x/fix", Route("", "topic")),
        ("headcount/ul/person/x y/fix", Route("", "topic")),
        ("headcount/ul/counts/library", Route("", "topic")),
        ("fix/0/ul/person/x", Route("", "topic")),
        ("$MQTT/msgs/fix/0/ul/person/x", Route("", "topic")),
        ("owntracks/jane/a b", Route("", "topic")),
        ("owntracks/jane/*", Route("", "topic")),
        ("", Route("", "topic")),
    ],
)
def test_topics(topic: str, route: Route) -> None:
    """Fixes and statuses go to the log, other formats to decoders, everything else nowhere, with a reason."""
    assert router().route(topic, b"{}") == route


def test_without_accounts_any_id_is_a_device() -> None:
    """Where devices need no account, an id of the form of a registered one needs no registration."""
    assert router(accounts=False).route(f"headcount/ul/person/{GONE}/fix", b"{}").what == LOG


def test_large_messages_are_ignored() -> None:
    """A message that the log would refuse for ever does not stop the others."""
    assert router().route("headcount/ul/person/x/fix", b"x" * 101) == Route("", "too_large")


@given(st.text())
def test_topics_survive_the_way_to_the_decoder(topic: str) -> None:
    """The role `adapters` reads the same topic from the subject; a topic without a subject has none."""
    subject = subject_of(topic)
    if subject is not None:
        assert topic_of(subject) == topic
        assert " " not in subject
