"""In which order is all this done, round after round?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Final

import numpy as np
import structlog
from confluent_kafka import OFFSET_BEGINNING, Message

from streams.audience.campaign_reporter import CampaignReporter
from streams.audience.consumers import REREAD, Assignment
from streams.audience.decode import STAGE, Decoded, Decoder, Records, SpaceInUse, counted
from streams.audience.deduplication import Deduplication
from streams.audience.disk_recovery import refusal, restore
from streams.audience.encode import push_record
from streams.audience.gc_tuning import trim_malloc
from streams.audience.lag_gauges import LagGauges
from streams.audience.local_store import Entry, LocalStore, LocalStores, StoreCorrupted
from streams.audience.positions import OFFSETS_KEY, TOPIC_OF, InputOffsets, reconcile, within
from streams.audience.restore import (
    ACCOUNT_PREFIX,
    RestoredExtras,
    read_changelog,
)
from streams.audience.task import PartitionTask, Round
from streams.contract.errors import Refused
from streams.contract.internal_events import LiveModel
from streams.contract.topics import AUDIENCE_STATE, DEAD_LETTERS, PUSH_TARGETS, Naming
from streams.kafka.transaction import Aborted, Transactions, Uncertain
from streams.models.learned_chances import calibration_of
from streams.models.registry import LiveView
from streams.runtime.bad_record_burst import Bad, BadBursts, bad_of
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import Clock
from streams.runtime.health import Condition, Heartbeat
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings
from streams.runtime.watchdog import Watchdog
from targeting.calibration import Calibration
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition
from targeting.types import Match, Tier

# A partition without work writes its offsets this often: Kafka closes and compacts a log only as more is written to it,
# so that without this what was erased would stay in an idle changelog for good (measured). Campaigns expire by it too.
_HEARTBEAT_S: Final = 60.0

# A vector costs half of what a listen does, so that as many more make a batch take the same time.
_VECTORS_FOR_A_LISTEN: Final = 2

# Of the disk's copy: a fraction of a second of restoring.
_ENTRIES_A_BEAT: Final = 20_000

# Entries of histories: some tens of milliseconds, which is what a request may have to wait meanwhile.
_PREPARED_AT_ONCE: Final = 200_000

_log = structlog.get_logger(__name__)


class Worker:
    """The partitions of one slot, from input to commit. Everything happens on the calling thread.

    Args:
        new_partition: makes the empty state of a partition.
        stores: the disk's copies of the changelog.
        slot: stable number of this worker; a restarted worker takes over its former self by it.
        experiment: named in every push; None where nobody is held out.
        client_id: of the group's member.
        broker_clock: tells whether this machine's clock may decide anything.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        naming: Naming,
        settings: AudienceSettings,
        clock: Clock,
        metrics: AudienceMetrics,
        view: LiveView,
        songs: Catalogue,
        new_partition: Callable[[int], Partition],
        stores: LocalStores,
        slot: int,
        heartbeat: Heartbeat,
        restored: Condition,
        experiment: str | None = None,
        client_id: str | None = None,
        bursts: BadBursts | None = None,
        broker_clock: BrokerClock | None = None,
    ) -> None:
        self._kafka = kafka
        self._naming = naming
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._view = view
        self._songs = songs
        self._new_partition = new_partition
        self._stores = stores
        self._heartbeat = heartbeat
        self._ready = restored
        self._broker_clock = broker_clock or BrokerClock(clock, Condition("not known yet"))
        self._waiting_for_clock = False
        self._experiment = experiment
        self._bursts = bursts
        self._held: dict[int, PartitionTask] = {}
        self._to_restore: list[int] = []
        self._restoring: int | None = None
        self._seen_version = -1
        self._seen_model: LiveModel | None = None
        self._outside_space: SpaceInUse | None = None
        self._chances: Calibration | None = None
        self._watchdog = Watchdog(clock, settings.watchdog_s)
        name = member_of(naming, slot)
        # First the transactions: what a former self left open ends now, so that its changelog can be read.
        self._transactions = Transactions(kafka, settings, name)
        self._reporter = CampaignReporter(kafka, naming, clock, metrics, heartbeat)
        self._assignment = Assignment(kafka, naming, settings, clock, name, self._change, client_id)
        self._lag = LagGauges(metrics, self._assignment, clock)

    @property
    def partitions(self) -> list[int]:
        """Those that are restored and worked on."""
        return sorted(self._held)

    def round(self) -> None:
        """One round: take what is there, commit it. Waits a few milliseconds when there is nothing.

        Raises:
            BadBurst: so many records were bad that this worker stops; all of them are committed.
        """
        self._heartbeat.beat()
        if not self._clock_is_right():
            self._assignment.idle()
            return
        self._follow_songs()
        group = self._assignment.group_metadata
        limit = self._settings.batch_records
        listens = self._assignment.poll_listens(limit)
        self._restore_new()
        self._open_inputs()
        self._open_commands()
        batch = Round()
        for partition, messages in listens.records.items():
            if partition in self._held and (new := self._uncounted(partition, messages)):
                batch.of(partition).listens = new
        for partition, messages in self._assignment.poll_vectors(_VECTORS_FOR_A_LISTEN * limit).records.items():
            batch.of(partition).vectors = messages
        for partition, messages in self._assignment.poll_outcomes(limit).records.items():
            batch.of(partition).outcomes = messages
        # With work at hand nothing is waited for; without, the first command ends the wait.
        commands = self._assignment.poll_commands(0.0 if batch.records else self._settings.batch_wait_ms / 1000)
        for partition, messages in commands.records.items():
            batch.of(partition).commands = messages
        # Whoever opted out before this batch began is not pushed by it.
        pushing = [partition for partition, records in batch.records.items() if self._may_push(partition, records)]
        until = self._assignment.ends("preferences", pushing) if pushing else {}
        preferences = self._preferences(until)
        while not self._assignment.preferences_reached(until):
            # More than fits into a batch: they come before the rest in batches of their own.
            self._heartbeat.beat()
            if preferences.records and not self._committed(preferences, group):
                return
            preferences = self._preferences(until)
        for partition, records in preferences.records.items():
            batch.of(partition).preferences = records.preferences
        quiet_since = self._clock.monotonic() - _HEARTBEAT_S
        for partition in [p for p, held in self._held.items() if held.written_at <= quiet_since]:
            batch.of(partition)
        if batch.records:
            self._committed(batch, group)
        self._lag.show({p: held.at for p, held in self._held.items()})
        self._reporter.round(self._held)

    def _preferences(self, until: Mapping[int, int]) -> Round:
        batch = Round()
        for partition, messages in self._assignment.poll_preferences(until).records.items():
            if partition in self._held:
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
            self._assignment.go_back({p: held.resumption for p, held in self._held.items()})
            self._assignment.go_on([p for p, held in self._held.items() if held.preferences_until is None])
            for held in self._held.values():
                if held.commands_by is not None:
                    held.commands_by = self._clock.monotonic() + self._settings.start_wait_s
        self._waiting_for_clock = not right
        return right

    def _may_push(self, partition: int, records: Records) -> bool:
        """Whether a batch can push: on request, or because users' vectors change while campaigns are alive."""
        moving = records.listens or records.vectors
        return bool(records.commands or (moving and self._held[partition].state.campaigns))

    def close(self) -> None:
        """Leave the group and send what is on its way. Nothing is half-done between rounds."""
        self._reporter.flush()
        if self._settings.digest_at_stop:
            for partition, held in self._held.items():
                at = held.stated(held.at).known()
                _log.info("state", partition=partition, digest=held.state.digest(), at=at)
        self._assignment.close()
        for held in self._held.values():
            if held.store:
                held.store.close()
        self._watchdog.close()

    # -- the batch ---------------------------------------------------------------------------------------

    def _committed(self, batch: Round, group: object) -> bool:
        """False: what was read comes again, or the partitions are restored first."""
        if not self._clock_is_right(batch):
            return False
        try:
            return self._commit(batch, group)
        except Uncertain as uncertain:
            self._go_on_from_the_broker(str(uncertain))
            return False

    def _commit(self, batch: Round, group: object) -> bool:
        """False: nothing happened, and what was read comes again."""
        started, now = self._clock.monotonic(), self._clock.now()
        decoded = {p: self._decode(p, records, now) for p, records in batch.records.items()}
        with self._watchdog.guard():
            self._transactions.begin()
            begun = self._clock.monotonic()
            after = {p: self._write(p, decoded[p], records, now) for p, records in batch.records.items()}
            offsets = [
                self._assignment.topic_partition(name, p, offset)
                for p, at in after.items()
                for name, offset in self._held[p].stated(at).known().items()
            ]
            try:
                self._transactions.commit(offsets, group)
            except Aborted:
                self._metrics.transactions.labels("aborted").inc()
                self._assignment.go_back({p: held.resumption for p, held in self._held.items()})
                return False
        self._metrics.transactions.labels("committed").inc()
        self._metrics.commit_seconds.observe(self._clock.monotonic() - begun)
        self._metrics.batch_records.observe(len(batch))
        for p, at in after.items():
            self._apply(p, at, decoded[p])
            self._lag.committed(p, batch.records[p])
        self._metrics.batch_seconds.observe(self._clock.monotonic() - started)
        if self._bursts is not None:
            for p, records in batch.records.items():
                note(self._bursts, self._naming, records, decoded[p])
            self._bursts.judge()
        return True

    def _decode(self, partition: int, records: Records, now: float) -> Decoded:
        held = self._held[partition]
        consumed: dict[str, int] = {self._naming.name(TOPIC_OF[name]): getattr(held.before, name) for name in REREAD}

        def answered(message: Message) -> bool:
            return (message.offset() or 0) < consumed.get(message.topic() or "", 0)

        return Decoder(now, answered).decode(records, self._outside_space, held.repeats)

    def _uncounted(self, partition: int, listens: list[Message]) -> list[Message]:
        """The listens that were not committed in an earlier life; those that were tell which come again."""
        held = self._held[partition]
        if held.tail is None:
            return listens
        new = [message for message in listens if (message.offset() or 0) >= held.at.listens]
        old = listens[: len(listens) - len(new)]
        held.repeats.remember(counted(old, self._clock.now(), held.repeats))
        held.tail = None if new else _next(old, held.tail)
        return new

    def _write(self, partition: int, decoded: Decoded, records: Records, now: float) -> InputOffsets:
        """Stage a partition's part of the batch and produce it; returns the positions after it."""
        held = self._held[partition]
        started = self._clock.monotonic()
        staged = held.staged = held.state.stage(decoded.inputs)
        matches = [command for command in decoded.inputs.commands if isinstance(command, Match)]
        if matches:
            self._metrics.request_seconds.observe((self._clock.monotonic() - started) / len(matches))
        after = InputOffsets(
            **{name: _next(messages, getattr(held.at, name)) for name, messages in records.by_input().items()}
        )
        produce, name = self._transactions.produce, self._naming.name
        changelog = name(AUDIENCE_STATE)
        self._transactions.produce_all(
            changelog, partition, (each for each in staged.outputs.changelog if not each[0].startswith(ACCOUNT_PREFIX))
        )
        for key, value in staged.outputs.changelog:
            if key.startswith(ACCOUNT_PREFIX):
                produce(changelog, partition, key, value, on_offset=_keep(held.versions, key))
        # The last one, so its offset is where a copy of the changelog stands after this commit.
        produce(changelog, partition, OFFSETS_KEY, held.offsets_value(after), on_offset=held.ends_at)
        for push in staged.outputs.pushes:
            record = push_record(push, now, max(0, after.preferences), self._experiment)
            produce(name(PUSH_TARGETS), partition, record.key, record.value, record.headers)
        for letter, _, _ in decoded.bad:
            produce(name(DEAD_LETTERS), 0, letter.key, letter.value, letter.headers)
        return after

    def _apply(self, partition: int, at: InputOffsets, decoded: Decoded) -> None:
        """The commit is done: take the staged state over, count, and report."""
        held, metrics = self._held[partition], self._metrics
        if held.staged is None:
            raise RuntimeError(f"partition {partition}: committed without being staged")
        outputs = held.staged.outputs
        held.state.apply(held.staged)
        for song_id, each in held.staged.campaigns.items():
            if each is None:
                held.versions.pop(ACCOUNT_PREFIX + song_id.encode(), None)
        held.staged, held.at, held.written_at = None, at, self._clock.monotonic()
        if decoded.seen:
            held.repeats.remember(decoded.seen)
        if held.store:
            copied = [Entry(held.versions.get(key, 0), key, value) for key, value in outputs.changelog]
            copied.append(Entry(0, OFFSETS_KEY, held.offsets_value(at)))
            try:
                held.store.write(copied, held.changelog_end)
            except StoreCorrupted as unfit:
                self._stores.discard(partition, held.store, str(unfit))
                held.store = None
        now, answered = self._clock.now(), set()
        for push in outputs.pushes:
            metrics.pushes.labels(push.why.value).inc()
            if push.tier is Tier.INITIAL and push.match.song_id not in answered:
                answered.add(push.match.song_id)
                metrics.upload_to_push_seconds.observe(max(0.0, now - push.match.requested_at))
        for command in decoded.inputs.commands:
            metrics.requests_served.labels(type(command).__name__.lower()).inc()
        for account in outputs.accounts:
            metrics.candidates.observe(account.counts.candidates)
        inputs = decoded.inputs
        metrics.listens_applied.inc(len(inputs.listens.user_ids) if inputs.listens else 0)
        metrics.listens_repeated.inc(decoded.repeated)
        metrics.outcomes_applied.inc(len(inputs.outcomes.user_ids) if inputs.outcomes else 0)
        if inputs.vectors:
            metrics.vectors_applied.labels("taken").inc(len(inputs.vectors.user_ids))
            metrics.vectors_applied.labels("withdrawn").inc(len(inputs.vectors.withdrawn))
        metrics.preferences_applied.inc(len(inputs.preferences))
        metrics.changelog_records.inc(len(outputs.changelog) + 1)
        for _, stage, error in decoded.bad:
            metrics.dead_letters.labels(stage, error).inc()
        metrics.users.labels(str(partition)).set(held.state.users)
        metrics.campaigns.labels(str(partition)).set(held.state.campaigns)
        self._reporter.report(partition, held, outputs.accounts)

    def _go_on_from_the_broker(self, why: str) -> None:
        """After a commit of which the broker alone knows whether it happened: as at a start, from what it has."""
        with self._watchdog.guard():
            self._transactions.renew()
        held = list(self._held)
        committed = any(self._assignment.committed(p) != self._held[p].stated(self._held[p].at) for p in held)
        _log.warning("commit uncertain: producer replaced, partitions restored", why=why, committed=committed)
        for outcome in ("uncertain", "committed" if committed else "aborted"):
            self._metrics.transactions.labels(outcome).inc()
        self._assignment.halt(held)
        self._change(held, held)

    # -- partitions come and go --------------------------------------------------------------------------

    def _change(self, new: list[int], gone: list[int]) -> None:
        if self._restoring in gone:
            self._restoring = None
        for partition in gone:
            # Dropped, not saved: the changelog has all that was committed.
            held = self._held.pop(partition, None)
            if held and held.store:
                held.store.close()
            self._metrics.users.remove(str(partition))
            self._metrics.campaigns.remove(str(partition))
            self._lag.forget(partition)
        self._to_restore = [p for p in self._to_restore if p not in gone] + new
        self._metrics.partitions.set(len(self._held))
        _log.info("partitions", new=new, gone=gone, held=sorted(self._held))
        if new:
            self._ready.fails(f"restoring partitions {self._to_restore}")

    def _restore_new(self) -> None:
        if self._to_restore:
            # The group is polled meanwhile, or it would wait for this member: nothing else is to come of that.
            self._assignment.hold()
            while self._to_restore:
                self._restore(self._to_restore[0])
            self._assignment.go_on(p for p, held in self._held.items() if held.preferences_until is None)
            trim_malloc()

    def _restore(self, partition: int) -> None:
        started = self._clock.monotonic()
        committed = self._assignment.committed(partition)
        self._restoring, store = partition, self._stores.open(partition)
        try:
            try:
                state, beside = self._read_state(partition, store)
            except StoreCorrupted as unfit:
                store = self._stores.renew(partition, store, str(unfit))
                try:
                    state, beside = self._read_state(partition, store)
                except StoreCorrupted as again:
                    # Nothing was on it: it is the disk that does not take what is written, full or broken.
                    self._stores.discard(partition, store, str(again))
                    store = None
                    state, beside = self._read_state(partition, store)
        except _Gone:
            if store:
                store.close()
            return
        topic_ids, ranges = self._assignment.topic_ids(), self._assignment.ranges(partition)
        ends = {name: end for name, (_, end) in ranges.items()}
        at, gaps = within(reconcile(partition, committed, beside.inputs, topic_ids, ends), ranges, REREAD)
        for gap in gaps:
            topic = self._naming.name(TOPIC_OF[gap.input])
            self._metrics.records_lost.labels(topic).inc(gap.lost)
            _log.error("records lost", topic=topic, partition=partition, lost=gap.lost, why=gap.why)
        repeats = Deduplication(at.listens, ranges["listens"][0])
        self._held[partition] = PartitionTask(
            state=state,
            at=replace(at, **dict.fromkeys(REREAD, OFFSET_BEGINNING)),
            before=at,
            repeats=repeats,
            topic_ids=topic_ids,
            tail=repeats.start if at.listens > repeats.start else None,
            versions=beside.versions,
            store=store,
            preferences_until=self._assignment.ends("preferences", [partition])[partition],
            commands_by=None,
            written_at=self._clock.monotonic(),
        )
        self._to_restore.remove(partition)
        self._assignment.begin_preferences(partition)
        seconds = self._clock.monotonic() - started
        self._metrics.restore_seconds.observe(seconds)
        self._metrics.restored_records.inc(beside.records)
        self._metrics.partitions.set(len(self._held))
        self._metrics.users.labels(str(partition)).set(state.users)
        self._metrics.campaigns.labels(str(partition)).set(state.campaigns)
        _log.info("restored", partition=partition, records=beside.records, seconds=round(seconds, 3))
        self._reporter.report(partition, self._held[partition], state.accounts())

    def _read_state(self, partition: int, store: LocalStore | None) -> tuple[Partition, RestoredExtras]:
        """The state from disk and the changelog's tail, or from the changelog alone.

        Raises:
            Unfit: what is on disk cannot be used.
            _Gone: meanwhile the partition became another member's.
            Refused: the changelog holds what cannot be read; the message names it and the way out.
        """
        state, beside = self._new_partition(partition), RestoredExtras()
        start = store.offset if store else 0

        def keep_alive(done: int, total: int) -> None:
            self._ready.fails(f"restoring partition {partition}: {done:,} of {total:,} records")
            self._stay(partition)

        def changelog(since: int) -> Iterator[Entry]:
            without = self._settings.left_out().get(partition, frozenset())
            return read_changelog(self._kafka, self._naming, partition, self._clock, keep_alive, since, without)

        def refused(error: Exception) -> Refused:
            topic = self._naming.name(AUDIENCE_STATE)
            without = self._settings.left_out()
            return refusal(topic, partition, changelog(0), self._new_partition, without, error)

        tail = changelog(start)
        entries = chain(self._alive(partition, store.entries()), store.filling(tail)) if store else tail
        restore(state, entries, beside, start > 0, refused)
        return state, beside

    def _alive(self, partition: int, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The same, with a sign of life for every so many: a disk may hold minutes of them."""
        for number, entry in enumerate(entries):
            if number % _ENTRIES_A_BEAT == 0:
                self._stay(partition)
            yield entry

    def _stay(self, partition: int) -> None:
        """A sign of life to the supervisor and to the group, from the middle of a restore."""
        self._heartbeat.beat()
        self._assignment.idle(0)
        if self._restoring != partition:
            raise _Gone

    def _open_inputs(self) -> None:
        """Whoever opted out is known before anything that could push is read; millions of them come in pieces."""
        waiting = []
        for partition, held in self._held.items():
            if held.preferences_until is None:
                continue
            read = self._assignment.preferences_read(partition)
            if read < held.preferences_until:
                waiting.append(f"preferences of partition {partition}: {read:,} of {held.preferences_until:,}")
                continue
            held.preferences_until = None
            held.commands_by = self._clock.monotonic() + self._settings.start_wait_s
            self._assignment.begin(partition, held.resumption)
        if waiting:
            self._ready.fails("; ".join(waiting))
        elif self._held:
            self._ready.holds()

    def _open_commands(self) -> None:
        """Commands are read once the listens that were waiting are in, but not put off for ever."""
        for partition, held in self._held.items():
            if held.commands_by is None:
                continue
            if self._assignment.caught_up(partition) or self._clock.monotonic() > held.commands_by:
                held.commands_by = None
                self._assignment.begin_commands(partition, held.at)

    def _follow_songs(self) -> None:
        """Take over what was published. Another space than the one in use is prepared beside it, a piece a round, while
        requests are answered in the old one; it comes into use when every partition is ready."""
        self._view.poll()
        warm, model, songs = self._view.warm(), self._view.model, self._songs
        if warm is not None and model is not None and self._view.version != self._seen_version:
            changed = sorted(warm.changes())
            if model == self._seen_model:
                # Songs that were promoted or taken down: what they cost, whatever the catalogue's size.
                nothing = np.zeros(model.dim, np.float32)
                vectors = [warm.vector(song_id) if song_id in warm else nothing for song_id in changed]
                if changed:
                    songs.add(model.space, changed, np.stack(vectors))
            else:
                (songs.set_vectors if songs.space is None else songs.prepare)(model.space, warm.ids, warm.vectors)
            self._seen_model = model
            self._chances = calibration_of(model.chances, self._settings.objective)
            self._seen_version = self._view.version
            if songs.coming is None:
                songs.calibration = self._chances
        # Those that are ready cost nothing; the first that is not gets its share of this round.
        if songs.coming is not None and all(held.state.prepare(_PREPARED_AT_ONCE) for held in self._held.values()):
            songs.switch()
            songs.calibration = self._chances
            _log.info("space in use", space=songs.space)
        space = SpaceInUse(songs.space, songs.dimension) if songs.space is not None else None
        if space != self._outside_space:
            # Those that were of another space may be of this one.
            self._outside_space = space
            for held in self._held.values():
                held.before = held.stated(held.at)
                held.at = replace(held.at, vectors=OFFSET_BEGINNING)
            self._assignment.again("vectors", self._held)


class _Gone(Exception):
    """The partition that is being restored became another member's."""


def member_of(naming: Naming, slot: int) -> str:
    """The name of a slot's worker, in the group and in transactions."""
    return f"{naming.prefix}audience-{slot}"


def note(bursts: BadBursts, naming: Naming, records: Records, decoded: Decoded) -> None:
    """Tell what of a committed batch was good and bad. What was buried in an earlier life is not bad again."""
    bad: dict[str, list[Bad]] = {}
    for letter, stage, error in decoded.bad:
        bad.setdefault(stage.removeprefix(STAGE), []).append(bad_of(letter, stage, error))
    for name, messages in records.by_input().items():
        if messages:
            refused = bad.get(name, [])
            bursts.note(
                naming.name(TOPIC_OF[name]), len(messages) - len(refused), decoded.sources.get(name, ()), refused
            )


def _next(messages: list[Message], otherwise: int) -> int:
    return (messages[-1].offset() or 0) + 1 if messages else otherwise


def _keep(versions: dict[bytes, int], key: bytes) -> Callable[[int], None]:
    def keep(offset: int) -> None:
        versions[key] = offset

    return keep
