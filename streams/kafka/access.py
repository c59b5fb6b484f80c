"""Why a broker does not let a client in, or not do what it asks: password, certificate, rights.

librdkafka reports these beside the request that fails: the request itself only says that no answer came. So where no
answer comes, one client more is asked what it hears.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.contract.errors import ColdstartError, PartitionMismatch, Refused, Unavailable
from streams.contract.topics import Naming, Plane, Topic
from streams.runtime.settings import KafkaSettings

_HEARS_FOR_S: Final = 3.0

_NOT_AUTHORIZED: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}

_silent = logging.getLogger("librdkafka.access")
_silent.propagate = False
_silent.addHandler(logging.NullHandler())


def refusal(kafka: KafkaSettings) -> Refused | None:
    """What stands between this client and the brokers that only a person can change; None where nothing is heard.

    Takes up to three seconds.
    """
    heard: list[KafkaError] = []
    client = AdminClient(kafka.confluent() | {"error_cb": heard.append}, logger=_silent)
    deadline = time.monotonic() + _HEARS_FOR_S
    while time.monotonic() < deadline:
        client.poll(0.1)
        for error in heard:
            if (why := _explained(kafka, error)) is not None:
                return Refused(f"kafka.bootstrap_servers = {kafka.bootstrap_servers!r}: {why}")
        heard.clear()
    return None


def not_authorized(kafka: KafkaSettings, error: KafkaException) -> Refused | None:
    """The refusal that an error stands for; None where it is no lack of rights."""
    cause = error.args[0]
    if not isinstance(cause, KafkaError) or cause.code() not in _NOT_AUTHORIZED:
        return None
    return Refused(f"not authorized as {user(kafka)}: {cause.str()}; `coldstart topics acls` prints each role's rights")


def unreadable(kafka: KafkaSettings, topic: str, partition: int, cause: KafkaError) -> ColdstartError:
    """The exception that a consumer's error stands for where a partition is read to its end."""
    return not_authorized(kafka, KafkaException(cause)) or Unavailable(f"{topic}[{partition}]: {cause.str()}")


def check_topics(client: AdminClient, kafka: KafkaSettings, naming: Naming, topics: Collection[Topic]) -> None:
    """Whether this client sees all of these topics, with as many partitions as the settings say.

    Users and songs are divided by the number of partitions; their state stays where it is.

    Raises:
        Unavailable: one does not exist, or no broker answers; the message names it.
        Refused: this client may not see one.
        PartitionMismatch: one has another number of partitions.
    """
    try:
        present = client.list_topics(timeout=kafka.request_timeout_s).topics
    except KafkaException as error:
        raise Unavailable(f"the topics cannot be listed: {error.args[0].str()}") from error
    if missing := {naming.name(topic) for topic in topics} - set(present):
        raise missing_topics(kafka, missing)
    for topic in topics:
        found, declared = len(present[naming.name(topic)].partitions), naming.partitions(topic)
        if found != declared and topic.plane is not Plane.SINGLE:
            what = "users" if topic.plane is Plane.AUDIENCE else "songs"
            raise PartitionMismatch(
                f"topics.{topic.plane.value}_partitions = {declared}: topic {naming.name(topic)} has {found}; {what} "
                "would change partition while their state stayed. Set it to what the topic has; to grow, start under "
                "a new prefix and backfill"
            )


def missing_topics(kafka: KafkaSettings, names: Iterable[str]) -> ColdstartError:
    """What to raise for topics that a client does not see: they are not there, or it may not see them."""
    names = sorted(names)
    client = AdminClient(kafka.confluent(), logger=_silent)
    futures = client.describe_topics(TopicCollection(names), request_timeout=kafka.request_timeout_s)
    for name, future in futures.items():
        try:
            future.result(kafka.request_timeout_s)
        except (KafkaException, TimeoutError) as error:
            cause = error.args[0] if error.args else None
            if isinstance(cause, KafkaError) and cause.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return Refused(
                    f"not authorized as {user(kafka)}: topic {name} may not be described; "
                    "`coldstart topics acls` prints each role's rights"
                )
    return Unavailable(f"topic {', '.join(names)}: does not exist; `coldstart topics create` creates it")


def user(kafka: KafkaSettings) -> str:
    """As whom a client comes, in words."""
    return f"user {kafka.sasl_username}" if kafka.sasl_username else "anonymous client"


def _explained(kafka: KafkaSettings, error: KafkaError) -> str | None:
    text = error.str()
    if error.code() == KafkaError._AUTHENTICATION:
        return (
            f"authentication failed for {user(kafka)} ({kafka.sasl_mechanism}); "
            "check kafka.sasl_username, sasl_password and sasl_mechanism"
        )
    if error.code() == KafkaError._SSL:
        return f"the TLS connection fails ({text}); check kafka.ssl_ca, the certificates' dates and the host's name"
    return None
