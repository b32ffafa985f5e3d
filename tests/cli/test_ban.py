"""`headcount ban` at a running core: bans are added, listed and lifted, and recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headcount.broker.core import Broker
from headcount.cli.main import main
from headcount.messaging.connection import Connection
from headcount.messaging.site_store import SiteStore, StoredSite
from nats_fixture import internal_client, running_broker
from small_site import small_site


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker of this file."""
    with running_broker(tmp_path_factory.mktemp("ban")) as running:
        yield running


def _run(broker: Broker, folder: Path, *arguments: str) -> tuple[int, str]:
    secret = folder / "secret"
    secret.write_text(broker.config.password)
    secret.chmod(0o600)
    port = str(broker.config.nats_port)
    result = CliRunner().invoke(main, [*arguments, "--secret-file", str(secret), "--nats-port", port])
    return result.exit_code, result.output


async def _store_site(broker: Broker) -> None:
    client = await internal_client(broker)
    await SiteStore(Connection(client)).seeded(
        StoredSite("a test", "", small_site().geojson, 1, site="s", number=1)
    )
    await client.close()


def test_a_ban_is_listed_until_it_is_lifted(broker: Broker, tmp_path: Path) -> None:
    """A ban is listed until it is removed, and the audit log has both."""
    who = ("--address", "192.0.2.7")
    code, said = _run(broker, tmp_path, "ban", "add", *who, "--for", "1h", "--reason", "tries passwords")
    assert code == 0, said
    code, said = _run(broker, tmp_path, "ban", "list")
    assert code == 0, said
    assert "192.0.2.7" in said
    assert "tries passwords" in said
    assert _run(broker, tmp_path, "ban", "remove", *who) == (0, "The ban of 192.0.2.7 is lifted.\n")
    assert _run(broker, tmp_path, "ban", "remove", *who) == (0, "192.0.2.7 was not banned.\n")
    assert "192.0.2.7" not in _run(broker, tmp_path, "ban", "list")[1]
    noted = _run(broker, tmp_path, "audit", "list")[1]
    assert "ban.add" in noted
    assert "ban.remove" in noted


def test_the_list_of_devices_shows_bans(broker: Broker, tmp_path: Path) -> None:
    """`device list` and `device show` show bans; the ban's end is in the JSON."""
    asyncio.run(_store_site(broker))
    here = ("--site", "s")
    code, output = _run(broker, tmp_path, "device", "add", "--kind", "person", "--json", *here)
    assert code == 0, output
    id_ = json.loads(output)["id"]

    def entry() -> dict[str, Any]:
        (found,) = json.loads(_run(broker, tmp_path, "device", "list", "--json", *here)[1])["devices"]
        assert isinstance(found, dict)
        return found

    assert entry()["banned_until"] is None
    code, output = _run(broker, tmp_path, "ban", "add", "--device", id_, "--for", "1h", "--reason", "sends")
    assert code == 0, output
    assert entry()["banned_until"] is not None
    assert "banned until" in _run(broker, tmp_path, "device", "list", *here)[1]
    assert "banned until" in _run(broker, tmp_path, "device", "show", id_)[1]


@pytest.mark.parametrize(
    "who",
    [
        (),
        ("--device", "d1", "--address", "192.0.2.7"),
        ("--address", "d1"),
        ("--device", "192.0.2.7"),
        ("--device", "k3vq2hbw5yxak3vq2hbw"),
    ],
)
def test_refusals(broker: Broker, tmp_path: Path, who: tuple[str, ...]) -> None:
    """No target, both, one in place of the other, and a device that is not registered are rejected."""
    assert _run(broker, tmp_path, "ban", "add", *who)[0] == 2
