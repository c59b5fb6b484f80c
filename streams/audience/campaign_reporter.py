"""Tells the songs role how campaigns stand, after each commit and again once a minute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import structlog
from confluent_kafka import KafkaError, Message, Producer

from streams.audience.changelog_reader import ACCOUNT_PREFIX
from streams.audience.encode import report_record
from streams.audience.task import PartitionTask
from streams.contract.cloudevents import Record
from streams.contract.topics import CAMPAIGN_REPORTS, Naming
from streams.contract.trace_context import traced
from streams.kafka.clients import hand_over, producer
from streams.runtime.clock import Clock
from streams.runtime.health import Heartbeat
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import KafkaSettings
from streams.runtime.tracing import Hop
from targeting.types import Account

# The reports of live campaigns are sent again this often, so that a lost one does no harm for longer.
_ALL_EVERY_S: Final = 60.0

# Changes other than answers to requests, such as new listeners, are reported together, not batch by batch.
_CHANGES_EVERY_S: Final = 1.0

_log = structlog.get_logger(__name__)


class CampaignReporter:
    """Sends reports from committed state, outside its transaction; one that is lost is sent again within a minute."""

    def __init__(
        self, kafka: KafkaSettings, naming: Naming, clock: Clock, metrics: AudienceMetrics, heartbeat: Heartbeat
    ) -> None:
        self._naming = naming
        self._clock = clock
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._timeout = kafka.request_timeout_s
        self._producer: Producer = producer(kafka)
        self._all_due = clock.monotonic() + _ALL_EVERY_S
        self._changes_due = clock.monotonic() + _CHANGES_EVERY_S

    def round(self, held: Mapping[int, PartitionTask]) -> None:
        """Report what changed, at most once a second, and everything once a minute."""
        self._producer.poll(0)
        now = self._clock.monotonic()
        if now < min(self._all_due, self._changes_due):
            return
        self._changes_due = now + _CHANGES_EVERY_S
        all_due = now >= self._all_due
        if all_due:
            self._all_due = now + _ALL_EVERY_S
        for partition, each in held.items():
            changed = each.state.changed_accounts()
            self.report(partition, each, [*changed, *(each.state.accounts() if all_due else ())])

    def report(
        self,
        partition: int,
        held: PartitionTask,
        accounts: Iterable[Account],
        hops: Mapping[str, Hop] = MappingProxyType({}),
    ) -> None:
        """Send the accounts of a partition's campaigns.

        Args:
            hops: song id -> the work on its request, where this is the answer to one that belongs to a trace.
        """
        now = self._clock.now()
        # A song that ended and began anew in one batch has one record, so one version: that of the last account.
        for account in {account.song_id: account for account in accounts}.values():
            version = held.versions[ACCOUNT_PREFIX + account.song_id.encode()]
            record = report_record(account, partition, self._naming.audience_partitions, version, now)
            hop = hops.get(account.song_id)
            self._send(traced(record, hop.traceparent) if hop else record)

    def flush(self) -> None:
        """Send what is queued, within the request timeout."""
        self._producer.flush(self._timeout)

    def _send(self, record: Record) -> None:
        topic = self._naming.name(CAMPAIGN_REPORTS)
        hand_over(self._producer, topic, record, self._sent, self._heartbeat.beat)

    def _sent(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._metrics.reports_sent.inc()
        else:
            _log.warning("report not sent, sent again within a minute", error=error.str())
