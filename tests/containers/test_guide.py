"""The guide to running a cluster, typed as a user types it."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from containers.stack import engine
from docs.command_blocks import run_blocks
from docs.pages import DOCS
from headcount.runtime.ports import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.docker, pytest.mark.timeout(900)]

#: Another name and other ports than those of the guide, beside which a cluster of this machine goes on.
_PRELUDE = """
docker() { if [[ $1 == compose ]]; then shift; command docker-compose "$@"; else command docker "$@"; fi; }
end() {
  ctrl_c
  docker compose -f deploy/compose.yaml --profile elastic stop scale
  docker ps -aq --filter label=headcount.deployment=$COMPOSE_PROJECT_NAME | xargs -r docker rm -f
  docker compose -f deploy/compose.yaml --profile elastic down -v --remove-orphans
}
trap end EXIT
"""


def test_the_guide_to_a_cluster(tmp_path: Path) -> None:
    """The command blocks of the guide that need Docker succeed, in order."""
    engine()
    mqtt, ws, http = map(str, free_ports(3))
    project = f"headcount-guide-{secrets.token_hex(3)}"
    variables = {"COMPOSE_PROJECT_NAME": project, "MQTT_PORT": mqtt, "WS_PORT": ws, "HTTP_PORT": http}
    run_blocks(
        DOCS / "guides" / "deploy.md",
        tmp_path,
        reason="needs Docker",
        prelude=_PRELUDE,
        variables=variables,
        replaced={
            "deployment=headcount": f"deployment={project}",
            "-p 8883": f"-p {mqtt}",
            ":8443": f":{http}",
            "--ca server.crt": f"--ca server.crt --port {mqtt}",
        },
    )
