"""Rights: may the configured Kafka user do what a role needs?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

from streams.kafka.access import user
from streams.operations.access_rights import ACTORS, Actor
from streams.operations.doctor.finding import Diagnosis, Patient, error

_SHOWN: Final = 20


def rights(patient: Patient) -> Iterator[Diagnosis]:
    """Topics and groups of one actor; transactional ids cannot be asked for.

    Without an actor, the user must be good for at least one of the roles, the operator among them.
    """
    actors = [each for each in ACTORS if patient.actor in (None, each.name) and _runs_here(each, patient.actor)]
    allowed = _allowed(patient)
    lacking = [(actor, sorted(_lacks(patient, actor, allowed))) for actor in actors]
    actor, missing = min(lacking, key=lambda each: len(each[1]))
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        yield error(
            f"rights: {user(patient.settings.kafka)} may not: {shown}; {actor.name} needs it",
            f"`coldstart topics acls --actor {actor.name}` prints the commands that grant it",
        )


def _runs_here(actor: Actor, asked: str | None) -> bool:
    return asked is not None or actor.everything or bool(actor.groups and actor.name.startswith("coldstart-"))


def _lacks(patient: Patient, actor: Actor, allowed: dict[str, frozenset[AclOperation] | None]) -> Iterator[str]:
    for name, topic in patient.naming.by_name().items():
        operations = allowed.get(name)
        if operations is None:
            # Missing: another check says so.
            continue
        wanted = (
            [AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS]
            if actor.everything
            else [right.value for right in actor.topics.get(topic, ())]
        )
        for operation in wanted:
            if operation not in operations:
                yield f"{operation.name} {name}"
    yield from _groups_refused(patient, [f"{patient.naming.prefix}{group}" for group in actor.groups])


def _groups_refused(patient: Patient, groups: list[str]) -> Iterator[str]:
    """Groups that this user may not even describe, which reading in them includes."""
    answers = patient.client.describe_consumer_groups(groups, request_timeout=patient.timeout) if groups else {}
    for group, answer in answers.items():
        try:
            answer.result(patient.timeout)
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                yield f"READ group {group}"


def _allowed(patient: Patient) -> dict[str, frozenset[AclOperation] | None]:
    """Topic -> what this user may do with it; None where the topic is missing."""
    names = TopicCollection(list(patient.naming.by_name()))
    answers = patient.client.describe_topics(names, include_authorized_operations=True, request_timeout=patient.timeout)
    found: dict[str, frozenset[AclOperation] | None] = {}
    for name, answer in answers.items():
        try:
            found[name] = frozenset(answer.result(patient.timeout).authorized_operations or ())
        except KafkaException as problem:
            code = problem.args[0].code()
            if code not in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART):
                raise
            found[name] = frozenset() if code == KafkaError.TOPIC_AUTHORIZATION_FAILED else None
    return found
