"""A real Kafka broker for tests: in KRaft mode, on a free port, with its log in the test's own folder.

with running_kafka(folder) as kafka:       # skips where `make kafka` has not downloaded it
    kafka.create_topic("fixes", partitions=4)
    kafka.kill(); kafka.start()            # the log on disk stays
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headcount.runtime.ports import free_ports
from headcount.tls.certificates import ensure_server_certificate

JARS = Path(os.environ.get("HEADCOUNT_KAFKA", Path.home() / ".cache/headcount/kafka-4.3.1"))
_JAVA = ("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*")
_CLUSTER = "aGVhZGNvdW50LXRlc3RzMQ"
#: The account of the listener with TLS.
USER, PASSWORD = "bridge", "a-password-for-tests-only"
_START_S = 120.0
#: One broker that is its own controller. A group's first members wait for no others, and a killed broker's
#: session ends soon: until then, the controller does not accept the restarted one.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{tls_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{tls_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \\
  required user_{user}="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
log.dirs={log}
auto.create.topics.enable=false
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


class KafkaServer:
    """A broker with its folder; it can be killed and started again."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """Format the storage of a new broker; `start` starts it.

        Skips where Kafka is missing.
        """
        if not (JARS / "ready").exists():
            pytest.skip(f"no Kafka in {JARS}; `make kafka` downloads it")
        if shutil.which("java") is None:
            pytest.skip("Kafka needs Java")
        free, tls_port, controller = free_ports(3)
        port = port or free
        self.address, self.tls_address = f"127.0.0.1:{port}", f"127.0.0.1:{tls_port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, key = ensure_server_certificate(folder, ["127.0.0.1"])
        keystore = folder / "keystore.pem"
        keystore.write_bytes(key.read_bytes() + self.certificate.read_bytes())
        text = _PROPERTIES.format(
            port=port,
            tls_port=tls_port,
            controller=controller,
            log=folder / "log",
            keystore=keystore,
            user=USER,
            password=PASSWORD,
        )
        self._properties = folder / "server.properties"
        self._properties.write_text(text)
        command = [*_JAVA, "kafka.tools.StorageTool", "format", "--standalone"]
        command += ["-t", _CLUSTER, "-c", str(self._properties)]
        command += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def command(self) -> list[str]:
        """The command that runs the broker."""
        return [*_JAVA, "kafka.Kafka", str(self._properties)]

    @property
    def version(self) -> str:
        """The version of the jars."""
        return next(JARS.glob("kafka_2.13-*.jar")).stem.removeprefix("kafka_2.13-")

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + _START_S
        while True:
            try:
                self.admin().list_topics(timeout=1)
            except KafkaException:
                text = (self._folder / "kafka.log").read_text()[-2000:]
                assert self._process.poll() is None, text
                assert time.monotonic() < deadline_s, text
            else:
                return

    def kill(self) -> None:
        """Kill the broker without a shutdown."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def admin(self) -> AdminClient:
        """A client with all rights."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic with one replica."""
        admin = self.admin()
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)


@contextmanager
def running_kafka(folder: Path) -> Iterator[KafkaServer]:
    """A broker in a folder; its version is printed."""
    server = KafkaServer(folder)
    try:
        server.start()
        print(f"Kafka {server.version}")
        yield server
    finally:
        server.kill()
