"""The stack of deploy/compose.yaml as real containers, and what may happen to them."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import secrets
import subprocess
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from headcount.runtime.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("HEADCOUNT_IMAGE", "headcount")
#: Where a service's container reports its health; the others are checked as Docker checks them.
HEALTH_PORTS = {"broker": 8081, "proxy": 8081, "api": 8080}


def engine() -> docker.DockerClient:
    """A client of the engine, which has our image; the test is skipped where that can't be."""
    socket = Path("/var/run/docker.sock")
    if "DOCKER_HOST" not in os.environ and not socket.exists():
        pytest.skip(f"no Docker engine: {socket} isn't there (tests/containers/engine.sh start)")
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers (tests/containers/engine.sh start): {error}")
    try:
        client.images.get(IMAGE)
    except ImageNotFound:
        pytest.skip(f"the engine has no image {IMAGE} (tests/containers/engine.sh image)")
    return client


class Stack:
    """A cluster of its own name, networks, volumes and ports, as a context manager."""

    def __init__(
        self,
        client: docker.DockerClient,
        site: Path,
        *,
        partitions: int,
        scale: dict[str, int],
        profiles: Sequence[str] = (),
        **variables: str,
    ) -> None:
        """Count `site` with `scale[service]` containers of each service; `variables` are the file's."""
        self.project = f"headcount-test-{secrets.token_hex(3)}"
        self.mqtt_port, self.ws_port, self.http_port = free_ports(3)
        self._client = client
        self._scale = [word for name, n in scale.items() for word in ("--scale", f"{name}={n}")]
        self._profiles = [word for name in profiles for word in ("--profile", name)]
        self._environment = {
            **os.environ,
            "HEADCOUNT_IMAGE": IMAGE,
            "HEADCOUNT_SITE_FILE": str(site),
            "HEADCOUNT_OPEN": "true",
            "HEADCOUNT_TLS": "off",
            "PARTITIONS": str(partitions),
            "DRAIN_S": "3",
            "MQTT_PORT": str(self.mqtt_port),
            "WS_PORT": str(self.ws_port),
            "HTTP_PORT": str(self.http_port),
            **variables,
        }

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` on the stack, and return its output.

        Raises:
            AssertionError: it fails.
        """
        program = Path(sysconfig.get_path("scripts")) / "docker-compose"
        file = ROOT / "deploy" / "compose.yaml"
        done = subprocess.run(
            [program, "--file", file, "--project-name", self.project, *self._profiles, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def __enter__(self) -> Self:
        began_s = time.monotonic()
        try:
            self.compose("up", "--detach", "--no-build", "--quiet-pull", *self._scale)
            print(f"{len(self.all())} containers started in {time.monotonic() - began_s:.1f} s")
        except BaseException:
            self._end(failed=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(failed=kind is not None)

    def _end(self, *, failed: bool) -> None:
        if failed:
            with contextlib.suppress(AssertionError):
                print(self.compose("ps", "--all"))
                print(self.compose("logs", "--no-color", "--tail", "40"))
        began_s = time.monotonic()
        for container in self.all():  # a paused one can't be stopped
            with contextlib.suppress(APIError):
                container.unpause()
        for container in self.scaled():
            container.remove(force=True, v=True)
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "10", "--remove-orphans")
        print(f"all down in {time.monotonic() - began_s:.1f} s")

    # --- what is there -----------------------------------------------------------------------------
    def all(self, service: str | None = None) -> list[Container]:
        """The containers of a service, or all, in the order of their numbers."""
        labels = [f"com.docker.compose.project={self.project}"]
        if service is not None:
            labels.append(f"com.docker.compose.service={service}")
        found = self._client.containers.list(all=True, filters={"label": labels})
        return sorted(found, key=lambda one: int(one.labels.get("com.docker.compose.container-number", 0)))

    def scaled(self, role: str | None = None) -> list[Container]:
        """The containers that the stack's own scaler has made, of one role or all."""
        labels = [f"headcount.deployment={self.project}"]
        if role is not None:
            labels.append(f"headcount.role={role}")
        found = self._client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        return sorted(found, key=lambda one: str(one.name))

    def one(self, service: str, number: int = 1) -> Container:
        """One container of a service."""
        return self.all(service)[number - 1]

    def address(self, container: Container) -> str:
        """Where the network of the inside has it; "" while it isn't there."""
        container.reload()
        network = container.attrs["NetworkSettings"]["Networks"].get(self.inside, {})
        return str(network.get("IPAddress", ""))

    @property
    def inside(self) -> str:
        """The name of the inner network."""
        return f"{self.project}_inside"

    @functools.cached_property
    def secret(self) -> str:
        """The secret that its parts share."""
        code, output = self.one("core").exec_run(["cat", "/shared/secret"])
        assert code == 0, output
        assert isinstance(output, bytes)
        return output.decode().strip()

    def is_well(self, container: Container) -> bool:
        """Whether it runs and reports that it is healthy."""
        container.reload()
        state = container.attrs["State"]
        if not state["Running"] or state["Paused"]:
            return False
        service = kind_of(container)
        port = HEALTH_PORTS.get(service)
        if port is not None:
            return _answers(
                self.address(container), port, "/readyz" if service in {"api", "proxy"} else "/healthz"
            )
        with contextlib.suppress(APIError):  # it may just be ending
            return bool(container.exec_run(["python", "-m", "headcount.runtime.health"]).exit_code == 0)
        return False

    def started(self, container: Container) -> str:
        """When it was started last, as the engine writes it."""
        container.reload()
        return str(container.attrs["State"]["StartedAt"])

    def has_changed(self, container: Container, started: str) -> bool:
        """Whether it has been started since, or is gone for good."""
        try:
            return self.started(container) != started
        except NotFound:
            return True

    def fetch(self, container: Container, path: str, folder: Path) -> None:
        """Copy a folder of a container to here."""
        chunks, _ = container.get_archive(path)
        with tempfile.TemporaryFile() as file:
            for chunk in chunks:
                file.write(chunk)
            file.seek(0)
            with tarfile.open(fileobj=file) as tar:
                tar.extractall(folder, filter="data")

    # --- what may happen -----------------------------------------------------------------------------
    def kill(self, container: Container) -> None:
        """Kill its first process, as a crash does: the engine starts it again.

        (`docker kill` would make the engine leave it stopped.)
        """
        container.reload()
        os.kill(int(container.attrs["State"]["Pid"]), 9)

    @contextlib.contextmanager
    def paused(self, container: Container) -> Iterator[None]:
        """Inside, none of its processes runs."""
        for attempts_left in reversed(range(5)):
            try:
                container.pause()
                break
            except APIError:  # on a busy machine the kernel may need too long to freeze all of them
                if not attempts_left:
                    raise
                time.sleep(1)
        try:
            yield
        finally:
            container.unpause()

    @contextlib.contextmanager
    def cut_off(self, container: Container) -> Iterator[None]:
        """Inside, the container and cluster can't reach each other; it reconnects with another address."""
        network: Any = self._client.networks.get(self.inside)
        network.disconnect(container)
        try:
            yield
        finally:
            network.connect(container, aliases=[kind_of(container)])

    def stopped(self, container: Container, grace_s: int = 30) -> int:
        """Ask it to end, as an update does; its exit code."""
        container.stop(timeout=grace_s)
        return int(container.wait()["StatusCode"])


def kind_of(container: Container) -> str:
    """Its service, or its role if the scaler made it."""
    labels = container.labels
    return str(labels.get("com.docker.compose.service") or labels["headcount.role"])


def until(condition: Callable[[], bool], what: str, seconds: float, every_s: float = 0.2) -> float:
    """Wait for it; the seconds that it took.

    Raises:
        AssertionError: not within `seconds`.
    """
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(every_s)
    return time.monotonic() - began_s


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
