"""The settings of a bridge, read."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from headcount.bridge.source import open_source, source_options
from headcount.cli.main import main
from headcount.decoders.formats import SHIPPED
from headcount.errors import SettingsError
from headcount.settings.bridge import BridgeSettings

SECRET = "p%40ss-word"  # noqa: S105


def test_a_password_is_read_from_the_url_or_a_file(tmp_path: Path) -> None:
    """User and password come from the URL, or from settings, which win."""
    settings = BridgeSettings(from_=f"mqtt://ada:{SECRET}@broker.example")
    options = source_options(settings, "x", SHIPPED)
    assert (options.user, options.password) == ("ada", "p@ss-word")
    file = tmp_path / "password"
    file.write_text("another\n")
    settings = BridgeSettings(from_=f"mqtt://ada:{SECRET}@broker.example", user="eve", password_file=file)
    options = source_options(settings, "x", SHIPPED)
    assert (options.user, options.password) == ("eve", "another")


def test_no_text_shows_the_password(caplog: pytest.LogCaptureFixture) -> None:
    """Representations, addresses and errors of settings do not contain the password."""
    settings = BridgeSettings(from_=f"mqtt://ada:{SECRET}@broker.example:1884/?x=1", share="group")
    options = source_options(settings, "x", SHIPPED)
    with caplog.at_level(logging.DEBUG):
        open_source(options)
    assert options.address == "mqtt://broker.example:1884"
    for text in (repr(options), options.address, repr(settings), caplog.text):
        assert "ss-word" not in text
    for url in (f"http://ada:{SECRET}@host", f"mqtt://ada:{SECRET}@host:99999"):
        result = CliRunner().invoke(main, ["run", "bridge", "--from", url])
        assert result.exit_code != 0
        assert "ss-word" not in result.output + str(result.exception)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "bridge.from: is not set"),
        ({"from_": "mqtt://host:99999"}, "bridge.from: is not a valid URL"),
        (
            {"from_": "mqtt://host", "password_file": Path("/nowhere/password")},
            "bridge.password_file: .* read",
        ),
    ],
)
def test_errors_name_the_setting(settings: dict[str, str], problem: str) -> None:
    """A setting that cannot be used is named."""
    with pytest.raises(SettingsError, match=problem):
        source_options(BridgeSettings(**settings), "x", SHIPPED)  # type: ignore[arg-type]


def test_certificate_and_key_belong_together() -> None:
    """A client certificate needs its key."""
    with pytest.raises(SettingsError, match=r"bridge\.key: is not set"):
        BridgeSettings(from_="mqtts://host", cert=Path("client.crt"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package for a source, the error has the command that installs it."""
    monkeypatch.setitem(sys.modules, "aio_pika", None)
    monkeypatch.delitem(sys.modules, "headcount.bridge.amqp", raising=False)
    options = source_options(BridgeSettings(from_="amqp://host"), "x", SHIPPED)
    with pytest.raises(SettingsError, match=r"pip install 'headcount\[amqp\]'"):
        open_source(options)
