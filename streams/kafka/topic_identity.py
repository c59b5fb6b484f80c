"""Topic ids: two topics of one name, one after the other, differ in them."""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.contract.errors import Unavailable
from streams.kafka.clients import reason


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
