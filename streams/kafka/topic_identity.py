"""What tells topics of one name apart, and clusters: the ids that the broker gave them."""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.contract.errors import Unavailable
from streams.kafka.clients import reason
from streams.runtime.settings import KafkaSettings


def topic_ids(client: AdminClient, names: Collection[str], timeout: float) -> dict[str, str]:
    """Full topic name -> the id that the broker gave it when it was created.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """
    asked = client.describe_topics(TopicCollection(list(names)), request_timeout=timeout)
    found = {}
    for name, future in asked.items():
        try:
            found[name] = str(future.result(timeout).topic_id)
        except (KafkaException, TimeoutError) as error:
            raise Unavailable(f"topic {name}: cannot be described ({reason(error)})") from error
    return found


def cluster_id(client: AdminClient, kafka: KafkaSettings) -> str:
    """The cluster's own name.

    Raises:
        Unavailable: the broker does not answer.
    """
    try:
        return str(client.list_topics(timeout=kafka.request_timeout_s).cluster_id)
    except KafkaException as error:
        raise Unavailable(f"the cluster's id cannot be read ({reason(error)})") from error
