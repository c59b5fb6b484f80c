"""How do the declared topics come to exist, and do those that exist match the declaration?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from streams.clock import Clock, SystemClock
from streams.errors import Refused, Unavailable
from streams.topics import TOPICS, Naming


@dataclass(frozen=True, slots=True)
class Deviation:
    """A topic on the broker that is not as declared."""

    topic: str
    what: str
    declared: str
    found: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.what} is {self.found}, declared {self.declared}"


def create_topics(
    admin: AdminClient, naming: Naming, replication: int, timeout: float = 30.0, clock: Clock | None = None
) -> list[str]:
    """Create the declared topics that are missing; returns their full names once they are served.

    Raises:
        Refused: the broker refuses one; the message says which and why.
        Unavailable: no broker serves one of them in time.
    """
    clock = clock or SystemClock()
    futures = admin.create_topics(
        [
            NewTopic(naming.name(t), naming.partitions(t), replication, config=t.config())
            for t in TOPICS
        ],
        operation_timeout=timeout,
    )  # fmt: skip
    created = []
    for name, future in futures.items():
        try:
            future.result(timeout)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Refused(f"topic {name}: {error.args[0].str()}") from None
        else:
            created.append(name)
    # The controller says yes a moment before the brokers lead the partitions; who asks one then is sent away.
    deadline = clock.monotonic() + timeout
    while waiting := _not_led(admin, naming, created, timeout):
        if clock.monotonic() > deadline:
            raise Unavailable(f"topic {', '.join(waiting)}: created, but not served after {timeout:g} s")
    return created


def _not_led(admin: AdminClient, naming: Naming, names: Sequence[str], timeout: float) -> list[str]:
    """Those of the topics with a partition that no broker serves yet."""
    wanted, latest = naming.by_name(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
    # Asked first, because the client keeps what it has heard of missing topics and leaders for half a minute.
    present = admin.list_topics(timeout=timeout).topics
    if missing := sorted(set(names) - set(present)):
        return missing
    places = [TopicPartition(name, number) for name in names for number in range(naming.partitions(wanted[name]))]
    asked = admin.list_offsets(dict.fromkeys(places, latest), request_timeout=timeout) if places else {}
    return sorted({place.topic for place, future in asked.items() if future.exception(timeout) is not None})


def deviations(admin: AdminClient, naming: Naming, timeout: float = 10.0) -> list[Deviation]:
    """Where the broker differs from the declaration: missing topics, partition counts, settings."""
    present = admin.list_topics(timeout=timeout).topics
    found = []
    wanted = naming.by_name()
    for name, topic in wanted.items():
        if name not in present:
            found.append(Deviation(name, "existence", "present", "missing"))
        elif len(present[name].partitions) != naming.partitions(topic):
            found.append(
                Deviation(name, "partitions", str(naming.partitions(topic)), str(len(present[name].partitions)))
            )
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in wanted if name in present]
    for resource, future in admin.describe_configs(resources, request_timeout=timeout).items() if resources else ():
        actual = future.result(timeout)
        for key, value in wanted[resource.name].config().items():
            if actual[key].value != value:
                found.append(Deviation(resource.name, key, value, str(actual[key].value)))
    return found
