"""Faust on committed records: those of committed transactions and those outside any, readable or not.

Faust reads uncommitted records unless it writes transactions itself, and has no setting for that, nor for how long a
producer waits for a response before it retries. Both are changed here and nowhere else, for faust-streaming 0.15.3 with
aiokafka 0.14.0; a test fails if the internals used here change.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver

from streams.kafka.batches import kept, read_leniently


class _Thread(driver.AIOKafkaConsumerThread):
    """The thread that owns the client."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        client = super()._create_worker_consumer(transport)
        # Read when the client starts, which is later.
        if client._isolation_level not in ("read_uncommitted", "read_committed"):
            raise TypeError(
                f"aiokafka's isolation level is {client._isolation_level!r}: not the version this was made for"
            )
        client._isolation_level = "read_committed"
        read_leniently()
        # Every record passes through them, which bounds the records waiting for their turn.
        client._key_deserializer = client._value_deserializer = kept
        return client


class CommittedConsumer(driver.Consumer):
    """Sees committed records only, and commits past what it does not see."""

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: Any) -> int | None:
        """The offset to commit: the one after the newest acknowledged record.

        Correct because the agents acknowledge in topic order. Faust looks for consecutive offsets instead and fills the
        gaps that it saw (transaction markers, aborted records), but not one after offset 0: it would never commit
        again.
        """
        acked = self._acked[tp]
        if not acked:
            return None
        newest: int = max(acked)
        self._acked_index[tp].difference_update(acked)
        acked.clear()
        self._gap.pop(tp, None)
        return newest + 1


class RetryingProducer(driver.Producer):
    """Sends again what is not answered, until ``producer_request_timeout`` is over.

    aiokafka has one setting for both, so a response lost by the network would be waited for until the end.
    """

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        # Applies to every connection made from now on.
        producer.client._request_timeout_ms = int(1000 * self.app.conf.broker_request_timeout)
        return producer


class _Transport(driver.Transport):
    Consumer = CommittedConsumer
    Producer = RetryingProducer


class App(faust.App):
    """Faust's application, on committed records."""

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)
