"""What a check finds, and what a check is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from confluent_kafka.admin import AdminClient

from streams.contract.topics import Naming
from streams.kafka import clients
from streams.runtime.clock import Clock
from streams.runtime.settings import Settings


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """Something does not work, or soon will not."""
    WARNING = "warning"
    """It works, and somebody should look."""
    UNKNOWN = "unknown"
    """Could not be checked."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that is wrong.

    Attributes:
        what: the thing and the value that was found.
        do: the way out.
    """

    severity: Severity
    what: str
    do: str


def error(what: str, do: str) -> Diagnosis:
    return Diagnosis(Severity.ERROR, what, do)


def warning(what: str, do: str) -> Diagnosis:
    return Diagnosis(Severity.WARNING, what, do)


def unknown(what: str, do: str) -> Diagnosis:
    return Diagnosis(Severity.UNKNOWN, what, do)


@dataclass
class Patient:
    """The installation, as its settings describe it.

    Attributes:
        urls: of the workers' health servers; empty: where the settings have the two of this machine.
        actor: whose rights the configured Kafka user must have; None: those of any one.
    """

    settings: Settings
    clock: Clock
    urls: Sequence[str] = ()
    actor: str | None = None
    naming: Naming = field(init=False)

    def __post_init__(self) -> None:
        self.naming = self.settings.topics.naming()

    @cached_property
    def client(self) -> AdminClient:
        """Known to reach the cluster. Raises as :func:`streams.kafka.clients.admin`."""
        return clients.admin(self.settings.kafka)

    @cached_property
    def metadata(self) -> Any:
        """The cluster's brokers and topics."""
        return self.client.list_topics(timeout=self.timeout)

    @property
    def timeout(self) -> float:
        return self.settings.kafka.request_timeout_s


@dataclass(frozen=True, slots=True)
class Check:
    """A question about an installation.

    Attributes:
        examine: yields what is wrong. An expected error that it raises is a finding too.
        needs_kafka: not asked where no broker answers.
    """

    name: str
    examine: Callable[[Patient], Iterable[Diagnosis]]
    needs_kafka: bool = True
