"""A batch from records to committed state: decode, stage, produce, commit, apply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from confluent_kafka import Message

from streams.audience.campaign_reporter import CampaignReporter
from streams.audience.changelog_reader import ACCOUNT_PREFIX
from streams.audience.consumers import REREAD, Assignment
from streams.audience.decode import STAGE, Decoded, Decoder, Records, SpaceInUse
from streams.audience.encode import push_record
from streams.audience.local_store import Entry, LocalStores, StoreCorrupted
from streams.audience.positions import OFFSETS_KEY, TOPIC_OF, InputOffsets
from streams.audience.task import PartitionTask, Round, next_offset
from streams.audience.withdrawals import WITHHELD
from streams.audience.worker_context import WorkerContext
from streams.contract.dead_letters import dead_letter, headers, origin
from streams.contract.errors import RefusedOutcome
from streams.contract.topics import AUDIENCE_STATE, DEAD_LETTERS, MATCH_REQUESTS, PUSH_TARGETS, Naming
from streams.contract.trace_context import traced, traceparent_of
from streams.kafka.transaction import Aborted, Transactions
from streams.runtime.bad_record_burst import Bad, BadBursts, bad_of
from streams.runtime.tracing import Hop
from streams.runtime.watchdog import Watchdog
from targeting.types import Match, PartitionOutputs, Tier

_OUTCOMES: Final = f"{STAGE}outcomes"


class BatchCommit:
    """Commits batches of all partitions of a worker, one transaction a batch.

    Args:
        tasks: the worker's partitions, by number; the worker changes them between batches.
        experiment: named in every push; None where nobody is held out.
    """

    def __init__(
        self,
        context: WorkerContext,
        tasks: Mapping[int, PartitionTask],
        assignment: Assignment,
        transactions: Transactions,
        reporter: CampaignReporter,
        stores: LocalStores,
        experiment: str | None,
        bursts: BadBursts | None,
    ) -> None:
        self._context = context
        self._tasks = tasks
        self._assignment = assignment
        self._transactions = transactions
        self._reporter = reporter
        self._stores = stores
        self._experiment = experiment
        self._bursts = bursts
        self._watchdog = Watchdog(context.clock, context.settings.watchdog_s)

    def commit(self, batch: Round, space: SpaceInUse | None, group: object) -> bool:
        """False: nothing happened, and what was read comes again.

        Raises:
            Uncertain: only the broker knows whether it happened; see :meth:`recreate`.
            BadBurst: so many records were bad that this worker stops; all of them are committed.
        """
        with self._watchdog.guard():
            return self._commit(batch, space, group)

    def _commit(self, batch: Round, space: SpaceInUse | None, group: object) -> bool:
        clock, metrics = self._context.clock, self._context.metrics
        started, now = clock.monotonic(), clock.now()
        decoded = {p: self._decode(p, records, space, now) for p, records in batch.records.items()}
        hops = {p: self._hops(records, now) for p, records in batch.records.items() if records.commands}
        timer = self._context.timer
        timer.spent("decode")
        self._transactions.begin()
        begun = clock.monotonic()
        after = {p: self._produce(p, decoded[p], records, now, hops.get(p, {})) for p, records in batch.records.items()}
        offsets = [
            self._assignment.topic_partition(name, p, offset)
            for p, at in after.items()
            for name, offset in self._tasks[p].offsets_to_commit(at).known().items()
        ]
        try:
            self._transactions.commit(offsets, group)
        except Aborted:
            metrics.transactions.labels("aborted").inc()
            _end(hops, "aborted; what was read comes again")
            self._assignment.go_back({p: task.resumption for p, task in self._tasks.items()})
            return False
        metrics.transactions.labels("committed").inc()
        metrics.commit_seconds.observe(clock.monotonic() - begun)
        metrics.batch_records.observe(len(batch))
        timer.spent("commit")
        for p, at in after.items():
            self._apply(p, at, decoded[p], hops.get(p, {}))
        _end(hops)
        timer.spent("apply")
        metrics.batch_seconds.observe(clock.monotonic() - started)
        if self._bursts is not None:
            for p, records in batch.records.items():
                note(self._bursts, self._context.naming, records, decoded[p])
            self._bursts.judge()
        return True

    def recreate(self) -> None:
        """After :class:`streams.kafka.transaction.Uncertain`: another producer, before which no old one commits."""
        with self._watchdog.guard():
            self._transactions.recreate()

    def close(self) -> None:
        self._watchdog.close()

    def _decode(self, partition: int, records: Records, space: SpaceInUse | None, now: float) -> Decoded:
        task = self._tasks[partition]
        consumed: dict[str, int] = {
            self._context.naming.name(TOPIC_OF[name]): getattr(task.restored_offsets, name) for name in REREAD
        }

        def answered(message: Message) -> bool:
            return (message.offset() or 0) < consumed.get(message.topic() or "", 0)

        decoded = Decoder(now, answered, self._context.naming.audience_partitions).decode(records, space, task.repeats)
        if task.strangers:
            # Their wishes go to the partition in which they belong, so nothing that they forbid is known here.
            withheld = [(user, WITHHELD) for user in task.strangers]
            decoded.inputs = replace(decoded.inputs, preferences=[*withheld, *decoded.inputs.preferences])
        return decoded

    def _hops(self, records: Records, now: float) -> dict[str, Hop]:
        """Song id -> the work on its command, of those that belong to a trace."""
        hops: dict[str, Hop] = {}
        for message in records.commands:
            trace, song_id = traceparent_of(headers(message)), (message.key() or b"").decode("utf-8", "replace")
            if trace is not None and song_id not in hops:
                hops[song_id] = self._context.tracing.begin(f"process {MATCH_REQUESTS.name}", trace, now, {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": message.topic() or "",
                    "messaging.destination.partition.id": str(message.partition()),
                    "messaging.kafka.offset": message.offset() or 0,
                    "coldstart.song_id": song_id,
                })  # fmt: skip
        return hops

    def _produce(
        self, partition: int, decoded: Decoded, records: Records, now: float, hops: Mapping[str, Hop]
    ) -> InputOffsets:
        """Stage a partition's part of the batch and produce it; returns the positions after it."""
        task, clock = self._tasks[partition], self._context.clock
        started = clock.monotonic()
        staged = task.staged = task.state.stage(decoded.inputs)
        self._context.timer.spent("decide")
        matches = [command for command in decoded.inputs.commands if isinstance(command, Match)]
        if matches:
            self._context.metrics.request_seconds.observe((clock.monotonic() - started) / len(matches))
        after = InputOffsets(
            **{name: next_offset(messages, getattr(task.at, name)) for name, messages in records.by_input().items()}
        )
        produce, name = self._transactions.produce, self._context.naming.name
        changelog = name(AUDIENCE_STATE)
        self._transactions.produce_all(
            changelog, partition, (each for each in staged.outputs.changelog if not each[0].startswith(ACCOUNT_PREFIX))
        )
        for key, value in staged.outputs.changelog:
            if key.startswith(ACCOUNT_PREFIX):
                produce(changelog, partition, key, value, on_offset=_keep(task.versions, key))
        # The last record, so a copy of the changelog stands at its offset after this commit.
        produce(changelog, partition, OFFSETS_KEY, task.offsets_value(after), on_offset=task.ends_at)
        for push in staged.outputs.pushes:
            record = push_record(push, now, max(0, after.preferences), self._experiment)
            if hops and push.tier is Tier.INITIAL and (hop := hops.get(push.match.song_id)):
                record = traced(record, hop.traceparent)
            produce(name(PUSH_TARGETS), partition, record.key, record.value, record.headers)
        letters = [letter for letter, _, _ in decoded.bad]
        letters += [
            dead_letter(origin(decoded.outcomes[at]), _OUTCOMES, RefusedOutcome(why))
            for at, why in staged.outputs.refused
        ]
        for letter in letters:
            produce(name(DEAD_LETTERS), 0, letter.key, letter.value, letter.headers)
        self._context.timer.spent("produce")
        return after

    def _apply(self, partition: int, at: InputOffsets, decoded: Decoded, hops: Mapping[str, Hop]) -> None:
        """The commit is done: take the staged state over, copy it to disk, count, and report."""
        task = self._tasks[partition]
        if task.staged is None:
            raise RuntimeError(f"partition {partition}: committed without being staged")
        outputs = task.staged.outputs
        task.state.apply(task.staged)
        for song_id, each in task.staged.changes.campaigns.items():
            if each is None:
                task.versions.pop(ACCOUNT_PREFIX + song_id.encode(), None)
        task.staged, task.at, task.written_at = None, at, self._context.clock.monotonic()
        task.strangers = []
        if decoded.seen:
            task.repeats.remember(decoded.seen)
        if task.store:
            copied = [Entry(task.versions.get(key, 0), key, value) for key, value in outputs.changelog]
            copied.append(Entry(0, OFFSETS_KEY, task.offsets_value(at)))
            try:
                task.store.write(copied, task.changelog_end)
            except StoreCorrupted as corrupted:
                self._stores.discard(partition, task.store, str(corrupted))
                task.store = None
        self._count(partition, task, decoded, outputs)
        self._reporter.report(partition, task, outputs.accounts, hops)

    def _count(self, partition: int, task: PartitionTask, decoded: Decoded, outputs: PartitionOutputs) -> None:
        metrics, now, answered = self._context.metrics, self._context.clock.now(), set()
        deferred = 0
        for push in outputs.pushes:
            metrics.pushes.labels(push.why.value).inc()
            deferred += push.not_before > max(decoded.inputs.now, math.ceil(push.match.available_from))
            if push.tier is Tier.INITIAL and push.match.song_id not in answered:
                answered.add(push.match.song_id)
                metrics.upload_to_push_seconds.observe(max(0.0, now - push.match.requested_at))
        metrics.pushes_deferred.inc(deferred)
        for (tier, reason), users in outputs.suppressed.items():
            metrics.suppressions.labels(reason.label, tier.value).inc(users)
        inputs = decoded.inputs
        for command in inputs.commands:
            metrics.requests_served.labels(type(command).__name__.lower()).inc()
        for account in outputs.accounts:
            metrics.candidates.observe(account.counts.candidates)
        metrics.listens_applied.inc(len(inputs.listens.user_ids) if inputs.listens else 0)
        metrics.listens_repeated.inc(decoded.repeated)
        metrics.outcomes_applied.inc(len(decoded.outcomes) - len(outputs.refused))
        metrics.dead_letters.labels(_OUTCOMES, RefusedOutcome.__name__).inc(len(outputs.refused))
        if inputs.vectors:
            metrics.vectors_applied.labels("taken").inc(len(inputs.vectors.user_ids))
            metrics.vectors_applied.labels("withdrawn").inc(len(inputs.vectors.withdrawn))
        metrics.preferences_applied.inc(len(inputs.preferences))
        metrics.changelog_records.inc(len(outputs.changelog) + 1)
        for letter, stage, error in decoded.bad:
            self._context.letters.note(stage, error, bad_of(letter, stage, error).text)
        metrics.users.labels(str(partition)).set(task.state.users)
        metrics.campaigns.labels(str(partition)).set(task.state.campaigns)
        metrics.state_disk_bytes.labels(str(partition)).set(task.store.bytes_on_disk if task.store else 0)


def _end(hops: Mapping[int, Mapping[str, Hop]], error: str | None = None) -> None:
    for each in hops.values():
        for hop in each.values():
            hop.end(error)


def note(bursts: BadBursts, naming: Naming, records: Records, decoded: Decoded) -> None:
    """Count a committed batch's good and bad records. Those buried before a restart do not count again."""
    bad: dict[str, list[Bad]] = {}
    for letter, stage, error in decoded.bad:
        bad.setdefault(stage.removeprefix(STAGE), []).append(bad_of(letter, stage, error))
    for name, messages in records.by_input().items():
        if messages:
            refused = bad.get(name, [])
            bursts.note(
                naming.name(TOPIC_OF[name]), len(messages) - len(refused), decoded.sources.get(name, ()), refused
            )


def _keep(versions: dict[bytes, int], key: bytes) -> Callable[[int], None]:
    def keep(offset: int) -> None:
        versions[key] = offset

    return keep
