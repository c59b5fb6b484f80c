"""Three real brokers on this machine: what a cluster does when one of them dies."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.contract.errors import BrokerFailed, Unavailable
from streams.runtime.clock import Clock, SystemClock
from streams.runtime.terminal import Terminal
from streams.testbed.broker import quorum
from streams.testbed.broker.broker_config import Node
from streams.testbed.broker.broker_security import Security
from streams.testbed.broker.embedded import EmbeddedKafka, new_cluster_id
from streams.testbed.broker.loopback import free_ports
from streams.testbed.broker.process_identity import Identity
from streams.testbed.broker.with_folder import WithFolder

_ANSWER_S: Final = 5.0
# Which broker coordinates a group or a transactional id: the leader of the partition that keeps its news.
_TRANSACTIONS = "__transaction_state"
_PARTITIONS: Final = 4  # of each (streams/testbed/broker/broker_config.py)


class EmbeddedCluster(WithFolder):
    """Brokers in combined KRaft mode that replicate to each other, each in a folder of its own.

    With three, topics have three copies of which two must have a record before it is acknowledged, so that any one
    broker may die.

    Args:
        data_dir: holds a folder a broker; without one, a temporary folder that goes with the cluster.
        count: how many; formatted with another count, a folder is refused.
        cache, heap_mb, start_timeout_s, leashed, console: as of :class:`streams.testbed.broker.EmbeddedKafka`.
        security: what its brokers ask of their clients; None: nothing.
        ports: for clients, one a broker; empty takes free ones.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        count: int = 3,
        *,
        cache: Path | None = None,
        ports: tuple[int, ...] = (),
        security: Security | None = None,
        heap_mb: int = 256,
        start_timeout_s: float = 60.0,
        leashed: bool = True,
        console: Terminal | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(data_dir, "cluster")
        self._clock = clock or SystemClock()
        self._security = security
        self._start_timeout_s = start_timeout_s
        folders = {id: self.folder / f"broker-{id}" for id in range(1, count + 1)}
        known = {id: Identity.load(folder) for id, folder in folders.items()}
        controllers = free_ports(*(each.controller_port if each else 0 for each in known.values()))
        clients = free_ports(*(ports or [each.port if each else 0 for each in known.values()]))
        voters = dict(zip(folders, controllers, strict=True))
        cluster_id = _cluster_id(folders.values()) or new_cluster_id()
        self.nodes: Final = [
            EmbeddedKafka(
                folder,
                cache=cache,
                port=port,
                controller_port=voters[id],
                node=Node(id, cluster_id, voters, security),
                heap_mb=heap_mb,
                start_timeout_s=start_timeout_s,
                leashed=leashed,
                console=console,
                clock=self._clock,
            )
            for (id, folder), port in zip(folders.items(), clients, strict=True)
        ]

    @property
    def bootstrap_servers(self) -> str:
        """All brokers, so that any one of them may be away."""
        return ",".join(node.bootstrap_servers for node in self.nodes)

    def start(self) -> Self:
        """Start all brokers and return when they know each other.

        Raises:
            BrokerFailed: one does not start.
        """
        try:
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                node.serves()
            self._complete()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        """SIGKILL of all: a power cut."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """Start again those that are not running."""
        for node in self.nodes:
            if not node.running:
                node.launch()
        for node in self.nodes:
            node.serves()

    def node(self, id: int) -> EmbeddedKafka:
        """The broker with this node id."""
        return self.nodes[id - 1]

    def leader(self, topic: str, partition: int) -> int:
        """The node id of a partition's leader; -1 while it has none.

        Raises:
            KafkaException: no broker answers.
        """
        found = self._admin().list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions
        return int(found[partition].leader)

    def controller(self) -> int:
        """The node id of the active controller; -1 while there is none.

        Raises:
            Unavailable: no broker says.
        """
        alive = next((node for node in self.nodes if node.running), None)
        if alive is None:
            raise Unavailable(f"no broker of {self.folder} runs")
        return quorum.leader(alive.port)

    def transaction_coordinator(self, transactional_id: str) -> int:
        """The node id of a transactional id's coordinator; -1 while it has none."""
        return self.leader(_TRANSACTIONS, _java_hash(transactional_id) % _PARTITIONS)

    def in_sync(self) -> bool:
        """Whether every partition has all its copies in step.

        Raises:
            KafkaException: no broker answers.
        """
        topics = self._admin().list_topics(timeout=_ANSWER_S).topics.values()
        return all(len(each.isrs) == len(each.replicas) for topic in topics for each in topic.partitions.values())

    def _admin(self) -> AdminClient:
        conf: dict[str, Any] = {"bootstrap.servers": self.bootstrap_servers, "log_level": 0}
        return AdminClient(conf | (self._security.client() if self._security else {}))

    def _complete(self) -> None:
        deadline = self._clock.monotonic() + self._start_timeout_s
        admin = self._admin()
        while self._clock.monotonic() < deadline:
            with suppress(KafkaException):
                if len(admin.list_topics(timeout=0.5).brokers) == len(self.nodes):
                    return
        raise BrokerFailed(
            f"the {len(self.nodes)} brokers in {self.folder} do not find each other in {self._start_timeout_s:g} s"
        )


def _cluster_id(folders: Iterable[Path]) -> str | None:
    """What the brokers were formatted with; None where none was.

    Raises:
        BrokerFailed: some belong to different clusters.
    """
    found = set()
    for folder in folders:
        with suppress(FileNotFoundError):
            lines = (folder / "data" / "meta.properties").read_text(encoding="utf-8").splitlines()
            found |= {line.partition("=")[2] for line in lines if line.startswith("cluster.id=")}
    if len(found) > 1:
        raise BrokerFailed(f"the folders hold brokers of different clusters: {', '.join(sorted(found))}")
    return next(iter(found), None)


def _java_hash(text: str) -> int:
    """``Utils.abs(text.hashCode())`` of Kafka."""
    value = 0
    for unit in text.encode("utf-16-be").hex(" ", 2).split():
        value = (31 * value + int(unit, 16)) & 0xFFFFFFFF
    return 0 if value == 1 << 31 else min(value, (1 << 32) - value)
