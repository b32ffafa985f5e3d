"""Errors at the start are one clear line with exit code 2, and leave no process running."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from headcount.runtime.ports import free_ports
from read_only import read_only
from system.running import PORTS, UL, Up, headcount
from waiting import wait_until


def options(**changes: int) -> list[str]:
    """Free ports as arguments, some of them chosen."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True)) | changes
    return [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]


def refused(folder: Path, *arguments: str | Path, data: Path | None = None, command: str = "up") -> str:
    """The one line with which `headcount up` ends; fails if it doesn't, or leaves anything running."""
    data = data or folder / "data"
    before = descendants()
    run = headcount(command, "--data", data, *arguments, cwd=folder)
    return line_of(run.returncode, run.stdout, run.stderr, before)


def line_of(code: int, out: str, err: str, before: set[int]) -> str:
    """The line on standard error of a program that has ended with 2 and left nothing."""
    assert code == 2, f"exit code {code}: {out}{err}"
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("headcount: ")
    assert out == ""
    # the kernel ends the children of a dead parent, and needs a moment
    wait_until(lambda: not descendants() - before, "nothing is left running")
    return lines[0]


def descendants() -> set[int]:
    """The processes of headcount and NATS that are orphans or ours."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            command = " ".join(process.cmdline())
            if process.ppid() in {1, os.getpid()} and ("headcount" in command or "nats-server" in command):
                found.add(process.pid)
    return found


@contextmanager
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", free_ports(1)[0]))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize("more", [[], ["--elastic"]], ids=["up", "elastic"])
@pytest.mark.parametrize("name", PORTS)
def test_a_taken_port(tmp_path: Path, name: str, more: list[str]) -> None:
    """The line names the port and the option that changes it; the port's owner stays alone on it."""
    with taken() as port:
        line = refused(tmp_path, "--site", UL, *more, *options(**{name: port}))
    assert str(port) in line
    assert f"--{name}-port" in line
    assert not (tmp_path / "data" / "broker.pid").exists()


def test_the_same_port_twice(tmp_path: Path) -> None:
    """Two options with one port are refused before anything is made."""
    port = free_ports(1)[0]
    line = refused(tmp_path, "--site", UL, *options(mqtt=port, http=port))
    assert line == f"headcount: --http-port: {port} is also the value of mqtt_port; choose another port"
    assert not (tmp_path / "data").exists()


def test_no_site_file(tmp_path: Path) -> None:
    """Without a site file the line names the command that makes one."""
    assert "headcount site import" in refused(tmp_path, *options())


def test_a_missing_site_file(tmp_path: Path) -> None:
    """The line names the file; no data folder is made for it."""
    assert "nowhere.geojson" in refused(tmp_path, "--site", "nowhere.geojson", *options())
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "content", ["", "no JSON", "{}", "[]", '{"type": "FeatureCollection", "features": []}']
)
def test_a_bad_site_file(tmp_path: Path, content: str) -> None:
    """The line names the file and what is wrong with it."""
    (tmp_path / "bad.geojson").write_text(content)
    line = refused(tmp_path, "--site", "bad.geojson", *options())
    assert "bad.geojson: " in line
    assert not (tmp_path / "data").exists()


def test_a_self_crossing_zone(tmp_path: Path) -> None:
    """The line names the feature, the problem and the fix."""
    site = json.loads(UL.read_text())
    zone = next(f for f in site["features"] if f["properties"]["role"] == "zone")
    lon, lat = zone["geometry"]["coordinates"][0][0]
    bow_tie = [(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)]
    zone["geometry"]["coordinates"] = [[[lon + x / 5000, lat + y / 5000] for x, y in bow_tie]]
    (tmp_path / "crossed.geojson").write_text(json.dumps(site))
    line = refused(tmp_path, "--site", "crossed.geojson", *options())
    assert "crossed.geojson" in line
    assert zone["properties"]["id"] in line
    assert "cross" in line


@pytest.mark.parametrize("where", ["a file", "below a file", "forbidden"])
def test_an_unusable_data_folder(tmp_path: Path, where: str) -> None:
    """The line names the folder and the option --data, which chooses another one."""
    data = tmp_path / "data"
    if where == "forbidden":
        data = Path("/proc/headcount")  # not even root can make a folder there
        if not data.parent.is_dir():
            pytest.skip("there is no /proc here")
    elif where == "below a file":
        (tmp_path / "file").touch()
        data = tmp_path / "file" / "data"
    else:
        data.touch()
        run = headcount("up", "--data", data, "--site", UL, *options(), cwd=tmp_path)
        assert run.returncode == 2
        assert "is a file" in run.stderr
        return
    line = refused(tmp_path, "--site", UL, *options(), data=data)
    assert str(data) in line
    assert "--data" in line


def test_a_read_only_data_folder(tmp_path: Path) -> None:
    """The line names the folder and the option --data, which chooses another one."""
    with read_only(tmp_path / "data") as data:
        line = refused(tmp_path, "--site", UL, *options())
    assert str(data) in line
    assert "--data" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sped = 3", "sped"),
        ("speed = ", "headcount.toml"),
        ("speed = 0", "headcount.toml: speed: 0"),
        ("partitions = 99999", "partitions"),
    ],
)
def test_a_bad_configuration_file(tmp_path: Path, content: str, said: str) -> None:
    """The values in the file are checked like arguments; an unknown key is named."""
    file = tmp_path / "headcount.toml"
    file.write_text(content)
    run = headcount("--config", file, "up", "--site", UL, *options(), cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert said in run.stderr.strip().splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "data").exists()


def test_one_program_a_data_folder_and_always_the_same_partitions(tmp_path: Path) -> None:
    """A second `up` on the data is refused and disturbs nothing, and so is another number of partitions."""
    with Up(tmp_path, partitions=3) as up:
        pids = up.pids()
        line = refused(tmp_path, "--site", UL, *options())
        assert "another headcount uses it" in line
        assert str(up.data) in line
        assert up.pids() == pids
        assert up.is_ready()
        up.stop()
        line = refused(tmp_path, "--site", UL, "--partitions", "5", *options())
        assert "3 partitions" in line
        assert "--partitions 3" in line
        up.start()  # with three again: nothing was spoilt
        assert up.is_ready()
