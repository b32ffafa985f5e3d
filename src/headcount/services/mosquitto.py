"""Files with the accounts of devices for a Mosquitto in front of headcount."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headcount.devices import credentials, mosquitto
from headcount.devices.authentication import DeviceAccount
from headcount.devices.registry import Registry
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection
from headcount.messaging.streams import BAN_BUCKET, DEVICE_BUCKET
from headcount.runtime.private_files import write_private
from headcount.services.bans import BanService

PASSWORDS, ACL, BRIDGE_PASSWORD = "passwords", "acl", "bridge-password"
#: Mosquitto may be another user of the folder's group.
_GROUP_READS = 0o640


class MosquittoAccounts:
    """Writes the files; every method raises LogError if the core does not answer."""

    def __init__(self, client: Connection, registry: Registry, bans: BanService) -> None:
        """Read the devices of `registry` without those in `bans`."""
        self._client = client
        self._registry = registry
        self._bans = bans

    async def revision(self) -> tuple[int, ...]:
        """Numbers that change with the devices and bans."""
        states = [
            (await jetstream.stream_info(self._client, f"KV_{bucket}")).state
            for bucket in (DEVICE_BUCKET, BAN_BUCKET)
        ]
        return tuple(number for state in states for number in (state.last_seq, state.messages))

    async def write(self, folder: Path, bridge_topics: tuple[str, ...]) -> int:
        """Write the password file, the ACL file and, once, the bridge's password; the number of devices.

        Raises:
            OSError: the folder cannot be written.
        """
        banned = await self._bans.of_devices()
        accounts = [
            DeviceAccount(
                id=device.id,
                site=device.site,
                kind=device.kind,
                status=device.status,
                secret=device.secret,
                gateway=device.gateway,
            )
            for device in (await self._registry.all()).values()
            if device.id not in banned
        ]
        await asyncio.to_thread(_write, folder, accounts, bridge_topics)
        return len(accounts)


def _write(folder: Path, accounts: list[DeviceAccount], bridge_topics: tuple[str, ...]) -> None:
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    secret = folder / BRIDGE_PASSWORD
    if not secret.exists():
        write_private(secret, credentials.new_secret().encode())
    passwords = mosquitto.password_file(accounts, credentials.hash_secret(secret.read_text().strip()))
    write_private(folder / PASSWORDS, passwords.encode(), _GROUP_READS)
    write_private(folder / ACL, mosquitto.acl_file(accounts, bridge_topics).encode(), _GROUP_READS)
