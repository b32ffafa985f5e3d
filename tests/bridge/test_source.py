"""The source of a URL."""

from __future__ import annotations

import sys

import pytest

from bridge.reading import new_source
from headcount.bridge.source import source_options
from headcount.errors import SettingsError
from headcount.settings.bridge import BridgeSettings


@pytest.mark.parametrize(
    ("url", "module", "package", "extra"),
    [
        ("kafka://127.0.0.1/fixes", "kafka", "confluent_kafka", "kafka"),
        ("redis://127.0.0.1", "redis", "redis", "redis"),
        ("amqp://127.0.0.1", "amqp", "aio_pika", "amqp"),
        ("gtfs-rt+https://127.0.0.1/feed", "gtfs_realtime", "google.transit", "transit"),
    ],
)
def test_missing_package(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, package: str, extra: str
) -> None:
    """Without its package, a source names the command that installs it."""
    monkeypatch.delitem(sys.modules, f"headcount.bridge.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf"pip install 'headcount\[{extra}\]'"):
        new_source(url, topics="fixes")


def test_secrets_are_not_shown() -> None:
    """Neither the password nor the query of a URL is in the text of the options."""
    options = source_options(
        BridgeSettings(from_="gtfs-rt+https://ada:secret@127.0.0.1/feed?key=secret"), "x", ()
    )
    assert "secret" not in f"{options!r} {options.address}"
