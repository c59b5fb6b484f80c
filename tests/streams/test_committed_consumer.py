"""Faust's consumer sees committed records only, and commits past what it does not see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from faust.types import TP

from streams.contract.topics import Naming
from streams.runtime.settings import KafkaSettings, SongsSettings, TopicSettings
from streams.songs.agents import faust_app
from streams.songs.committed_consumer import CommittedConsumer

T = TypeVar("T")
UPLOADS = TP("mine.song-uploads", 0)


@pytest.fixture
def app(tmp_path: Path) -> Any:
    return faust_app(KafkaSettings(), TopicSettings(), SongsSettings(), Naming("mine.", 2, 2), tmp_path)


def of_consumer(app: Any, asked: Callable[[Any], T]) -> T:
    """An answer of the consumer that Faust makes for the application."""

    async def run() -> T:
        consumer = app._new_consumer()
        try:
            return asked(consumer)
        finally:
            consumer._thread.thread_loop.close()

    return asyncio.run(run())


def test_the_client_that_faust_makes_reads_committed_records(app: Any) -> None:
    def isolation(consumer: Any) -> str:
        client = consumer._thread._create_worker_consumer(app.transport)
        # It was not started, so that there is nothing to close.
        client._closed = True
        return str(client._isolation_level)

    assert of_consumer(app, isolation) == "read_committed"


@pytest.mark.parametrize(
    ("committed", "acked", "expected"),
    [
        (None, [0, 1, 2], 3),
        # Aborted records and the ends of transactions have offsets, but are never seen.
        (1, [3], 4),
        (1, [3, 4, 9], 10),
        (None, [7], 8),
        (8, [10_000_000], 10_000_001),
    ],
)
def test_offsets_without_visible_records_do_not_hold_up_the_commit(
    app: Any, committed: int | None, acked: list[int], expected: int
) -> None:
    def commits(consumer: Any) -> list[int | None]:
        assert isinstance(consumer, CommittedConsumer)
        consumer._committed_offset[UPLOADS] = committed
        consumer._acked[UPLOADS].extend(acked)
        consumer._acked_index[UPLOADS].update(acked)
        return [consumer._filter_committable_offsets([UPLOADS]).get(UPLOADS), consumer._new_offset(UPLOADS)]

    assert of_consumer(app, commits) == [expected, None]


def test_an_answer_that_is_lost_is_asked_for_before_a_send_is_given_up(app: Any) -> None:
    async def patience() -> tuple[float, float]:
        producer = app.transport.create_producer()._new_producer()
        # It was not started, so that there is nothing to close.
        producer._closed = True
        return producer.client._request_timeout_ms, producer._request_timeout_ms

    answer, send = asyncio.run(patience())
    assert 0 < answer <= send / 2
