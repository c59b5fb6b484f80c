"""The embedded Apache Kafka: the real one, started and stopped like a file is opened and closed."""

from streams.broker.cluster import EmbeddedCluster
from streams.broker.embedded import EmbeddedKafka

__all__ = ["EmbeddedCluster", "EmbeddedKafka"]
