"""How is the embedded broker configured, and why so?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

# One broker on a machine for development: nothing is replicated, and what fails must show itself soon.
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # A misspelt topic must be an error, not a new topic.
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
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


def write_config(folder: Path, port: int, controller_port: int) -> tuple[Path, Path]:
    """Write the broker's configuration and its logging's into ``folder``; returns both paths."""
    lines = {
        **_SETTINGS,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(folder / "data"),
    }
    server = folder / "server.properties"
    server.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
    logging = folder / "log4j2.properties"
    logging.write_text(_LOGGING, encoding="utf-8")
    return server, logging
