"""The least rights of each role and of each team around them, in one table.

``coldstart topics acls`` prints the table as commands, and a test lets each of them work with exactly these rights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from streams.contract.topics import (
    AUDIENCE_STATE,
    AUDIENCE_VECTORS,
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    DEAD_LETTERS,
    LISTENS,
    MATCH_REQUESTS,
    MODELS,
    PREFERENCES,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    WARM_SONGS,
    Naming,
    Topic,
)
from streams.kafka.clients import reader_group


class Right(Enum):
    """What may be done with a topic. Reading and writing include describing it."""

    READ = AclOperation.READ
    WRITE = AclOperation.WRITE
    SETTINGS = AclOperation.DESCRIBE_CONFIGS


@dataclass(frozen=True, slots=True)
class Actor:
    """A client of the broker with a user name of its own.

    Attributes:
        name: suggested name of the Kafka user.
        does: what they do, in words.
        topics: topic -> what they may do with it.
        groups: consumer groups, by what their names begin with; the installation's prefix stands before them.
        transactions: transactional ids, likewise.
        everything: all of the installation's topics and groups: whoever creates, checks and repairs them.
    """

    name: str
    does: str
    topics: Mapping[Topic, frozenset[Right]] = field(default_factory=lambda: MappingProxyType({}))
    groups: tuple[str, ...] = ()
    transactions: tuple[str, ...] = ()
    everything: bool = False


def _rights(
    reads: tuple[Topic, ...] = (), writes: tuple[Topic, ...] = (), settings: tuple[Topic, ...] = ()
) -> Mapping[Topic, frozenset[Right]]:
    named = ((Right.READ, reads), (Right.WRITE, writes), (Right.SETTINGS, settings))
    topics = dict.fromkeys([*reads, *writes, *settings])
    return MappingProxyType({topic: frozenset(right for right, of in named if topic in of) for topic in topics})


_SONGS_INPUTS: Final = (SONG_UPLOADS, CAMPAIGN_REPORTS)
_AUDIENCE_INPUTS: Final = (LISTENS, MATCH_REQUESTS, PREFERENCES, AUDIENCE_VECTORS, PUSH_OUTCOMES)

ACTORS: Final = (
    Actor(
        "coldstart-songs",
        "songs role",
        _rights(
            reads=(*_SONGS_INPUTS, WARM_SONGS, MODELS, SONGS_LEDGER, SONGS_REPORTS),
            writes=(MATCH_REQUESTS, CAMPAIGNS, WARM_SONGS, DEAD_LETTERS, SONGS_LEDGER, SONGS_REPORTS),
            # It refuses to start if producers set the records' timestamps.
            settings=_SONGS_INPUTS,
        ),
        groups=("songs",),
    ),
    Actor(
        "coldstart-audience",
        "audience role",
        _rights(
            reads=(*_AUDIENCE_INPUTS, WARM_SONGS, MODELS, AUDIENCE_STATE),
            writes=(PUSH_TARGETS, AUDIENCE_STATE, DEAD_LETTERS, CAMPAIGN_REPORTS),
            settings=(*_AUDIENCE_INPUTS, AUDIENCE_STATE),
        ),
        groups=("audience",),
        transactions=("audience-",),
    ),
    Actor("coldstart-publish", "`coldstart publish`", _rights(writes=(WARM_SONGS, MODELS))),
    Actor("coldstart-probe", "`coldstart probe`", _rights(reads=(CAMPAIGNS,), writes=(SONG_UPLOADS,))),
    Actor("upload-service", "publishes songs", _rights(writes=(SONG_UPLOADS,))),
    Actor("player", "tells who listens", _rights(writes=(LISTENS,))),
    Actor("account-service", "tells what users allow", _rights(writes=(PREFERENCES,))),
    Actor("user-model", "sends vectors of users", _rights(writes=(AUDIENCE_VECTORS,))),
    Actor(
        "push-system",
        "sends pushes and tells their outcomes",
        _rights(reads=(PUSH_TARGETS, CAMPAIGNS, PREFERENCES), writes=(PUSH_OUTCOMES,)),
        groups=("push-system",),
    ),
    Actor("operator", "creates topics, watches lag, reads dead letters", everything=True),
)
"""Everyone who uses the topics."""


def grants(actor: Actor, naming: Naming, principal: str) -> list[AclBinding]:
    """What an actor is to be granted, under the name of a Kafka user (``User:...``)."""
    return [
        AclBinding(kind, name, pattern, f"User:{principal}", "*", operation, AclPermissionType.ALLOW)
        for kind, name, pattern, operations in _wanted(actor, naming)
        for operation in operations
    ]


def commands(actor: Actor, naming: Naming, principal: str, bootstrap: str) -> list[str]:
    """The same as commands of Kafka's own ``kafka-acls``, one a resource."""
    options = {ResourceType.TOPIC: "--topic", ResourceType.GROUP: "--group"}
    found = []
    for kind, name, pattern, operations in _wanted(actor, naming):
        words = [f"--operation {each.name.title().replace('_', '')}" for each in operations]
        resource = f"{options.get(kind, '--transactional-id')} '{name}'"
        prefixed = " --resource-pattern-type prefixed" if pattern is ResourcePatternType.PREFIXED else ""
        found.append(
            f"kafka-acls --bootstrap-server {bootstrap} --command-config admin.properties --add "
            f"--allow-principal 'User:{principal}' {' '.join(words)} {resource}{prefixed}"
        )
    return found


def _wanted(
    actor: Actor, naming: Naming
) -> Iterator[tuple[ResourceType, str, ResourcePatternType, list[AclOperation]]]:
    exactly, prefixed = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
    if actor.everything:
        for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID):
            yield kind, naming.prefix, prefixed, [AclOperation.ALL]
        return
    for topic, rights in actor.topics.items():
        operations = [right.value for right in Right if right in rights]
        yield ResourceType.TOPIC, naming.name(topic), exactly, operations
    for topic, rights in actor.topics.items():
        if Right.READ in rights:
            yield ResourceType.GROUP, reader_group(naming.name(topic)), exactly, [AclOperation.READ]
    for group in actor.groups:
        # Their names go on where several groups do one job.
        yield ResourceType.GROUP, f"{naming.prefix}{group}", prefixed, [AclOperation.READ]
    for transaction in actor.transactions:
        name = f"{naming.prefix}{transaction}"
        yield ResourceType.TRANSACTIONAL_ID, name, prefixed, [AclOperation.WRITE, AclOperation.DESCRIBE]
