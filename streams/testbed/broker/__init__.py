"""The embedded Apache Kafka: the real one, started and stopped like a file is opened and closed."""

from streams.testbed.broker.cluster import EmbeddedCluster
from streams.testbed.broker.embedded import EmbeddedKafka

__all__ = ["EmbeddedCluster", "EmbeddedKafka"]
