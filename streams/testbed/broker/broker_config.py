"""The configuration of an embedded broker, and the reasons for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streams.testbed.broker.broker_security import Security
from streams.testbed.broker.loopback import HOST

# Brokers on a machine for development: what fails must show itself soon.
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    # A misspelt topic must be an error, not a new topic.
    "auto.create.topics.enable": "false",
    # 50 each by default, made at first use: seconds of waiting for the first group and the first transaction.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # The first member of a group is not kept waiting for a second (3 s by default).
    "group.initial.rebalance.delay.ms": "0",
    # After a SIGKILL the controller refuses the new incarnation until the old session lapses (9 s by default).
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # Readers wait behind a dead worker's open transaction for its timeout plus this (10 s by default).
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # The new group protocol's session is the broker's to set: 45 s of silence by default.
    "group.consumer.min.session.timeout.ms": "5000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1000",
    # 128 MB by default: half of the heap, for compacting a few thousand keys.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
}

# A broker's own news is for its log file; connections that come and go are not news.
_LOGGING: Final = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c{1})%n%throwable
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


@dataclass(frozen=True, slots=True)
class Node:
    """One broker's place in a cluster.

    Attributes:
        id: from 1.
        cluster_id: of a cluster that is formatted together; None makes one.
        voters: node id -> port of its controller, of all nodes; empty: this one alone.
        security: what it asks of its clients; None: nothing, and any process of this machine may do anything.
        settings: of its own, instead of ours.
    """

    id: int = 1
    cluster_id: str | None = None
    voters: Mapping[int, int] = field(default_factory=dict)
    security: Security | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def replication(nodes: int) -> dict[str, str]:
    """How a cluster of so many brokers keeps its own topics: three copies, of which two must have a record."""
    copies, least = str(min(nodes, 3)), str(min(nodes, 2))
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": least,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": least,
    }


def listeners(port: int, controller_port: int) -> dict[str, str]:
    """Listeners without security: the machine's own loopback alone reaches them."""
    return {
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }


def write_config(folder: Path, ports: Sequence[int], node: Node) -> tuple[Path, Path]:
    """Write a broker's configuration and its logging's into ``folder``; returns both paths.

    Args:
        ports: for clients, and of the controller.
    """
    port, controller_port = ports
    voters = node.voters or {node.id: controller_port}
    lines = {
        **_SETTINGS,
        **replication(len(voters)),
        **(node.security.settings if node.security else listeners)(port, controller_port),
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{id}@{HOST}:{at}" for id, at in voters.items()),
        "log.dirs": str(folder / "data"),
        **node.settings,
    }
    server = folder / "server.properties"
    # It may hold passwords.
    server.touch(mode=0o600)
    server.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
    logging = folder / "log4j2.properties"
    logging.write_text(_LOGGING, encoding="utf-8")
    return server, logging
