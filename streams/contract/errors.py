"""What can go wrong on the stream.

    ColdstartError
    ├── BadRecord                 dead_letter: the record can never be served; the next one is
    │   ├── Undecodable           the bytes are not what the topic holds
    │   ├── TooLarge              the value has more bytes than are read
    │   ├── UnknownEventType      the ce_type is not one that this topic carries
    │   ├── UnknownMediaType      the content-type is none that is read
    │   ├── InvalidField          a known field or header is missing or malformed
    │   ├── KeyMismatch           the record key is not the id in the event
    │   ├── WrongPartition        the record lies in another partition than its key belongs to
    │   ├── RefusedOutcome        an outcome is of no push, or does not follow from what was told of it
    │   ├── OutdatedRevision      the song's revision was served before, with other content, or a higher one was
    │   ├── FromTheFuture         a time in the event lies too far ahead of its record's append time
    │   └── OperatorSkipped       nothing is said against the record: an operator had the group pass over it
    ├── Unavailable               retriable: Kafka or a file is out of reach for now
    ├── Refused                   the operator must change something; a restart will not help
    │   ├── SettingsError         a setting is wrong: key, value and what is allowed
    │   ├── BrokerFailed          the embedded Kafka cannot be fetched, started or stopped
    │   ├── PartitionMismatch     the state was written for another number of partitions
    │   ├── RecreatedTopic        a topic was deleted and created again since it was read
    │   └── ErasureKeyMismatch    erased users are remembered with a key that is not configured
    ├── BadBurst                  no source sends good records: the role stops until it is told to resume
    └── MustRestart               retriable: the process must end; a fresh one continues from what was committed

Callers look at the class attributes ``dead_letter`` and ``retriable``, never at a name or a text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Self


class ColdstartError(Exception):
    """Anything that this system raises on purpose. The message says what to change."""

    retriable: ClassVar[bool] = False
    dead_letter: ClassVar[bool] = False


class BadRecord(ColdstartError):
    """A record that can never be served, however often it is tried."""

    dead_letter: ClassVar[bool] = True
    malformed: ClassVar[bool] = True
    """Whether its sender writes records as nobody should; many of them stop a role."""

    def without_frames(self) -> Self:
        """The error, to be kept beyond the call that raised it.

        Its frames hold the batch, and the error that stands in one of them holds the frames: a circle that would keep
        every record of the batch in memory until the collector comes.
        """
        self.__traceback__ = self.__context__ = None
        return self


class Undecodable(BadRecord):
    """The bytes are not what the topic holds."""


class TooLarge(BadRecord):
    """The value, or a record that it leads to, has more bytes than are allowed; the message says how many."""


class UnknownEventType(BadRecord):
    """The ce_type is not one that this topic carries."""


class UnknownMediaType(BadRecord):
    """The content-type, or a structured event's datacontenttype, is none that is read; the message says which are."""


class InvalidField(BadRecord):
    """A known field or header is missing or malformed; the message names it."""


class KeyMismatch(BadRecord):
    """The record key is not the id in the event, so the record lies in the wrong partition."""


class WrongPartition(BadRecord):
    """The record lies in another partition than the one that its key belongs to, where its song or user is known."""


class RefusedOutcome(BadRecord):
    """An outcome is of no push that was made, or does not follow from what was told of it before."""

    malformed: ClassVar[bool] = False


class OutdatedRevision(BadRecord):
    """A song's revision was served before, with other content, or a higher one was: nothing is done for this one."""

    malformed: ClassVar[bool] = False


class FromTheFuture(BadRecord):
    """A time in the event lies more than five minutes after the moment at which the broker appended its record."""


class OperatorSkipped(BadRecord):
    """An operator had a group pass over the record; a replay brings it back."""

    @classmethod
    def at(cls, offset: int, group: str) -> Self:
        """Of the record at an offset."""
        return cls(f"offset {offset}: skipped by an operator for group {group}")


class Unavailable(ColdstartError):
    """Kafka or a file is out of reach for now."""

    retriable: ClassVar[bool] = True


class Refused(ColdstartError):
    """The operator must change something; a restart will not help."""


class SettingsError(Refused):
    """A setting is wrong. The message names every wrong key, its value and what is allowed."""


class BrokerFailed(Refused):
    """The embedded Kafka cannot be fetched, started or stopped; the message holds the end of its log."""


class PartitionMismatch(Refused):
    """The state was written for another number of audience partitions."""


class RecreatedTopic(Refused):
    """A topic was deleted and created again since it was read, so that the position kept says nothing of it.

    Args:
        topic: without the prefix of the installation.
        position: the next offset of the former topic; None where there is none.
        former: id of that topic; None where it was not kept.
        now: id of the topic as it is.
    """

    def __init__(self, topic: str, partition: int, position: int | None, former: str | None, now: str) -> None:
        ids = f"id {former}, now {now}" if former else f"id now {now}, formerly not kept"
        super().__init__(
            f"topic {topic} was deleted and created again since partition {partition} was read ({ids}); the position "
            f"{position} is of the former. `coldstart topics adopt {topic}` accepts the new one, read from its "
            "beginning; the state stays as it is, and what was not yet read of the former topic is lost"
        )


class ErasureKeyMismatch(Refused):
    """Erased users are remembered with a key that is not configured, so that they would be erased again."""


class BadBurst(ColdstartError):
    """Most records of an input were bad, from every source; the role stops until it is told to resume."""


class MustRestart(ColdstartError):
    """The process must end: a fenced or half-done transaction, a lost send. A fresh one continues safely."""

    retriable: ClassVar[bool] = True


def broken_state(
    topic: str,
    places: Sequence[tuple[int, int, str]],
    setting: str,
    already: Mapping[int, Collection[int]],
    lost: str,
) -> str:
    """Why a state is refused whose topic holds records that cannot be read, and the way out.

    Args:
        places: partition, offset and reason of each record.
        setting: the one that leaves records out; ``already``: what it leaves out now, offsets by partition.
        lost: what leaving the records out costs.
    """
    shown = "; ".join(f"{topic}[{partition}] at offset {at}: {why[:200]}" for partition, at, why in places[:5])
    more = f"; and {len(places) - 5:,} more" if len(places) > 5 else ""
    out = [(partition, at) for partition, offsets in already.items() for at in sorted(offsets)]
    out += [(partition, at) for partition, at, _ in places[:100]]
    listed = ",".join(f"{partition}:{at}" for partition, at in out)
    return (
        f"the state in {topic} cannot be used: {shown}{more}. If a newer version wrote this, run that one. To go on "
        f'without these records ({lost}), set {setting} = "{listed}" (in the environment COLDSTART_'
        f"{setting.replace('.', '__').upper()}) and start again"
    )
