"""What tests of the streams share: an installation of its own on the real broker."""

from __future__ import annotations

import pytest
from installation import Installation

from streams.contract.topics import Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.runtime.settings import KafkaSettings


@pytest.fixture
def here(kafka: KafkaSettings, prefix: str) -> Installation:
    reach = kafka
    naming = Naming(prefix, 2, 2)
    client = admin(reach)
    create_topics(client, naming, 1)
    return Installation(reach, naming)
