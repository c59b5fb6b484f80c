"""How a partition comes to this worker: its state from disk and changelog, its place in every input."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import structlog
from confluent_kafka import OFFSET_BEGINNING

from streams.audience.changelog_reader import ChangelogClients, RestoredExtras, read_changelog
from streams.audience.consumers import REREAD, Assignment
from streams.audience.deduplication import Deduplication
from streams.audience.disk_recovery import refusal, restore
from streams.audience.local_store import Entry, LocalStore, LocalStores, StoreCorrupted
from streams.audience.placement import strangers
from streams.audience.positions import TOPIC_OF, InputOffsets, reconcile, within
from streams.audience.task import PartitionTask
from streams.audience.worker_context import WorkerContext
from streams.contract.errors import Refused
from streams.contract.topics import AUDIENCE_STATE
from streams.runtime.health import Condition
from targeting.partition.partition import Partition

# Of what the broker knows: as long as some small partitions take.
_STANDING_S: Final = 5.0
# Of the disk's copy: a fraction of a second of restoring.
_ENTRIES_A_BEAT: Final = 20_000

_log = structlog.get_logger(__name__)


class Restorer:
    """Restores partitions, one after the other, asking the broker for all of them at once.

    A question takes some milliseconds, a new client a tenth of a second; a small partition is read in less.

    Args:
        new_partition: makes the empty state of a partition.
        stores: the disk's copies of the changelog.
        ready: told how far a restore is.
    """

    def __init__(
        self,
        context: WorkerContext,
        assignment: Assignment,
        new_partition: Callable[[int], Partition],
        stores: LocalStores,
        ready: Condition,
    ) -> None:
        self._context = context
        self._assignment = assignment
        self._new_partition = new_partition
        self._stores = stores
        self._ready = ready
        self._restoring: int | None = None
        self._clients: ChangelogClients | None = None
        self._standing: dict[int, _Standing] = {}

    def abandon(self, gone: Collection[int]) -> None:
        """These partitions went to another member, or start over."""
        self._standing.clear()
        if self._restoring in gone:
            self._restoring = None

    def rest(self) -> None:
        """Nothing is left to restore: release what restoring needs."""
        self._standing.clear()
        if self._clients is not None:
            self._clients.close()
            self._clients = None

    def restore(self, partition: int, waiting: Sequence[int]) -> PartitionTask | None:
        """The partition's task, before any input is read; None: meanwhile it became another member's.

        Args:
            waiting: the partitions that are to be restored, this one among them.

        Raises:
            Refused: the changelog holds what cannot be read; the message names it and the way out.
            PartitionMismatch, ErasureKeyMismatch, Unavailable: as their names say.
        """
        clock, metrics = self._context.clock, self._context.metrics
        started = clock.monotonic()
        standing = self._standing_of(partition, waiting)
        self._restoring, store = partition, self._stores.open(partition)
        try:
            state, extras, store = self._state(partition, store)
        except _Gone:
            return None
        finally:
            metrics.restoring_records.set(0)
            metrics.restoring_seconds.set(0)
        topic_ids, ranges = standing.topic_ids, standing.ranges
        ends = {name: end for name, (_, end) in ranges.items()}
        at, gaps = within(reconcile(partition, standing.committed, extras.inputs, topic_ids, ends), ranges, REREAD)
        for gap in gaps:
            topic = self._context.naming.name(TOPIC_OF[gap.input])
            metrics.records_lost.labels(topic).inc(gap.lost)
            _log.error("records lost", topic=topic, partition=partition, lost=gap.lost, why=gap.why)
        task = self._task(partition, state, extras, store, at, standing)
        seconds = clock.monotonic() - started
        metrics.restore_seconds.observe(seconds)
        metrics.restored_records.inc(extras.records)
        _log.info("restored", partition=partition, records=extras.records, seconds=round(seconds, 3))
        return task

    def _standing_of(self, partition: int, waiting: Sequence[int]) -> _Standing:
        """Asked for once for all that wait, and again when that is long ago: retention goes on meanwhile."""
        now = self._context.clock.monotonic()
        known = self._standing.get(partition)
        if known is None or now - known.asked_at > _STANDING_S:
            assignment = self._assignment
            # In this order: what the group committed is never beyond the ends.
            committed, topic_ids = assignment.committed(waiting), assignment.topic_ids()
            ranges, preferences = assignment.ranges(waiting), assignment.ends("preferences", waiting)
            self._standing = {p: _Standing(committed[p], topic_ids, ranges[p], preferences[p], now) for p in waiting}
        return self._standing[partition]

    def _task(
        self,
        partition: int,
        state: Partition,
        extras: RestoredExtras,
        store: LocalStore | None,
        at: InputOffsets,
        standing: _Standing,
    ) -> PartitionTask:
        repeats = Deduplication(at.listens, standing.ranges["listens"][0])
        lost = strangers(state.user_ids(), partition, self._context.naming.audience_partitions)
        if lost:
            _log.error("users in the wrong partition get no pushes from it", partition=partition, users=len(lost))
        return PartitionTask(
            state=state,
            at=replace(at, **dict.fromkeys(REREAD, OFFSET_BEGINNING)),
            restored_offsets=at,
            repeats=repeats,
            topic_ids=standing.topic_ids,
            dedup_replay_offset=repeats.start if at.listens > repeats.start else None,
            versions=extras.versions,
            store=store,
            preferences_until=standing.preferences_end,
            commands_by=None,
            strangers=lost,
            written_at=self._context.clock.monotonic(),
        )

    def _state(self, partition: int, store: LocalStore | None) -> tuple[Partition, RestoredExtras, LocalStore | None]:
        """The state, and the disk's copy if it serves; what is on disk is given up where it cannot be used."""
        try:
            try:
                return *self._read(partition, store), store
            except StoreCorrupted as corrupted:
                store = self._stores.recreate(partition, store, str(corrupted))
            try:
                return *self._read(partition, store), store
            except StoreCorrupted as again:
                # It was empty, so the disk itself refuses writes: full or broken.
                self._stores.discard(partition, store, str(again))
                store = None
            return *self._read(partition, store), store
        except _Gone:
            if store:
                store.close()
            raise

    def _read(self, partition: int, store: LocalStore | None) -> tuple[Partition, RestoredExtras]:
        """The state from disk and the changelog's tail, or from the changelog alone.

        Raises:
            StoreCorrupted: what is on disk cannot be used.
            _Gone: meanwhile the partition became another member's.
            Refused: the changelog holds what cannot be read; the message names it and the way out.
        """
        context = self._context
        if self._clients is None:
            self._clients = ChangelogClients(context.kafka, context.naming)
        clients = self._clients
        state, extras = self._new_partition(partition), RestoredExtras()
        start = store.offset if store else 0

        began, metrics = context.clock.monotonic(), context.metrics

        def keep_alive(done: int, total: int) -> None:
            left = (context.clock.monotonic() - began) * (total - done) / done if done else math.inf
            metrics.restoring_records.set(total - done)
            metrics.restoring_seconds.set(left)
            context.held.set(
                partition, "restoring", records=done, records_total=total,
                seconds_left=round(left, 1) if done else None,
            )  # fmt: skip
            about = f", {left:,.0f} s to go" if done else ""
            self._ready.fails(f"restoring partition {partition}: {done:,} of {total:,} records{about}")
            self._stay(partition)

        def changelog(since: int) -> Iterator[Entry]:
            without = context.settings.left_out().get(partition, frozenset())
            return read_changelog(
                context.kafka, context.naming, partition, context.clock, keep_alive, since, without, clients
            )

        def refused(error: Exception) -> Refused:
            without = context.settings.left_out()
            return refusal(
                context.naming.name(AUDIENCE_STATE), partition, changelog(0), self._new_partition, without, error
            )

        tail = changelog(start)
        entries = chain(self._alive(partition, store.entries()), store.filling(tail)) if store else tail
        restore(state, entries, extras, start > 0, refused)
        return state, extras

    def _alive(self, partition: int, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The same entries, with a heartbeat now and then: reading them may take minutes."""
        for number, entry in enumerate(entries):
            if number % _ENTRIES_A_BEAT == 0:
                self._stay(partition)
            yield entry

    def _stay(self, partition: int) -> None:
        """A heartbeat to the supervisor and to the group, from within a restore."""
        self._context.heartbeat.beat()
        self._assignment.idle(0)
        if self._restoring != partition:
            raise _Gone


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the broker knows of a partition when its restore begins.

    Attributes:
        committed: the group's offsets.
        topic_ids: input -> id of its topic.
        ranges: input -> first offset that is kept, and the end.
        preferences_end: the committed end of its preferences.
        asked_at: monotonic seconds.
    """

    committed: InputOffsets
    topic_ids: dict[str, str]
    ranges: dict[str, tuple[int, int]]
    preferences_end: int
    asked_at: float


class _Gone(Exception):
    """The partition that is being restored became another member's."""
