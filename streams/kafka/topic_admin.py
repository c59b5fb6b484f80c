"""Creates the declared topics, and compares those that exist with the declaration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ListOffsetsResultInfo,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

from streams.contract.errors import Refused, Unavailable
from streams.contract.topics import TIME_SETTINGS, TOPICS, Naming, Topic
from streams.kafka.clients import reason
from streams.runtime.clock import SystemClock

_ANY: Any = None
_EVERY_RIGHT: Final = AclBindingFilter(
    ResourceType.ANY, _ANY, ResourcePatternType.ANY, _ANY, _ANY, AclOperation.ANY, AclPermissionType.ANY
)


@dataclass(frozen=True, slots=True)
class Deviation:
    """A topic on the broker that is not as declared."""

    topic: str
    what: str
    declared: str
    found: str

    def __str__(self) -> str:
        if self.what == "existence":
            return f"{self.topic}: missing"
        return f"{self.topic}: {self.what} {self.found}, declared {self.declared}"


def create_topics(admin: AdminClient, naming: Naming, replication: int, timeout: float = 30.0) -> list[str]:
    """Create the declared topics that are missing; returns their full names once they are served.

    Raises:
        Refused: the broker refuses one; the message says which and why.
        Unavailable: no broker serves one of them in time.
    """
    futures = admin.create_topics(
        [
            NewTopic(naming.name(t), naming.partitions(t), replication, config=t.config() | durability(replication))
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
    _until_none(lambda: _not_led(admin, naming, created, timeout), "created, but not served", timeout)
    return created


def grant(admin: AdminClient, rights: Sequence[AclBinding], timeout: float = 10.0) -> int:
    """Grant rights; those that are there already stay. Returns how many were asked for, once the broker has them.

    Raises:
        Refused: the broker refuses one, for example because it knows no rights at all.
        Unavailable: the broker does not have them in time.
    """
    for right, future in admin.create_acls(list(rights), request_timeout=timeout).items():
        try:
            future.result(timeout)
        except KafkaException as error:
            raise Refused(f"{right}: {error.args[0].str()}") from None

    def missing() -> list[AclBinding]:
        try:
            there = set(admin.describe_acls(_EVERY_RIGHT, request_timeout=timeout).result(timeout))
        except (KafkaException, TimeoutError) as error:
            raise Unavailable(f"rights granted, but they cannot be read: {reason(error)}") from None
        return [right for right in rights if right not in there]

    _until_none(missing, "granted, but not in force", timeout)
    return len(rights)


def _until_none(left: Callable[[], Sequence[object]], what: str, timeout: float) -> None:
    """Ask until nothing is left: the controller confirms a change a moment before brokers go by it.

    Raises:
        Unavailable: something is left after ``timeout`` seconds; the message names it.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + timeout
    while waiting := left():
        if clock.monotonic() > deadline:
            raise Unavailable(f"{', '.join(map(str, waiting))}: {what} after {timeout:g} s")


def durability(replication: int) -> dict[str, str]:
    """Every producer here waits for all in-sync copies (acks=all). With three copies that means at least two: one
    broker may die, nothing acknowledged is lost, and nothing waits for it to come back."""
    return {"min.insync.replicas": "2"} if replication >= 3 else {}


def _not_led(admin: AdminClient, naming: Naming, names: Sequence[str], timeout: float) -> list[str]:
    """Those of the topics with a partition that no broker serves yet."""
    wanted, latest = naming.by_name(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
    # Asked first, because the client caches missing topics and leaders for half a minute.
    present = admin.list_topics(timeout=timeout).topics
    if missing := sorted(set(names) - set(present)):
        return missing
    places = [TopicPartition(name, number) for name in names for number in range(naming.partitions(wanted[name]))]
    asked = admin.list_offsets(dict.fromkeys(places, latest), request_timeout=timeout) if places else {}

    def told(end: Future[ListOffsetsResultInfo]) -> bool:
        try:
            # Below 0: the connection was lost before the answer.
            return bool(end.result(timeout).offset >= 0)
        except (KafkaException, TimeoutError):
            return False

    return sorted({place.topic for place, end in asked.items() if not told(end)})


def deviations(admin: AdminClient, naming: Naming, replication: int = 1, timeout: float = 10.0) -> list[Deviation]:
    """Where the broker differs from the declaration: missing topics, partition counts, copies, settings.

    Args:
        replication: copies of every partition (``topics.replication_factor``).
    """
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
        else:
            copies = {len(each.replicas) for each in present[name].partitions.values()}
            found += [
                Deviation(name, "copies of a partition", str(replication), str(each)) for each in copies - {replication}
            ]
    there = {name: topic for name, topic in wanted.items() if name in present}
    return found + _other_settings(admin, there, timeout, durability(replication))


def update_topics(admin: AdminClient, naming: Naming, replication: int = 1, timeout: float = 10.0) -> list[Deviation]:
    """Give the topics that exist the settings that are declared; returns what was different, once the broker applies
    what is declared.

    Partitions, copies and settings that are not declared stay as they are.

    Raises:
        Refused: the broker refuses a setting; the message says which topic and why.
        Unavailable: the broker does not answer, or does not apply a setting in time.
    """
    present = admin.list_topics(timeout=timeout).topics
    wanted = {name: topic for name, topic in naming.by_name().items() if name in present}
    changed = _other_settings(admin, wanted, timeout, durability(replication))
    entries: dict[str, list[ConfigEntry]] = {}
    for each in changed:
        entry = ConfigEntry(each.what, each.declared, incremental_operation=AlterConfigOpType.SET)
        entries.setdefault(each.topic, []).append(entry)
    resources = [
        ConfigResource(ResourceType.TOPIC, name, incremental_configs=configs) for name, configs in entries.items()
    ]
    futures = admin.incremental_alter_configs(resources, request_timeout=timeout) if resources else {}
    for resource, future in futures.items():
        try:
            future.result(timeout)
        except KafkaException as error:
            raise Refused(f"topic {resource.name}: {error.args[0].str()}") from None
    touched = {name: wanted[name] for name in entries}
    _until_none(
        lambda: _other_settings(admin, touched, timeout, durability(replication)), "set, but not in force", timeout
    )
    return changed


def check_times(admin: AdminClient, naming: Naming, topics: Sequence[Topic], timeout: float = 10.0) -> None:
    """Whether the times of these topics' records are the broker's, or what the broker was told to let through.

    Raises:
        Refused: a topic takes a producer's word; the message names it, the setting, and what mends it.
        Unavailable: a topic is missing, or the broker does not answer.
    """
    found = _other_settings(admin, {naming.name(topic): topic for topic in topics}, timeout, only=TIME_SETTINGS)
    if found:
        raise Refused(
            f"topic {found[0]}: records would be judged by their producers' clocks; `coldstart topics update` sets it, "
            f"`coldstart topics check` names every difference"
        )


def _other_settings(
    admin: AdminClient,
    topics: Mapping[str, Topic],
    timeout: float,
    more: Mapping[str, str] = MappingProxyType({}),
    only: Sequence[str] | None = None,
) -> list[Deviation]:
    """The settings of existing topics, by full name, that are not as declared.

    Raises:
        Unavailable: a topic is missing, or the broker does not answer.
    """
    found = []
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    for resource, future in admin.describe_configs(resources, request_timeout=timeout).items() if resources else ():
        try:
            actual = future.result(timeout)
        except (KafkaException, TimeoutError) as error:
            why = error.args[0].str() if isinstance(error, KafkaException) else f"no answer in {timeout:g} s"
            raise Unavailable(
                f"topic {resource.name}: its settings cannot be read ({why}); "
                "`coldstart topics create` creates a missing one"
            ) from None
        for key, value in (topics[resource.name].config() | dict(more)).items():
            # A broker older than a setting does not name it.
            there = actual[key].value if key in actual else None
            if there != value and (only is None or key in only):
                found.append(Deviation(resource.name, key, value, str(there)))
    return found
