"""One restored partition of a worker, and what one round has to do for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from confluent_kafka import Message

from streams.audience.consumers import REREAD
from streams.audience.decode import Records
from streams.audience.deduplication import Deduplication
from streams.audience.local_store import LocalStore
from streams.audience.positions import InputOffsets, offsets_value
from targeting.partition.partition import Partition, Staged


@dataclass(slots=True)
class PartitionTask:
    """A restored partition: its state, and where it stands in every input.

    Attributes:
        restored_offsets: where the inputs that are read again from their beginning had been read to: bad
            records before that have had their dead letters.
        repeats: which listens came before.
        dedup_replay_offset: from where listens of an earlier life are still to be read, for ``repeats``; None
            once they are.
        topic_ids: input -> id of the topic that its position counts in.
        versions: account key -> changelog offset of its newest record.
        preferences_until: the end of its preferences when it was restored: its other inputs are read once all before it
            are in; None then.
        strangers: who is known here from before records in the wrong partition were refused; until the next commit
            their pushes are to be stopped.
        commands_by: None once commands are read; until then, when reading them begins at the latest.
        store: the disk's copy of the changelog; None where the disk does not serve.
        staged: what the open transaction does to the state.
        changelog_end: behind the last changelog record of the last transaction.
        written_at: monotonic seconds of the last commit.
    """

    state: Partition
    at: InputOffsets
    restored_offsets: InputOffsets
    repeats: Deduplication
    dedup_replay_offset: int | None
    topic_ids: dict[str, str]
    versions: dict[bytes, int]
    preferences_until: int | None
    commands_by: float | None
    strangers: list[str] = field(default_factory=list)
    store: LocalStore | None = None
    staged: Staged | None = None
    changelog_end: int = 0
    written_at: float = 0.0

    def ends_at(self, offset: int) -> None:
        self.changelog_end = offset + 1

    def offsets_to_commit(self, at: InputOffsets) -> InputOffsets:
        """What a commit at ``at`` says of the inputs.

        Some are read again from their beginning. Until they are back where they stood, or when compaction left
        nothing, their offset from before stays: the group keeps it too, and the two must agree.
        """
        return replace(at, **{name: max(getattr(at, name), getattr(self.restored_offsets, name)) for name in REREAD})

    def offsets_value(self, at: InputOffsets) -> bytes:
        """What a commit at ``at`` writes of the inputs in the changelog."""
        return offsets_value(self.offsets_to_commit(at), self.topic_ids)

    @property
    def resumption(self) -> InputOffsets:
        """From where to read on when everything that was not committed is dropped."""
        return self.at if self.dedup_replay_offset is None else replace(self.at, listens=self.dedup_replay_offset)


@dataclass(slots=True)
class Round:
    """What one round has to do, by partition."""

    records: dict[int, Records] = field(default_factory=dict)

    def of(self, partition: int) -> Records:
        return self.records.setdefault(partition, Records())

    def __len__(self) -> int:
        return sum(map(len, self.records.values()))


def next_offset(messages: list[Message], otherwise: int) -> int:
    """The offset behind the last of these messages."""
    return (messages[-1].offset() or 0) + 1 if messages else otherwise
