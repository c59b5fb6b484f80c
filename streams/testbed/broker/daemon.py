"""Keeps brokers running between commands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.contract.errors import BrokerFailed
from streams.runtime.terminal import Terminal
from streams.testbed.broker.broker_config import Node
from streams.testbed.broker.broker_security import Security
from streams.testbed.broker.cluster import EmbeddedCluster
from streams.testbed.broker.embedded import EmbeddedKafka
from streams.testbed.broker.jars import java
from streams.testbed.broker.loopback import HOST
from streams.testbed.broker.process_identity import Identity, end

# A loaded machine still answers a question about topics within this; a hung broker never does.
_ANSWER_S = 5.0
_STOP_S = 20.0
# A broker is secure from its first start, or never: who may come is written with its format.
_SECURE = "-secure"


@dataclass(frozen=True, slots=True)
class Status:
    """Brokers that run: one, or a cluster.

    Attributes:
        pids: by node id, from 1; None for a broker of a cluster that does not run.
        since: when the first of them started.
        logs: of each.
        security: what clients need; None: nothing.
        topics: None when none answers.
    """

    pids: tuple[int | None, ...]
    bootstrap_servers: str
    since: datetime
    logs: tuple[Path, ...]
    security: Security | None
    topics: tuple[str, ...] | None

    def admin(self) -> AdminClient:
        """An administrator's client of these brokers."""
        return _admin(self.bootstrap_servers, self.security)


def _admin(addresses: str, security: Security | None) -> AdminClient:
    conf: dict[str, Any] = {"bootstrap.servers": addresses, "log_level": 0}
    return AdminClient(conf | (security.client() if security else {}))


def folder(cache: Path, brokers: int = 1, secure: bool = False) -> Path:
    """Where the broker of this user keeps its data, or the cluster its brokers' folders."""
    return cache / (("broker" if brokers == 1 else f"cluster-{brokers}") + (_SECURE if secure else ""))


def homes(cache: Path) -> list[Path]:
    """The folders of the brokers that run, or of the single one."""
    single = [folder(cache), folder(cache, secure=True)]
    clusters = [sorted(path.glob("broker-*")) for path in sorted(cache.glob("cluster-*"))]
    for found in (*([home] for home in single), *clusters):
        if any(_process(home) for home in found):
            return found
    return single[:1]


def _security(home: Path) -> Security | None:
    """What a broker in this folder asks of its clients: made beside the brokers of a cluster, within a single one."""
    for root in (home, home.parent):
        if root.name.endswith(_SECURE):
            return Security(root / "security")
    return None


def up(
    cache: Path,
    *,
    port: int,
    heap_mb: int,
    start_timeout_s: float,
    brokers: int = 1,
    secure: bool = False,
    console: Terminal | None = None,
) -> Status:
    """Start the broker, or a cluster of them; what runs already is as good, and what is missing of it is started.

    Args:
        port: for clients of a single broker; a cluster takes this one and those after it. 0 takes free ones.
        secure: clients need a name, a password and rights; see :mod:`streams.testbed.broker.broker_security`.

    Raises:
        BrokerFailed: it cannot start, or runs on another port or with another number of brokers than asked for.
    """
    running = status(cache)
    if running is not None and len(running.pids) != brokers:
        raise BrokerFailed(
            f"{len(running.pids)} broker(s) run at {running.bootstrap_servers} already: stop them first "
            f"(`coldstart kafka down`) to have {brokers}"
        )
    if running is not None and (running.security is not None) != secure:
        raise BrokerFailed(
            f"the broker at {running.bootstrap_servers} runs {'without' if secure else 'with'} --secure: "
            "stop it first (`coldstart kafka down`)"
        )
    if running is None or None in running.pids:
        if running is not None:
            # A cluster is started as one: the brokers that are left keep their data.
            down(cache)
        home = folder(cache, brokers, secure)
        security = Security.prepare(home / "security", java()) if secure else None
        ports = tuple(range(port, port + brokers)) if port else ()
        common: dict[str, Any] = {
            "cache": cache, "heap_mb": heap_mb, "start_timeout_s": start_timeout_s, "leashed": False,
            "console": console,
        }  # fmt: skip
        if brokers == 1:
            EmbeddedKafka(home, port=port, node=Node(security=security), **common).start()
        else:
            EmbeddedCluster(home, brokers, ports=ports, security=security, **common).start()
        running = status(cache)
    if running is None:
        raise BrokerFailed("the broker ended just after its start; `coldstart kafka up` again shows why")
    if port and not running.bootstrap_servers.split(",")[0].endswith(f":{port}"):
        raise BrokerFailed(
            f"the broker runs at {running.bootstrap_servers} already: "
            f"stop it first (`coldstart kafka down`) to have it on port {port}"
        )
    _wait_for_leaders(running, start_timeout_s)
    return running


def _wait_for_leaders(running: Status, timeout_s: float) -> None:
    """Return when somebody serves every partition: a broker that is back answers before it does.

    Raises:
        BrokerFailed: not in time; the message names a partition.
    """
    admin, deadline = running.admin(), time.monotonic() + timeout_s
    while (missing := _unserved(admin)) is not None:
        if time.monotonic() > deadline:
            raise BrokerFailed(f"{running.bootstrap_servers}: {missing} after {timeout_s:g} s")
        time.sleep(0.1)


def _unserved(admin: AdminClient) -> str | None:
    """What is missing; None: the leader of each partition tells its end."""
    missing = "no answer"
    try:
        for topic, known in admin.list_topics(timeout=_ANSWER_S).topics.items():
            missing = f"nobody serves all of topic {topic}"
            if known.error is not None or not known.partitions or any(p.leader < 0 for p in known.partitions.values()):
                return missing
            ends = {TopicPartition(topic, number): OffsetSpec.latest() for number in known.partitions}  # type: ignore[no-untyped-call]
            for future in admin.list_offsets(ends, request_timeout=_ANSWER_S).values():
                if future.result(_ANSWER_S).offset < 0:
                    return missing
    except (KafkaException, TimeoutError):
        return missing
    return None


def down(cache: Path) -> bool:
    """Stop the broker, or all of a cluster; their data stay. False when none ran."""
    processes = [process for home in homes(cache) if (process := _process(home)) is not None]
    for process in processes:
        end(process, _STOP_S)
    return bool(processes)


def status(cache: Path) -> Status | None:
    """What runs; None when nothing does."""
    folders = homes(cache)
    known = [(home, Identity.load(home)) for home in folders]
    running = [(home, identity) for home, identity in known if identity and identity.process(home)]
    if not running:
        return None
    addresses = ",".join(f"{HOST}:{identity.port}" for _, identity in known if identity)
    security = _security(folders[0])
    try:
        names = _admin(addresses, security).list_topics(timeout=_ANSWER_S).topics
    except KafkaException:
        names = None
    alive = dict(running)
    return Status(
        pids=tuple(alive[home].pid if home in alive else None for home in folders),
        bootstrap_servers=addresses,
        since=datetime.fromtimestamp(min(identity.started_at for _, identity in running), UTC),
        logs=tuple(home / "kafka.log" for home in folders),
        security=security,
        topics=None if names is None else tuple(sorted(names)),
    )


def _process(home: Path) -> psutil.Process | None:
    identity = Identity.load(home)
    return identity.process(home) if identity else None
