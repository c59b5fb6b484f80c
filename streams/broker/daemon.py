"""How does one broker keep running between commands?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from streams.broker.embedded import EmbeddedKafka
from streams.broker.identity import Identity, end
from streams.errors import BrokerFailed

# A loaded machine still answers a question about topics within this; a hung broker never does.
_ANSWER_S = 5.0
_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Status:
    """A broker that runs. ``topics`` is None when it does not answer."""

    pid: int
    bootstrap_servers: str
    since: datetime
    log: Path
    topics: tuple[str, ...] | None


def folder(cache: Path) -> Path:
    """Where the broker of this user keeps its data."""
    return cache / "broker"


def up(cache: Path, *, port: int, heap_mb: int, start_timeout_s: float, console: Console | None = None) -> Status:
    """Start the broker; the one that runs already is as good.

    Raises:
        BrokerFailed: it cannot start, or one runs on another port than asked for.
    """
    running = status(cache)
    if running is None:
        EmbeddedKafka(
            folder(cache),
            cache=cache,
            port=port,
            heap_mb=heap_mb,
            start_timeout_s=start_timeout_s,
            leashed=False,
            console=console,
        ).start()
        running = status(cache)
    if running is None:
        raise BrokerFailed("the broker ended just after its start; `coldstart kafka up` again shows why")
    if port and not running.bootstrap_servers.endswith(f":{port}"):
        raise BrokerFailed(
            f"the broker runs at {running.bootstrap_servers} already: "
            f"stop it first (`coldstart kafka down`) to have it on port {port}"
        )
    return running


def down(cache: Path) -> bool:
    """Stop the broker; its data stays. False when none ran."""
    home = folder(cache)
    identity = Identity.load(home)
    process = identity.process(home) if identity else None
    if process is None:
        return False
    end(process, _STOP_S)
    return True


def status(cache: Path) -> Status | None:
    """What runs; None when nothing does."""
    home = folder(cache)
    identity = Identity.load(home)
    if identity is None or identity.process(home) is None:
        return None
    address = f"127.0.0.1:{identity.port}"
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    try:
        names = admin.list_topics(timeout=_ANSWER_S).topics
    except KafkaException:
        names = None
    return Status(
        pid=identity.pid,
        bootstrap_servers=address,
        since=datetime.fromtimestamp(identity.started_at, UTC),
        log=home / "kafka.log",
        topics=None if names is None else tuple(sorted(names)),
    )
