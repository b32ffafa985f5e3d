"""A real S3 server for tests: SeaweedFS on free ports, started once in a test run, with credentials.

with running_s3(tmp_path) as s3:     # s3.environment: the AWS_* variables of a program that uses it
store = s3.store("prefix")           # objects below a prefix of its bucket
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

from headcount.history.s3_store import BucketStore
from headcount.runtime.ports import free_ports

BUCKET = "history"
_KEY, _SECRET = "headcount", "a secret key for tests only"
_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance"),
)
_START_S = 120.0


@dataclass(frozen=True)
class S3Server:
    """A running server with an empty bucket."""

    port: int
    version: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a program that uses the server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
        }

    def store(self, prefix: str) -> BucketStore:
        """Objects below a prefix; the variables must be set in this process."""
        return BucketStore(BUCKET, prefix, self.environment)


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """A server in a folder; its variables are set in this process meanwhile."""
    program = Path(sys.executable).with_name("weed")
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
        "actions": _ACTIONS,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    command = [
        *(str(program), "server", "-s3", f"-dir={folder}", f"-s3.config={folder / 's3.json'}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=20"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout.strip()
    server = S3Server(ports["s3.port"], version)
    before = {name: os.environ.get(name) for name in server.environment}
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            os.environ.update(server.environment)
            _create_bucket(process, folder / "weed.log")
            print(f"SeaweedFS {version}")
            yield server
        finally:
            process.kill()  # it needs more than 5 s for SIGTERM
            process.wait()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _create_bucket(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server stores objects; the first one creates the bucket."""
    store = S3Store(BUCKET, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    deadline_s, is_created = time.monotonic() + _START_S, False
    while not is_created:
        with suppress(obstore.exceptions.BaseError):
            obstore.put(store, "started", b"", use_multipart=False)
            is_created = True
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline_s, log.read_text()[-2000:]
        time.sleep(0.1)
