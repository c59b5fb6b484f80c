"""The poll loop of an audience worker, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, Message

from streams.audience.campaign_reporter import CampaignReporter
from streams.audience.catalogue_sync import CatalogueSync
from streams.audience.commit import BatchCommit
from streams.audience.consumers import Assignment
from streams.audience.decode import Records, SpaceInUse, counted
from streams.audience.gc_tuning import trim_malloc
from streams.audience.local_store import LocalStores
from streams.audience.positions import TOPIC_OF
from streams.audience.restore import Restorer
from streams.audience.task import PartitionTask, Round, next_offset
from streams.audience.worker_context import WorkerContext
from streams.contract.topics import Naming
from streams.kafka.client_statistics import statistics_of
from streams.kafka.consumer_lag import Place
from streams.kafka.lag_monitor import LagMonitor
from streams.kafka.transaction import Transactions, Uncertain
from streams.runtime.bad_record_burst import BadBursts
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.health import Condition
from targeting.partition.partition import Partition

# An idle partition writes its offsets this often: Kafka closes and compacts a log only as more is written to it, so
# erased data would otherwise stay in an idle changelog forever (measured). Campaigns expire by it, too.
_HEARTBEAT_S: Final = 60.0

# A vector costs half of what a listen does, so twice as many take the same time.
_VECTORS_FOR_A_LISTEN: Final = 2

_log = structlog.get_logger(__name__)


class Worker:
    """The partitions of one slot, from input to commit. Everything happens on the calling thread.

    Args:
        slot: stable number of this worker; a restarted worker takes over its former self by it.
        catalogue: keeps the songs of the partitions.
        new_partition: makes the empty state of a partition.
        stores: the disk's copies of the changelog.
        ready: holds once every partition is restored and read.
        experiment: named in every push; None where nobody is held out.
        client_id: of the group's member.
        broker_clock: tells whether this machine's clock may decide anything.
    """

    def __init__(
        self,
        context: WorkerContext,
        slot: int,
        catalogue: CatalogueSync,
        new_partition: Callable[[int], Partition],
        stores: LocalStores,
        ready: Condition,
        *,
        experiment: str | None = None,
        client_id: str | None = None,
        bursts: BadBursts | None = None,
        broker_clock: BrokerClock | None = None,
    ) -> None:
        self._context = context
        self._clock = context.clock
        self._catalogue = catalogue
        self._ready = ready
        self._broker_clock = broker_clock or BrokerClock(context.clock, Condition("not known yet"))
        self._waiting_for_clock = False
        self._tasks: dict[int, PartitionTask] = {}
        self._to_restore: list[int] = []
        self._space: SpaceInUse | None = None
        kafka, naming, settings, clock = context.kafka, context.naming, context.settings, context.clock
        name = member_of(naming, slot)
        # Transactions first: one left open by this slot's former worker ends now, so that its changelog can be read.
        transactions = Transactions(kafka, settings, name, statistics_of(context.metrics, "transactions"))
        self._reporter = CampaignReporter(kafka, naming, clock, context.metrics, context.heartbeat)
        self._assignment = Assignment(
            kafka, naming, settings, clock, name, self._change, client_id, statistics_of(context.metrics, "listens")
        )
        self._input_topics = {name: naming.name(topic) for name, topic in TOPIC_OF.items()}
        self._lag = LagMonitor(kafka, f"{naming.prefix}audience", context.metrics, clock).start()
        self._restorer = Restorer(context, self._assignment, new_partition, stores, ready)
        self._commit = BatchCommit(
            context, self._tasks, self._assignment, transactions, self._reporter, stores, experiment, bursts
        )

    @property
    def partitions(self) -> list[int]:
        """Those that are restored and worked on."""
        return sorted(self._tasks)

    def round(self) -> None:
        """One round: take what is there, commit it. Waits a few milliseconds when there is nothing.

        Raises:
            BadBurst: so many records were bad that this worker stops; all of them are committed.
        """
        self._context.heartbeat.beat()
        if not self._clock_is_right():
            self._assignment.idle()
            return
        self._follow_catalogue()
        self._serve()
        self._lag.watch(self._positions())
        self._reporter.round(self._tasks)
        if self._context.letters.waiting:
            self._context.letters.tell()
        self._context.timer.spent("report")

    def _positions(self) -> dict[Place, int | None]:
        """Where each held partition goes on in each input; None before it is restored."""
        names = self._input_topics.items()
        places: dict[Place, int | None] = {(topic, p): None for p in self._to_restore for _, topic in names}
        for p, task in self._tasks.items():
            at = task.offsets_to_commit(task.at)
            places |= {(topic, p): getattr(at, name) for name, topic in names}
        return places

    def _serve(self) -> None:
        """Take what is there, and commit it."""
        group = self._assignment.group_metadata
        limit = self._context.settings.batch_records
        timer = self._context.timer
        listens = self._assignment.poll_listens(limit)
        self._assignment.rejoin_for_unheld()
        timer.spent("poll")
        self._restore_new()
        timer.spent("restore")
        self._open_inputs()
        self._open_commands()
        batch = Round()
        for partition, messages in listens.records.items():
            if partition in self._tasks and (new := self._uncounted(partition, messages)):
                batch.of(partition).listens = new
        for partition, messages in self._assignment.poll_vectors(_VECTORS_FOR_A_LISTEN * limit).records.items():
            batch.of(partition).vectors = messages
        for partition, messages in self._assignment.poll_outcomes(limit).records.items():
            batch.of(partition).outcomes = messages
        timer.spent("poll")
        # Do not wait if there is work; otherwise the first command ends the wait.
        idle = not batch.records
        commands = self._assignment.poll_commands(0.0 if batch.records else self._context.settings.batch_wait_ms / 1000)
        for partition, messages in commands.records.items():
            batch.of(partition).commands = messages
        timer.spent("idle" if idle else "poll")
        # Users who opted out before this batch began are not pushed by it.
        pushing = [partition for partition, records in batch.records.items() if self._may_push(partition, records)]
        until = self._assignment.ends("preferences", pushing) if pushing else {}
        preferences = self._preferences(until)
        while not self._assignment.preferences_reached(until):
            # More than one batch holds: they go first, in batches of their own.
            self._context.heartbeat.beat()
            if preferences.records and not self._committed(preferences, group):
                return
            preferences = self._preferences(until)
        for partition, records in preferences.records.items():
            batch.of(partition).preferences = records.preferences
        quiet_since = self._clock.monotonic() - _HEARTBEAT_S
        for partition in [p for p, task in self._tasks.items() if task.written_at <= quiet_since]:
            batch.of(partition)
        timer.spent("poll")
        if batch.records:
            self._committed(batch, group)

    def _preferences(self, until: Mapping[int, int]) -> Round:
        batch = Round()
        for partition, messages in self._assignment.poll_preferences(until).records.items():
            if partition in self._tasks:
                batch.of(partition).preferences = messages
        return batch

    def _clock_is_right(self, batch: Round | None = None) -> bool:
        """Whether a batch may be decided by this machine's clock. If not, it is dropped, and read again once that is
        right."""
        for records in batch.records.values() if batch else ():
            for messages in records.by_input().values():
                if messages:
                    self._broker_clock.show(messages[-1].timestamp())
        right = self._broker_clock.agrees()
        if not right and not self._waiting_for_clock:
            self._assignment.hold()
        if right and self._waiting_for_clock:
            self._assignment.go_back({p: task.resumption for p, task in self._tasks.items()})
            self._assignment.go_on([p for p, task in self._tasks.items() if task.preferences_until is None])
            for task in self._tasks.values():
                if task.commands_by is not None:
                    task.commands_by = self._clock.monotonic() + self._context.settings.start_wait_s
        self._waiting_for_clock = not right
        return right

    def _may_push(self, partition: int, records: Records) -> bool:
        """Whether a batch can push: on request, or because users' vectors change while campaigns are alive."""
        moving = records.listens or records.vectors
        return bool(records.commands or (moving and self._tasks[partition].state.campaigns))

    def close(self) -> None:
        """Leave the group and send what is on its way. Nothing is half-done between rounds."""
        self._reporter.flush()
        if self._context.settings.digest_at_stop:
            for partition, task in self._tasks.items():
                at = task.offsets_to_commit(task.at).known()
                _log.info("state digest", partition=partition, digest=task.state.digest(), at=at)
        self._lag.close()
        self._assignment.close()
        for task in self._tasks.values():
            if task.store:
                task.store.close()
        self._commit.close()

    # -- the batch ---------------------------------------------------------------------------------------

    def _committed(self, batch: Round, group: object) -> bool:
        """False: what was read comes again, or the partitions are restored first."""
        if not self._clock_is_right(batch):
            return False
        try:
            return self._commit.commit(batch, self._space, group)
        except Uncertain as uncertain:
            self._go_on_from_the_broker(str(uncertain))
            return False

    def _uncounted(self, partition: int, listens: list[Message]) -> list[Message]:
        """The listens that were not committed in an earlier life; those that were tell which come again."""
        task = self._tasks[partition]
        if task.dedup_replay_offset is None:
            return listens
        new = [message for message in listens if (message.offset() or 0) >= task.at.listens]
        old = listens[: len(listens) - len(new)]
        of = self._context.naming.audience_partitions
        task.repeats.remember(counted(old, self._clock.now(), task.repeats, of))
        task.dedup_replay_offset = None if new else next_offset(old, task.dedup_replay_offset)
        return new

    def _go_on_from_the_broker(self, why: str) -> None:
        """After a commit of which the broker alone knows whether it happened: as at a start, from what it has."""
        self._commit.recreate()
        held = list(self._tasks)
        known = self._assignment.committed(held)
        committed = any(known[p] != task.offsets_to_commit(task.at) for p, task in self._tasks.items())
        _log.warning("commit uncertain: producer replaced, partitions restored", why=why, committed=committed)
        for outcome in ("uncertain", "committed" if committed else "aborted"):
            self._context.metrics.transactions.labels(outcome).inc()
        self._assignment.halt(held)
        self._change(held, held)

    # -- partitions come and go --------------------------------------------------------------------------

    def _change(self, new: list[int], gone: list[int]) -> None:
        self._restorer.abandon(gone)
        for partition in gone:
            # Dropped, not saved: the changelog has everything that was committed.
            task = self._tasks.pop(partition, None)
            if task and task.store:
                task.store.close()
            self._context.held.release(partition)
            self._context.metrics.users.remove(str(partition))
            self._context.metrics.campaigns.remove(str(partition))
            self._context.metrics.state_disk_bytes.remove(str(partition))
        self._context.metrics.rebalances.inc()
        self._to_restore = [p for p in self._to_restore if p not in gone] + new
        self._context.metrics.partitions.set(len(self._tasks))
        _log.info("partitions changed", new=new, gone=gone, held=sorted(self._tasks))
        for partition in new:
            self._context.held.set(partition, "waiting")
        if new:
            self._ready.fails(f"restoring partitions {self._to_restore}")
            # The next round comes when all are restored; what waits meanwhile is seen meanwhile.
            self._lag.watch(self._positions())

    def _restore_new(self) -> None:
        if self._to_restore:
            # The group is polled meanwhile, or it would wait for this member; nothing must be read by that.
            self._assignment.hold()
            while self._to_restore:
                self._restore(self._to_restore[0])
            self._restorer.rest()
            self._assignment.go_on(p for p, task in self._tasks.items() if task.preferences_until is None)
            trim_malloc()

    def _restore(self, partition: int) -> None:
        task = self._restorer.restore(partition, self._to_restore)
        if task is None:
            return
        self._tasks[partition] = task
        self._to_restore.remove(partition)
        self._assignment.begin_preferences(partition)
        self._context.held.set(partition, "restored")
        metrics = self._context.metrics
        metrics.partitions.set(len(self._tasks))
        metrics.users.labels(str(partition)).set(task.state.users)
        metrics.campaigns.labels(str(partition)).set(task.state.campaigns)
        self._reporter.report(partition, task, task.state.accounts())

    def _open_inputs(self) -> None:
        """Opt-outs are known before anything that could push is read; millions of them come in pieces."""
        waiting = []
        for partition, task in self._tasks.items():
            if task.preferences_until is None:
                continue
            read = self._assignment.preferences_read(partition)
            if read < task.preferences_until:
                self._context.held.set(
                    partition, "reading preferences", records=read, records_total=task.preferences_until
                )
                waiting.append(f"preferences of partition {partition}: {read:,} of {task.preferences_until:,}")
                continue
            task.preferences_until = None
            self._context.held.set(partition, "serving")
            task.commands_by = self._clock.monotonic() + self._context.settings.start_wait_s
            self._assignment.begin(partition, task.resumption)
        if waiting:
            self._ready.fails("; ".join(waiting))
        elif self._tasks:
            self._ready.holds()

    def _open_commands(self) -> None:
        """Commands are read once the waiting listens are in, but not delayed forever."""
        for partition, task in self._tasks.items():
            if task.commands_by is None:
                continue
            if self._assignment.caught_up(partition) or self._clock.monotonic() > task.commands_by:
                task.commands_by = None
                self._assignment.begin_commands(partition, task.at)

    def _follow_catalogue(self) -> None:
        self._catalogue.follow([task.state for task in self._tasks.values()])
        space = self._catalogue.space
        if space == self._space:
            return
        # Vectors from outside that belonged to another space may belong to this one.
        self._space = space
        for task in self._tasks.values():
            task.restored_offsets = task.offsets_to_commit(task.at)
            task.at = replace(task.at, vectors=OFFSET_BEGINNING)
        self._assignment.again("vectors", self._tasks)


def member_of(naming: Naming, slot: int) -> str:
    """The name of a slot's worker, in the group and in transactions."""
    return f"{naming.prefix}audience-{slot}"
