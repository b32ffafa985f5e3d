"""A PostgreSQL server of Debian for a comparison: that of this machine, or of a folder with Debian 13.

The folder is made by debootstrap with PostGIS, TimescaleDB and MobilityDB, and entered with chroot, both of
which need root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

#: Outside the clone: about 1.1 GB.
CACHE = Path.home() / ".cache" / "headcount" / "trixie"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = [f"postgresql-17{name}" for name in ("", "-postgis-3", "-timescaledb", "-mobilitydb")]
_READY = ".headcount-ready"
USER = "postgres"
#: For loads and queries of one client; `memory_gb` is what the server may use of the machine.
SETTINGS = {
    "listen_addresses": "",
    "max_connections": 20,
    "autovacuum": "off",  # loads analyze on their own
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "default_toast_compression": "lz4",
    "random_page_cost": 1.1,
    "effective_io_concurrency": 200,
    "jit": "off",
    "max_parallel_workers_per_gather": 1,
    "max_parallel_maintenance_workers": 1,
    "max_locks_per_transaction": 512,
    "dynamic_shared_memory_type": "sysv",
}


@dataclass(frozen=True, slots=True)
class Postgres:
    """An installed PostgreSQL."""

    programs: str  # the folder of postgres and initdb, as seen below `root`
    root: Path  # of the file system that it sees
    version: str

    def offers(self, extension: str) -> bool:
        """Whether an extension can be created."""
        control = self.root / f"usr/share/postgresql/{self.version}/extension/{extension}.control"
        return os.path.lexists(control)  # a link within the folder

    def run(self, program: str, *arguments: str) -> list[str]:
        """The command line of one of its programs, as the user `postgres`."""
        command = [f"{self.programs}/{program}", *arguments]
        if self.root != Path("/"):
            return ["chroot", f"--userspec={USER}:{USER}", str(self.root), *command]
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command]


def installed() -> Postgres | None:
    """The PostgreSQL with PostGIS to compare with: that of the folder, else that of this machine."""
    if os.geteuid() != 0:
        return None
    for root in (CACHE, Path("/")):
        if root == CACHE and not (root / _READY).exists():
            continue
        for programs in sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True):
            found = Postgres(f"/{programs.relative_to(root)}", root, programs.parent.name)
            if (programs / "postgres").exists() and found.offers("postgis"):
                return found
    return None


def install() -> None:
    """Make the folder with Debian 13, in about two minutes."""
    if (CACHE / _READY).exists():
        return
    debootstrap, chroot = shutil.which("debootstrap"), shutil.which("chroot")
    if os.geteuid() != 0 or debootstrap is None or chroot is None:
        raise SystemExit(
            "the databases are installed into a folder by debootstrap, as root: install debootstrap"
        )
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([debootstrap, "--variant=minbase", "trixie", str(CACHE), MIRROR], check=True)
    policy = CACHE / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # start no service
    policy.chmod(0o755)
    clusters = CACHE / "etc/postgresql-common/createcluster.conf"
    clusters.parent.mkdir(parents=True, exist_ok=True)
    clusters.write_text("create_main_cluster = false\n")
    packages = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *PACKAGES]
    subprocess.run([chroot, str(CACHE), "env", "DEBIAN_FRONTEND=noninteractive", *packages], check=True)
    (CACHE / _READY).touch()


@contextmanager
def started(postgres: Postgres, preload: str, memory_gb: float) -> Iterator[str]:
    """A new server; yields the connection string of its superuser. Its data is deleted at the end."""
    base = postgres.root / "var/tmp"
    with tempfile.TemporaryDirectory(prefix="headcount-bench-", dir=base) as folder:
        inside = "/" + str(Path(folder).relative_to(postgres.root))
        shutil.chown(folder, *_owner(postgres))
        data = f"{inside}/data"
        subprocess.run(
            postgres.run("initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        settings: dict[str, Any] = SETTINGS | {
            "unix_socket_directories": inside,
            "shared_preload_libraries": preload,
            "shared_buffers": f"{round(memory_gb * 1024 / 3)}MB",
            "effective_cache_size": f"{round(memory_gb * 1024 * 2 / 3)}MB",
            "work_mem": f"{round(memory_gb * 1024 / 24)}MB",
            "maintenance_work_mem": f"{round(memory_gb * 1024 / 6)}MB",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(
                postgres.run("postgres", "-D", data, *options), stdout=log, stderr=log, cwd="/"
            )
        try:
            _wait(Path(folder), server)
            yield f"host={folder} user={USER} dbname={USER}"
        finally:
            server.terminate()  # chroot and setpriv have become the server
            server.wait(60)


def _owner(postgres: Postgres) -> tuple[int, int]:
    for line in (postgres.root / "etc/passwd").read_text().splitlines():
        name, _, user, group, *_ = line.split(":")
        if name == USER:
            return int(user), int(group)
    raise SystemExit(f"{postgres.root} has no user {USER}")


def _wait(folder: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            psycopg.connect(f"host={folder} user={USER} dbname={USER}").close()
        except psycopg.OperationalError:
            if server.poll() is not None:
                raise SystemExit((folder / "log").read_text()) from None
            time.sleep(0.1)
        else:
            return
    raise SystemExit("PostgreSQL did not start within a minute")
