"""The table of topics: names, planes and settings."""

from __future__ import annotations

import pytest

from streams.contract.topics import (
    AUDIENCE_VECTORS,
    DEAD_LETTERS,
    MAX_RECORD_BYTES,
    SONGS_LEDGER,
    TOPICS,
    WARM_SONGS,
    Cleanup,
    Naming,
    Plane,
    Topic,
)

NAMING = Naming("mine.", 8, 3)
WEEK_MS = 7 * 86_400_000


def test_names_are_unique_and_carry_the_prefix() -> None:
    by_name = NAMING.by_name()
    assert len(by_name) == len(TOPICS)
    assert all(name == f"mine.{topic.name}" for name, topic in by_name.items())


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_partitions_follow_the_plane(topic: Topic) -> None:
    assert NAMING.partitions(topic) == {Plane.AUDIENCE: 8, Plane.SONGS: 3, Plane.SINGLE: 1}[topic.plane]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_is_either_deleted_after_a_time_or_compacted(topic: Topic) -> None:
    config = topic.config()
    assert config["cleanup.policy"] == topic.cleanup.value
    larger = topic in (DEAD_LETTERS, SONGS_LEDGER, WARM_SONGS)
    assert config["max.message.bytes"] == str(MAX_RECORD_BYTES if larger else MAX_RECORD_BYTES // 2)
    if topic.cleanup is Cleanup.DELETE:
        assert topic.retention_ms is not None
        assert config["retention.ms"] == str(topic.retention_ms)
        assert "delete.retention.ms" not in config
    else:
        assert topic.retention_ms is None
        assert "retention.ms" not in config
        # Readers that were away for a week still see every deletion.
        assert config["delete.retention.ms"] == str(WEEK_MS)
        # What was erased leaves the log soon: only closed segments are compacted.
        assert config["segment.ms"] == "3600000"


def test_users_inputs_and_state_share_their_partitions() -> None:
    by_user = {topic.name for topic in TOPICS if topic.key == "user_id"}
    together = {topic.name for topic in TOPICS if topic.plane is Plane.AUDIENCE}
    assert by_user <= together
    assert {"match-requests", "audience-state"} <= together


def test_every_topic_is_stamped_by_the_broker_but_vectors_whose_time_says_when_they_were_made() -> None:
    own = {t.name: t.config() for t in TOPICS if t.config()["message.timestamp.type"] != "LogAppendTime"}
    assert own.keys() == {AUDIENCE_VECTORS.name}
    assert own[AUDIENCE_VECTORS.name]["message.timestamp.after.max.ms"] == "300000"
