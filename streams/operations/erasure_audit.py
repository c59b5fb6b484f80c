"""Finds everything that is still stored about a user who asked to be forgotten.

Proof from outside: every topic of the installation and this machine's state databases are searched; no worker is
asked. What a partition's state holds is what its changelog says last of the user's keys
(``targeting/partition/state_keys.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, Message
from confluent_kafka.admin import ConfigResource, ResourceType

from streams.audience.local_store import LocalStores, StoreCorrupted
from streams.audience.withdrawals import erasure_asked, user_of
from streams.contract.dead_letters import headers
from streams.contract.errors import Refused, Unavailable
from streams.contract.topics import (
    AUDIENCE_STATE,
    AUDIENCE_VECTORS,
    DEAD_LETTERS,
    PREFERENCES,
    TOPICS,
    Cleanup,
    Naming,
    Plane,
    Topic,
)
from streams.kafka.clients import admin, reason
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.partitioner import partition_of
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from targeting.partition.state_keys import ERASED, INTEREST, PUSHED, USER
from targeting.users.erasures import Erasures

_KINDS: Final = {USER: "history", PUSHED: "pushes", INTEREST: "score threshold"}

_OWNERS: Final = {
    PREFERENCES.name: "holds the request itself: the account service deletes it when its own proof is kept elsewhere",
    AUDIENCE_VECTORS.name: "its owner, the user-model team, must send a deletion of this key; it is not used meanwhile",
}


@dataclass(frozen=True, slots=True)
class UserTrace:
    """What one place still has of a user.

    Attributes:
        place: a topic's full name, or a folder.
        records: how many records name the user, or how often a file holds the id's bytes.
        gone_from, gone_by: when retention takes the last of them, Unix seconds: earliest, and at the latest. Kafka
            deletes whole segments, so a record waits for those written behind it. None where time alone does nothing.
        state: it is part of the state, which is to hold nothing.
        words: what it is, and who must act.
    """

    place: str
    records: int
    gone_from: float | None = None
    gone_by: float | None = None
    state: bool = False
    words: str = ""


@dataclass(slots=True)
class Request:
    """A preferences record that asks to forget the user.

    Attributes:
        place: the record, such as ``coldstart.preferences[3] at 17``.
        asked_at: what it asks to forget everything from before, Unix seconds.
        refused: why the record is in dead-letters; None: it is not.
        key: the record's key where that is another than the user's id: nobody obeys it.
        misplaced: it lies in another partition than the user's: nobody who has the user's state reads it.
        obeyed: whether the state remembers an erasure as late as this.
    """

    place: str
    asked_at: float
    refused: str | None = None
    key: str | None = None
    misplaced: bool = False
    obeyed: bool = False


@dataclass(slots=True)
class UserTraces:
    """Everything that was found.

    Attributes:
        partition: the user's.
        erased_at: the latest erasure that the state remembers, Unix seconds; None: none was consumed.
        no_profiling_since: when the user objected to profiling, Unix seconds; None: they allow it.
        found: a line a place; a place without anything has one, too.
        requests: what asks for an erasure, as far as it still stands in preferences or dead-letters.
        unknown_keys: how many erased users of the partition, this one or others, are remembered with a key that is not
            known here, by its fingerprint.
    """

    user_id: str
    partition: int
    erased_at: float | None = None
    no_profiling_since: float | None = None
    found: list[UserTrace] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    unknown_keys: dict[str, int] = field(default_factory=dict)

    @property
    def forgotten(self) -> bool:
        """Whether the state holds nothing of the user."""
        return not any(trace.state and trace.records for trace in self.found)


def trace(
    kafka: KafkaSettings,
    naming: Naming,
    clock: Clock,
    user_id: str,
    keys: Sequence[bytes],
    stores: LocalStores,
    state: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> UserTraces:
    """Search every topic and this machine's databases for a user. Workers may run meanwhile.

    Args:
        keys: of the keyed hash that remembers erased users, the current one first (``audience.erasure_keys``).
        stores: this machine's state databases, which lie in ``state``, a folder a partition.
        progress: called with the name of each topic before it is read.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """
    traces = UserTraces(user_id, partition_of(user_id.encode(), naming.audience_partitions))
    settings = _settings(kafka, [naming.name(topic) for topic in TOPICS])
    requests = _Requests(user_id, naming.name(PREFERENCES), traces.partition)
    for topic in TOPICS:
        name = naming.name(topic)
        progress(name)
        snapshot = Snapshot(kafka, [name], clock, searched(topic, traces.partition))
        try:
            messages = snapshot.read_to_end()
            if topic is AUDIENCE_STATE:
                _of_state(traces, name, messages, Erasures(keys[0], keys[1:]), settings[name])
            elif topic in (PREFERENCES, DEAD_LETTERS):
                noted = requests.noting(topic, messages)
                traces.found.append(_of_topic(topic, name, noted, user_id, settings[name]))
            else:
                traces.found.append(_of_topic(topic, name, messages, user_id, settings[name]))
        finally:
            snapshot.close()
    traces.found += _of_disk(stores, state / str(traces.partition), traces.partition, user_id)
    traces.requests = requests.found()
    for each in traces.requests:
        each.obeyed = each.key is None and traces.erased_at is not None and each.asked_at <= traces.erased_at
    return traces


class _Requests:
    """The records that ask to forget a user, picked out of the topics that may hold them as these are read."""

    def __init__(self, user_id: str, preferences: str, partition: int) -> None:
        self._user_id = user_id
        self._preferences = preferences
        self._partition = partition
        self._by_place: dict[str, Request] = {}

    def found(self) -> list[Request]:
        return list(self._by_place.values())

    def noting(self, topic: Topic, messages: Iterable[Message]) -> Iterator[Message]:
        """The same messages, each looked at."""
        for message in messages:
            self._look(topic, message)
            yield message

    def _look(self, topic: Topic, message: Message) -> None:
        said = {name: (value or b"").decode("utf-8", "replace") for name, value in headers(message)}
        buried = topic is DEAD_LETTERS
        if buried and said.get("dl_topic") != self._preferences:
            return
        value, user = message.value() or b"", user_of(message.key())
        if user != self._user_id and b'"%s"' % self._user_id.encode() not in value:
            return
        partition, offset = message.partition(), message.offset()
        appended_at = message.timestamp()[1] / 1000
        if buried:
            partition, offset = int(said["dl_partition"]), int(said["dl_offset"])
            appended_at = int(said["dl_timestamp"]) / 1000
        place = f"{self._preferences}[{partition}] at {offset}"
        known = self._by_place.get(place)
        if known is None:
            asked_at = erasure_asked(value, appended_at)
            if asked_at is None:
                return
            known = self._by_place[place] = Request(place, asked_at)
            known.misplaced = user == self._user_id and partition != self._partition
            if user != self._user_id:
                known.key = (message.key() or b"").decode("utf-8", "backslashreplace")
        if buried:
            known.refused = said.get("dl_message", "")


def _of_topic(
    topic: Topic, name: str, messages: Iterable[Message], user_id: str, settings: dict[str, int]
) -> UserTrace:
    """The records of a user; of a compacted topic the one that stands, beside those that compaction has yet to take."""
    about, last = about_user(topic, user_id), dict[int | None, bool]()
    times: list[float] = []
    for message in messages:
        if about(message):
            last[message.partition()] = message.value() is not None
            if last[message.partition()] or topic.cleanup is Cleanup.DELETE:
                times.append(message.timestamp()[1] / 1000)
    if not times:
        return UserTrace(name, 0, words="none")
    if topic.cleanup is Cleanup.DELETE:
        since = max(times) + settings["retention.ms"] / 1000
        return UserTrace(name, len(times), since, since + settings["segment.ms"] / 1000, words="wait for retention")
    if any(last.values()):
        return UserTrace(name, len(times), words=_OWNERS.get(topic.name, "stands until its owner deletes it"))
    since = max(times) + settings["segment.ms"] / 1000
    return UserTrace(name, len(times), since, words="deleted; the log's compaction takes them after this")


def _of_state(
    traces: UserTraces, name: str, messages: Iterable[Message], erasures: Erasures, settings: dict[str, int]
) -> None:
    """What the changelog says of the user, and whether it remembers an erasure."""
    user = traces.user_id.encode()
    standing: dict[bytes, bool] = {}
    former: list[float] = []
    for message in messages:
        said, value = message.key() or b"", message.value()
        if said[:1] == ERASED:
            try:
                erasures.load(said[1:], value)
            except ValueError as error:
                where = f"{name}[{message.partition()}] at offset {message.offset()}"
                raise Refused(f"{where}: {error}; a worker of this partition says the way out") from None
        elif said[:1] in _KINDS and said[1:] == user:
            standing[said[:1]] = value is not None
            if value is not None:
                former.append(message.timestamp()[1] / 1000)
    told = erasures.of(traces.user_id)
    erased_at = traces.erased_at = told.erased or None
    traces.no_profiling_since = told.said if told.objects else None
    traces.unknown_keys = {of.hex(): count for of, count in erasures.unknown().items()}
    held = [what for kind, what in _KINDS.items() if standing.get(kind)]
    if held:
        back = "" if erased_at is None else "; if it was written since the erasure, the user came back"
        traces.found.append(UserTrace(name, len(held), state=True, words=f"{', '.join(held)}{back}"))
    elif former:
        until = max(former) + settings["segment.ms"] / 1000
        traces.found.append(
            UserTrace(name, len(former), until, words="deleted; the log's compaction takes them after this")
        )
    else:
        traces.found.append(UserTrace(name, 0, words="none"))


def _of_disk(stores: LocalStores, folder: Path, partition: int, user_id: str) -> list[UserTrace]:
    """What this machine's database of the partition has: what it would restore, and what its files still hold."""
    user = user_id.encode()
    if not folder.is_dir():
        return [UserTrace(str(folder), 0, words="no database here")]
    held: list[str] = []
    words = "none"
    try:
        store = stores.open_existing(partition)
    except StoreCorrupted as error:
        words = f"not usable, rebuilt by the next worker ({error})"
    else:
        if store is None:
            words = "a worker uses it, and it follows the changelog"
        else:
            try:
                keys = {kind + user: what for kind, what in _KINDS.items()}
                held = [keys[entry.key] for entry in store.entries() if entry.key in keys]
            finally:
                store.close()
    if held:
        return [UserTrace(str(folder), len(held), state=True, words=", ".join(sorted(held)))]
    bytes_found = _in_files(folder, [kind + user for kind in _KINDS])
    if bytes_found:
        remedy = f"bytes of deleted records, or of longer ids: they go as it compacts; at once with `rm -r {folder}`"
        return [UserTrace(str(folder), bytes_found, words=f"{remedy} while no worker runs")]
    return [UserTrace(str(folder), 0, words=words)]


def _in_files(folder: Path, wanted: Sequence[bytes]) -> int:
    """How often any of these stands in the files of a folder, as it is on the disk."""
    count = 0
    for path in sorted(folder.rglob("*")):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except OSError:
            # A database in use may delete files meanwhile.
            continue
        count += sum(data.count(each) for each in wanted)
    return count


def searched(topic: Topic, partition: int) -> int | None:
    """Where records of a user of this partition are looked for; None: everywhere.

    What is refused in another partition than the user's waits for retention there; where there is none, it stands until
    its owner deletes it.
    """
    return partition if topic.plane is Plane.AUDIENCE and topic not in (PREFERENCES, AUDIENCE_VECTORS) else None


def about_user(topic: Topic, user_id: str) -> Callable[[Message], bool]:
    """Whether a record is about the user: by its key; without one, by what it says."""
    user = user_id.encode()
    if topic.plane is Plane.AUDIENCE and topic.key == "user_id":
        return lambda message: message.key() == user
    # Ours are written without blanks; of a dead letter nothing is known, and a quoted id is enough.
    said = b'"%s"' % user if topic is DEAD_LETTERS else b'"user_id":"%s"' % user
    return lambda message: message.key() == user or said in (message.value() or b"")


def _settings(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """``retention.ms`` and ``segment.ms`` of topics, as the broker has them.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """
    client = admin(kafka)
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, int]] = {}
    for resource, future in client.describe_configs(resources, request_timeout=kafka.request_timeout_s).items():
        try:
            values = future.result(kafka.request_timeout_s)
        except (KafkaException, TimeoutError) as error:
            raise Unavailable(f"topic {resource.name}: {reason(error)}") from error
        found[resource.name] = {name: int(values[name].value) for name in ("retention.ms", "segment.ms")}
    return found
