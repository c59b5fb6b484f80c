"""The contract's document for one installation: its topics' names, partitions and servers."""

from __future__ import annotations

from typing import Any

from streams.contract import asyncapi
from streams.runtime.settings import KafkaSettings, TopicSettings


def document(topics: TopicSettings | None = None, kafka: KafkaSettings | None = None) -> dict[str, Any]:
    """The document as plain data; without settings, of their defaults, as it is kept in the repository."""
    topics, kafka = topics or TopicSettings(), kafka or KafkaSettings()
    return asyncapi.asyncapi(
        topics.naming(), kafka.bootstrap_servers, kafka.security_protocol, topics.replication_factor
    )
