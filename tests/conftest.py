"""What tests of several folders share: one real Kafka for all, also in several processes, and the real data set."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# Before numpy and torch read it: threads spin while another test has their core (measured: five times the work).
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from confluent_kafka import KafkaException
from hypothesis import Phase, settings

from streams.kafka.clients import admin
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka

# How long an example takes says more about the machine's other load than about the code.
settings.register_profile("coldstart", deadline=None)
# `make mutants` asks thousands of times: half of the examples will do, no smallest one, and the same score every time.
settings.register_profile(
    "mutants", deadline=None, derandomize=True, max_examples=50, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("coldstart")


_SHARED = pytest.StashKey[EmbeddedKafka]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """With ``-n`` the tests of all processes share one broker, which the one that deals them out starts."""
    config: pytest.Config = node.config
    if _SHARED not in config.stash:
        config.stash[_SHARED] = EmbeddedKafka(heap_mb=512).__enter__()
        config.add_cleanup(config.stash[_SHARED].__exit__)
    node.workerinput["kafka"] = config.stash[_SHARED].bootstrap_servers


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[KafkaSettings]:
    """Where a real broker is, started once for all tests that ask for it. Keep apart by ``prefix``, and leave it be."""
    shared = getattr(pytestconfig, "workerinput", {}).get("kafka")
    if shared:
        yield KafkaSettings(bootstrap_servers=shared)
    else:
        with EmbeddedKafka() as broker:
            yield KafkaSettings(bootstrap_servers=broker.bootstrap_servers)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """Stands before a test's topics, groups and transactional ids, so that tests share a broker unseen.

    Its topics go with the test: a broker that keeps those of all spends most of its time on them.
    """
    prefix = f"test-{uuid.uuid4().hex[:12]}."
    if "kafka" not in request.fixturenames:
        yield prefix
        return
    client = admin(request.getfixturevalue("kafka"))
    yield prefix
    if own := [name for name in client.list_topics(timeout=60).topics if name.startswith(prefix)]:
        for deleted in client.delete_topics(own).values():
            # One that the test deleted itself may be on the list still.
            with suppress(KafkaException):
                deleted.result()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data set: where COLDSTART_DATA points. Without it, skip; but not where tests are held to be complete."""
    path = os.environ.get("COLDSTART_DATA")
    if path:
        return Path(path)
    if os.environ.get("CI"):
        pytest.fail("COLDSTART_DATA is not set, and CI is: the tests on real data must run")
    pytest.skip("COLDSTART_DATA is not set: no real data")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The marks follow from the fixtures and the folder, so that none is forgotten."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "kafka" in fixtures:
            item.add_marker(pytest.mark.kafka)
        if Path(__file__).with_name("deploy") in item.path.parents:
            item.add_marker(pytest.mark.deploy)
        if "data_dir" in fixtures:
            item.add_marker(pytest.mark.data)
