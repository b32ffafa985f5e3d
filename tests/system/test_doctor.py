"""`headcount doctor` on folders of real deployments, sound and damaged; and a start on a damaged one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headcount.runtime.ports import free_ports
from history_batches import batch, random_rows, segment_files, write
from system.running import PORTS, UL, Up, headcount

DEVICES = 60


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a deployment with devices that was stopped; checked once while it ran."""
    folder = tmp_path_factory.mktemp("sound")
    with Up(folder, open=False) as up:
        table = folder / "devices.csv"
        table.write_text("kind,label,aliases\n" + "".join(f"person,d{n},iotp/{n}\n" for n in range(DEVICES)))
        where = ("--data", up.data, "--nats-port", str(up.ports["nats"]))
        imported = headcount("device", "import", table, "-o", folder / "secrets.csv", *where, cwd=folder)
        assert imported.returncode == 0, imported.stderr
        checked = headcount("doctor", *where, cwd=folder)
        assert (checked.returncode, checked.stdout) == (0, f"{up.data} is sound.\n"), checked.stderr
        up.stop()
    return up.data


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


def doctor(data: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of the command."""
    answer = headcount("doctor", "--data", data, *options, cwd=data.parent)
    return answer.returncode, answer.stdout + answer.stderr


def test_a_sound_folder(data: Path) -> None:
    """A folder that nothing uses is sound, and is left as it was."""
    assert doctor(data) == (0, f"{data} is sound.\n")


def test_permissions_are_repaired(data: Path) -> None:
    """Files that others can read are a problem, which --repair corrects."""
    (data / "secret").chmod(0o644)
    code, output = doctor(data)
    assert code == 1
    assert "permissions: 1 files and folders are accessible to other users" in output
    assert "--repair does this" in output
    assert doctor(data, "--repair")[0] == 0
    assert doctor(data)[0] == 0


def blocks(data: Path, stream: str) -> Path:
    """The last file of a stream."""
    return max(data.glob(f"jetstream/*/streams/{stream}/msgs/*.blk"), key=lambda path: int(path.stem))


def overwrite_middle(path: Path) -> None:
    """Damage a third of a file."""
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = b"\xa5" * third
    path.write_bytes(content)


def halve(path: Path) -> None:
    """Lose the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage", [overwrite_middle, halve, lambda path: path.write_bytes(bytes(path.stat().st_size))]
)
def test_a_damaged_registry_is_named_and_refused(data: Path, damage: Callable[[Path], object]) -> None:
    """Neither doctor nor a start go on with a part of the devices; both name the file and the remedy."""
    block = blocks(data, "KV_DEVICE")
    damage(block)
    code, output = doctor(data)
    assert code == 1
    assert f"the registry of devices (KV_DEVICE): {block} holds no message at byte" in output
    assert "restore `jetstream` from a backup" in output
    ports = [f"--{name}-port={port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
    started = headcount("up", "--site", UL, "--data", data, "--partitions", "4", *ports, cwd=data.parent)
    assert started.returncode == 2
    assert f"the registry of devices (KV_DEVICE) is damaged: {block}" in started.stderr
    assert "Restore the folder `jetstream` from a backup" in started.stderr


def test_an_interrupted_write_is_no_damage(data: Path) -> None:
    """The incomplete record that a power cut leaves at the end of a file is dropped by the server."""
    for stream in ("KV_DEVICE", "FIX_0"):
        with blocks(data, stream).open("ab") as file:
            file.write(b"\x00" * 4096)
    halve(blocks(data, "FIX_1"))
    assert doctor(data) == (0, f"{data} is sound.\n")


def test_garbage_in_the_log_is_refused(data: Path) -> None:
    """Bytes that no crash leaves are damage in the log, too, where an interrupted write is none."""
    block = blocks(data, "FIX_0")
    block.write_bytes(b"\xa5" * 4096 + block.read_bytes()[4096:])
    code, output = doctor(data)
    assert code == 1
    assert f"the log (FIX_0): {block} holds no message at byte 0" in output


def test_lost_and_foreign_files(data: Path) -> None:
    """A missing secret and a foreign file in the history are problems, each with its remedy."""
    (data / "secret").unlink()
    hour = data / "history" / "fixes" / "hour=2026-11-24T13"
    hour.mkdir(parents=True, exist_ok=True)
    (hour / "._000000000001.parquet").touch()
    code, output = doctor(data, "--repair")
    assert code == 1
    assert "secret: " in output
    assert "restore it from a backup" in output
    assert "._000000000001.parquet is not a file of the history" in output
    assert "not checked" in output


def test_a_damaged_segment_is_set_aside_and_taken_back(data: Path) -> None:
    """--repair sets a segment of the history aside whose bytes were changed, and takes it back when restored."""
    write(data, batch(rows=random_rows(random.Random(1), 50)))
    (segment,) = segment_files(data, "fixes")
    content = segment.read_bytes()
    segment.write_bytes(content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:])
    segment.with_name("._copy").touch()
    code, output = doctor(data)
    assert code == 1
    assert f"{segment.name}: its checksum differs" in output
    assert f"{segment.parent}/._copy is not a file of the history" in output
    segment.with_name("._copy").unlink()
    assert doctor(data, "--repair")[0] == 0
    assert segment_files(data, "fixes") == []
    assert doctor(data)[0] == 0
    segment.write_bytes(content)
    assert "was damaged, and is sound again" in doctor(data, "--repair")[1]
    assert segment_files(data, "fixes") == [segment]
