"""A leaf: a NATS server that lets devices in and keeps nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable

from headcount.broker import nats_probe
from headcount.broker.nats_process import NatsServer

LOG = logging.getLogger(__name__)

#: A device that waits longer for its connection counts as not served.
SERVED_S = 2.0
#: Number of failed connections in a row that are a problem: a single one may be late among many others.
MAX_LATE = 2


class Leaf(NatsServer):
    """A running leaf of the core, as an async context manager. `problem` is the reason if no device is served.

    Raises (on entering; nothing is left behind then):
        DataFolderError, PortTakenError, BrokerVersionError, BrokerError: see NatsServer.
    """

    #: Whether a connection of ours stands among those of devices now.
    probing = False
    _late = 0
    _slow = False

    @property
    def ready_s(self) -> float:
        """It is ready when the core is."""
        return math.inf

    async def _poll(self) -> None:
        """Connect as a device does: an answer needs the server, the link to the core and its streams."""
        self.probing = True
        try:
            await nats_probe.ask_mqtt(self.config, SERVED_S)
        except nats_probe.NO_ANSWER as error:
            await self._unanswered(error)
        else:
            if self.problem is not None:
                LOG.info("devices are served again")
            self.problem, self._late, self._slow = None, 0, False
        finally:
            self.probing = False

    async def _unanswered(self, error: Exception) -> None:
        """Set `problem` if this unit is the reason: a slow core is slow for all, and devices stay connected."""
        problem = f"MQTT lets no device in: {str(error) or repr(error)}"
        linked = await self._answers(self._ask_link())
        if not linked:
            problem = "there is no link to the core"
        elif isinstance(error, TimeoutError) and await self._answers(
            nats_probe.ask_mqtt_listener(self.config, SERVED_S)
        ):
            if not self._slow:
                LOG.warning("the core answers slowly: a connection took more than %.0f s", SERVED_S)
            self._slow, self._late = True, 0
            return
        self._late += 1
        if not self.ready or (linked and self._late < MAX_LATE):
            return  # it is being started, or accepts many devices now
        if problem != self.problem:
            LOG.error("no device is served: %s", problem)
        self.problem = problem

    async def _ask_link(self) -> None:
        if not (await nats_probe.ask_load(self.config)).leafnodes:
            raise ConnectionRefusedError("there is no link to the core")

    @staticmethod
    async def _answers(question: Awaitable[None]) -> bool:
        try:
            await question
        except nats_probe.NO_ANSWER:
            return False
        return True
