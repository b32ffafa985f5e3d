"""Credentials of a device, in files and links."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given

from device.test_policy import JSON
from headcount.cli.main import main
from headcount.device import DeviceClient, credentials_of, read_credentials, write_credentials
from headcount.device.credentials import _base_and_code
from headcount.device.run import account
from headcount.errors import DeviceLibraryError

ADDED = {
    "id": "kfuq5s4tg76xpegpj55c",
    "secret": "ftju72wn3u3goqz5",
    "site": "ul",
    "kind": "person",
    "groups": [],
}
PROVISIONED = {
    "device": "kfuq5s4tg76xpegpj55c",
    "secret": "ftju72wn3u3goqz5",
    "site": "ul",
    "kind": "person",
    "topic": "headcount/ul/person/kfuq5s4tg76xpegpj55c",
    "mqtt": {"host": "count.example.org", "port": 8883, "tls": True},
    "websocket": "wss://count.example.org:9443/mqtt",
    "owntracks": "owntracks:///config?inline=e30",
}


def test_credentials_of_the_command_line_and_of_a_link(tmp_path: Path) -> None:
    """The JSON of both forms is read, and a file that the library writes gives the same credentials."""
    added, provisioned = credentials_of(ADDED, "test"), credentials_of(PROVISIONED, "test")
    assert (added.host, added.port, added.tls, added.topic) == (
        "127.0.0.1",
        1883,
        False,
        PROVISIONED["topic"],
    )
    assert (provisioned.host, provisioned.port, provisioned.tls) == ("count.example.org", 8883, True)
    assert provisioned.secret not in repr(provisioned)
    path = tmp_path / "device.json"
    write_credentials(path, provisioned)
    assert read_credentials(path) == provisioned == account(str(path)) == account(json.dumps(PROVISIONED))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("link", "url", "expected"),
    [
        ("https://count.example.org:8443/me#join=abc", "", ("https://count.example.org:8443", "abc")),
        ("https://example.org/count/me#join=abc", "", ("https://example.org/count", "abc")),
        ("https://count.example.org/v1/provision/abc.otrc", "", ("https://count.example.org", "abc")),
        (
            "owntracks:///config?url=https%3A%2F%2Fcount.example.org%3A8443%2Fv1%2Fprovision%2Fabc.otrc",
            "",
            ("https://count.example.org:8443", "abc"),
        ),
        (
            " nzch-kwzd-qagr-bcim\n",
            "https://count.example.org/",
            ("https://count.example.org", "nzch-kwzd-qagr-bcim"),
        ),
    ],
)
def test_links(link: str, url: str, expected: tuple[str, str]) -> None:
    """The URL of the API and the code come from each form of a link, and from a claim code with a URL."""
    assert _base_and_code(link, url) == expected


@pytest.mark.parametrize(
    "link", ["", "abc", "https://count.example.org", "owntracks:///config", "ftp://x/me#join=a"]
)
def test_links_without_code_or_url(link: str) -> None:
    """A text without a code or a URL is refused before any request."""
    with pytest.raises(DeviceLibraryError, match="has no code or no URL"):
        _base_and_code(link, "")


@given(fields=JSON)
def test_any_json_is_credentials_or_an_error(fields: Any) -> None:
    """Any JSON in the place of credentials is refused with an error that names its source."""
    with pytest.raises(DeviceLibraryError, match=r"^test: "):
        credentials_of(fields, "test")


@pytest.mark.parametrize(
    ("transport", "problem"), [("http", "the URL of the API is missing"), ("websocket", "a WebSocket URL")]
)
def test_a_transport_without_an_address(transport: Any, problem: str) -> None:
    """A transport whose address is not in the credentials is refused."""
    with pytest.raises(DeviceLibraryError, match=problem):
        DeviceClient(credentials_of(ADDED, "test"), transport=transport)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Errors name the file and the problem; a link is not used up if its credentials could not be written."""
    (tmp_path / "text").write_text("no JSON")
    for path, problem in ((tmp_path / "missing", "No such file"), (tmp_path / "text", "is not JSON")):
        with pytest.raises(DeviceLibraryError, match=problem):
            read_credentials(path)
    with pytest.raises(DeviceLibraryError, match="cannot be written"):
        account(str(tmp_path / "missing" / "file"), "https://127.0.0.1:1/me#join=abc")
    with pytest.raises(DeviceLibraryError, match="is not answered"):
        account(str(tmp_path / "new"), "http://127.0.0.1:1/me#join=abc")
    assert not (tmp_path / "new").exists()


def test_the_variable_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without --credentials, the file is that of HEADCOUNT_DEVICE_CREDENTIALS; without either, the option is missing."""
    command = ["device", "run", "--from", "nmea:none"]
    missing = CliRunner().invoke(main, command)
    assert (missing.exit_code, "--credentials is missing" in missing.output) == (2, True)
    monkeypatch.setenv("HEADCOUNT_DEVICE_CREDENTIALS", str(tmp_path / "none.json"))
    named = CliRunner().invoke(main, command)
    assert named.exit_code != 0
    assert "none.json" in f"{named.output}{named.exception}"
