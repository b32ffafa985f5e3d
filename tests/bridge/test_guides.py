"""The guides to the sources, typed as a user types them, on a machine with those sources."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from docs.command_blocks import LOOPBACK, own_machine, run_blocks
from docs.pages import DOCS
from kafka_fixture import JARS, KafkaServer
from system.senders import program

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(900)]

#: Requests are repeated until the answer counts one more person, or a vehicle.
_CURL = """
counted=0
curl() {
  counted=$((counted + 1))
  until command curl --fail-with-body "$@" | grep "\\"$KIND\\":{\\"count\\":$counted,"; do sleep 0.2; done
}
"""
_KAFKA_TOOLS = f"""
kafka-topics.sh() {{ java -cp '{JARS}/*' org.apache.kafka.tools.TopicCommand "$@" 2>/dev/null; }}
kafka-console-producer.sh() {{ java -cp '{JARS}/*' org.apache.kafka.tools.ConsoleProducer "$@" 2>/dev/null; }}
until kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --list; do sleep 0.2; done
"""


@pytest.mark.doors
def test_kafka_and_redis(tmp_path: Path) -> None:
    """The guide's records and entries are counted."""
    machine, redis = own_machine(), program("redis-server")
    kafka = KafkaServer(tmp_path / "kafka", 9092)
    start = f"{shlex.join(kafka.command)} >{tmp_path}/kafka.log 2>&1 &\n{redis} >{tmp_path}/redis.log &\n"
    run_blocks(
        DOCS / "guides" / "kafka-redis.md",
        tmp_path,
        machine,
        reason="needs Kafka and Redis",
        prelude=LOOPBACK + start + _KAFKA_TOOLS + _CURL,
        variables={"KIND": "person"},
    )


def test_gtfs_realtime(tmp_path: Path) -> None:
    """A vehicle of a feed is counted."""
    serve = shlex.join([sys.executable, str(Path(__file__).with_name("feed_server.py")), "8000"])
    run_blocks(
        DOCS / "guides" / "gtfs-realtime.md",
        tmp_path,
        own_machine(),
        reason="needs a feed",
        prelude=LOOPBACK + f"{serve} &\n" + _CURL,
        variables={"KIND": "vehicle"},
    )
