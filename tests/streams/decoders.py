"""Every decoder of what comes in, as a question that any bytes may be asked: read, or refused by the declared error.

What is asked is one byte for the decoder and the rest for it: a record, or what the decoder takes. ``make fuzz`` looks
for bytes at which one of them does neither; ``test_decoders.py`` asks what was found, and more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped]
from confluent_kafka import Message
from hostile_traffic import Sent, Traffic

from streams.audience.changelog_reader import RestoredExtras
from streams.audience.decode import STAGE, Decoded, Decoder, Records, SpaceInUse
from streams.audience.deduplication import Deduplication
from streams.audience.disk_recovery import refusal, restore
from streams.audience.local_store import Entry
from streams.audience.positions import OFFSETS_KEY, InputOffsets, offsets_value
from streams.contract import vector_codec
from streams.contract.cloudevents import pack, unpack
from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import BadRecord, Refused
from streams.contract.event_base import Event
from streams.contract.events import Campaign, Listen, PushOutcome, SongUpload, UserPreferences
from streams.contract.internal_events import CampaignReport, LiveModel, MatchRequest, WarmSong
from streams.contract.record_size import MAX_UNPACKED_BYTES, record_size
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    CAMPAIGN_REPORTS,
    DEAD_LETTERS,
    LISTENS,
    MATCH_REQUESTS,
    PREFERENCES,
    PUSH_OUTCOMES,
    SONG_UPLOADS,
    SONGS_LEDGER,
    WARM_SONGS,
    Topic,
)
from streams.contract.unreadable import BAD_HEADER_NAME, UNREADABLE, unreadable
from streams.kafka.batches import LenientBatch, LenientRecords
from streams.kafka.batches import unpacked as unpacked_bytes
from streams.models.registry import read_model, read_song
from streams.operations.campaigns import read_campaign
from streams.operations.uplift import uplift
from streams.runtime.bad_record_burst import bad_of
from streams.songs import messages, song_record, song_store
from streams.songs.main import _check_report, _check_song
from streams.songs.matcher import Matched
from streams.songs.song_record import campaign_end, content_of
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition
from targeting.types import Listens, PartitionInputs

# When the examples of the contract were made.
NOW: Final = datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC).timestamp()
SPACE: Final = SpaceInUse("bcl", 2)
DIRECTION: Final = vector_codec.pack("bcl", np.array([0.6, 0.8], np.float32))

Check = Callable[[bytes], None]


# -- records as bytes


def packed(sent: Sent) -> bytes:
    """A record as bytes, its parts apart."""
    key, value, headers = sent
    return msgspec.msgpack.encode([key, value, [[name.encode(), said] for name, said in headers]])


_PARTS: Final = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]])


def unpacked(data: bytes) -> Sent:
    """The inverse; what is no record is the value of one. A name that is not UTF-8 is told as clients' readers do."""
    try:
        key, value, named = _PARTS.decode(data)
    except msgspec.MsgspecError:
        return None, data, []
    try:
        return key, value, [(name.decode(), said) for name, said in named]
    except UnicodeDecodeError:
        return key, value, unreadable(BAD_HEADER_NAME)


def example(cls: type[Event], kind: int = 0) -> Sent:
    """The contract's example of an event."""
    record = pack(
        msgspec.json.decode(cls.EXAMPLE.encode(), type=cls), ce_type=cls.TYPES[kind], id="1", source="test", time=NOW
    )
    return record.key, record.value, list(record.headers)


def good(topic: Topic, *events: type[Event]) -> list[Sent]:
    """Good records of a topic."""
    traffic = Traffic(5, lambda: NOW, (SPACE.name, SPACE.dimension), wrong=0)
    made = [traffic.of(topic) for _ in range(20)] if topic in traffic.topics else []
    return [*(example(cls, kind) for cls in events for kind in range(len(cls.TYPES))), *made]


# -- the inputs of the audience role

TOPIC_OF: Final = {
    "listens": LISTENS, "preferences": PREFERENCES, "outcomes": PUSH_OUTCOMES, "vectors": AUDIENCE_VECTORS,
    "commands": MATCH_REQUESTS,
}  # fmt: skip
EVENT_OF: Final[dict[str, type[Event]]] = {
    "listens": Listen, "preferences": UserPreferences, "outcomes": PushOutcome, "commands": MatchRequest,
}  # fmt: skip


def accounted(records: Records, decoded: Decoded) -> None:
    """Every record is served, or buried once, in a letter that its topic takes."""
    inputs, stages = decoded.inputs, [stage for _, stage, _ in decoded.bad]
    served = {
        "listens": len(inputs.listens.user_ids) + decoded.repeated if inputs.listens else decoded.repeated,
        "outcomes": len(inputs.outcomes.user_ids) if inputs.outcomes else 0,
        "commands": len(inputs.commands),
    }
    for name, count in served.items():
        assert count + stages.count(STAGE + name) == len(getattr(records, name)), name
    places = [tuple(value for name, value in letter.headers if name == "dl_offset") for letter, _, _ in decoded.bad]
    assert len(places) == len(set(places))
    for letter, stage, error in decoded.bad:
        assert record_size(letter.key, letter.value, letter.headers) <= DEAD_LETTERS.largest
        assert bad_of(letter, stage, error).stage == stage


def _message(topic: Topic, sent: Sent, offset: int) -> Message:
    key, value, headers = sent
    more: dict[str, Any] = {"headers": headers} if headers else {}
    return Message(
        topic=topic.name, partition=0, offset=offset, key=key, value=value, timestamp=(2, int(NOW * 1000)), **more
    )


def _song_entries() -> Iterator[Sent]:
    for sent in good(SONG_UPLOADS, SongUpload):
        received = unpack(SongUpload, *sent, NOW)
        yield received.event.song_id.encode(), song_record.write(song_record.entry(received, NOW, NOW + 60)), []


def _report_entries() -> Iterator[Sent]:
    for sent in good(CAMPAIGN_REPORTS, CampaignReport):
        # Some of the traffic are legal field by field alone.
        with suppress(BadRecord):
            report = unpack(CampaignReport, *sent, NOW).event
            yield song_store.report_key(report.song_id, report.partition), msgspec.json.encode(report), []


def _audience(name: str) -> Check:
    topic, event = TOPIC_OF[name], EVENT_OF.get(name)
    before, behind = good(topic, *([event] if event else []))[:2]

    def check(data: bytes) -> None:
        sent = unpacked(data)
        # Between good ones: after one of the same source a record takes the short way.
        records = Records(**{name: [_message(topic, each, at) for at, each in enumerate((before, sent, behind))]})
        decoded = Decoder(NOW, lambda _: False, 1).decode(records, SPACE, Deduplication(0))
        accounted(records, decoded)
        said = [(dict(letter.headers)["dl_offset"], error) for letter, _, error in decoded.bad]
        if event is None or (name == "preferences" and sent[1] is None):
            assert len(said) <= 1
            return
        refused: list[tuple[bytes, str]] = []
        try:
            unpack(event, *sent, NOW)
        except BadRecord as error:
            refused = [(b"1", type(error).__name__)]
        # A request's vectors are looked at once its fields are known to be right.
        assert said == refused or (event is MatchRequest and not refused and said == [(b"1", said[0][1])])

    return check


# -- the inputs of the songs role


def _bad(stage: str, sent: Sent, error: BadRecord) -> None:
    key, value, headers = sent
    letter = dead_letter(Origin("t", 0, 1, int(NOW * 1000), key, value, headers), stage, error)
    assert record_size(letter.key, letter.value, letter.headers) <= DEAD_LETTERS.largest
    assert bad_of(letter, stage, type(error).__name__).stage == stage


def _upload(data: bytes) -> None:
    sent = unpacked(data)
    try:
        received = unpack(SongUpload, *sent, NOW)
        gone = SongUpload.taken_down(received.type)
        end = NOW + 1 if gone else campaign_end(received.event, NOW, 28.0)
    except BadRecord as error:
        _bad("songs.validate", sent, error)
        return
    upload = received.event
    song = song_record.entry(received, NOW, end)
    key, value = upload.song_id.encode(), song_record.write(song)
    song_record.check(key, value)
    assert record_size(key, value) <= SONGS_LEDGER.largest
    assert song_record.read(value) == song
    if gone:
        told = messages.taken_down(upload.song_id, song)
    else:
        content = content_of(upload)
        warm = messages.warm(upload.song_id, upload.title, content, SPACE.name, DIRECTION, NOW)
        assert record_size(warm.key, warm.value, warm.headers) <= WARM_SONGS.largest
        assert read_song(warm.key, warm.value, list(warm.headers))[0].song_id == upload.song_id
        told = messages.request(song, upload, Matched(DIRECTION, []), [], 100)
    # What the role tells, the other one understands.
    assert record_size(told.key, told.value, told.headers) <= MATCH_REQUESTS.largest
    assert unpack(MatchRequest, told.key, told.value, list(told.headers), NOW).event.song_id == upload.song_id


def _report(data: bytes) -> None:
    sent = unpacked(data)
    try:
        report = unpack(CampaignReport, *sent, NOW).event
    except BadRecord as error:
        _bad("songs.merge", sent, error)
        return
    assert report.started_at.timestamp() < 1e12
    song_store.check_report(song_store.report_key(report.song_id, report.partition), msgspec.json.encode(report))


def _warm(data: bytes) -> None:
    key, value, headers = unpacked(data)
    try:
        found, vector = read_song(key, value, headers)
    except BadRecord as error:
        _bad("songs.cache", (key, value, headers), error)
        return
    assert np.isfinite(vector).all()
    assert vector.any()
    assert key == f"{found.space} {found.song_id}".encode()


def _model(data: bytes) -> None:
    sent = unpacked(data)
    try:
        assert read_model(*sent).dim > 0
    except BadRecord as error:
        _bad("songs.cache", sent, error)


def _campaign(data: bytes) -> None:
    key, value, _ = unpacked(data)
    with suppress(BadRecord):
        _, campaign = read_campaign(key, value)
        assert campaign is None or len(uplift(campaign.counts)) == 3


# -- what the roles wrote for themselves


def _entry(check: Callable[[bytes, bytes], None]) -> Check:
    def asked(data: bytes) -> None:
        key, value, _ = unpacked(data)
        with suppress(BadRecord):
            check(key or b"", value or b"")

    return asked


def new_partition(_: int = 0) -> Partition:
    """A partition that knows two songs."""
    songs = Catalogue()
    songs.set_vectors("bcl", ["s-2", "s-3"], np.eye(2, dtype=np.float32))
    return Partition(0, 2, songs)


def written(state: Partition, listeners: int) -> list[Entry]:
    """What a partition writes that takes a listen of so many users and answers a request."""
    told = _message(MATCH_REQUESTS, example(MatchRequest), 0)
    answered = Decoder(NOW, lambda _: False, 1).decode(Records(commands=[told]), SPACE, Deduplication(0)).inputs
    users = [f"u{number}" for number in range(listeners)]
    listens = Listens(users, ["s-2"] * listeners, np.ones(listeners, np.float32), np.full(listeners, NOW - 9), None)
    out: list[Entry] = []
    for inputs in (PartitionInputs(now=NOW, listens=listens), answered):
        staged = state.stage(inputs)
        out += [Entry(len(out) + n, key, value) for n, (key, value) in enumerate(staged.outputs.changelog)]
        state.apply(staged)
    return out


def changelog() -> list[Entry]:
    """The records of a partition's state, and where it stands in its inputs."""
    out = written(new_partition(), 12)
    return [*out, Entry(len(out), OFFSETS_KEY, offsets_value(InputOffsets(listens=5), {"listens": "id"}))]


CHANGELOG: Final = changelog()


def _state(data: bytes) -> None:
    key, value, _ = unpacked(data)
    entries = [*CHANGELOG, Entry(len(CHANGELOG), key or b"", value)]
    state = new_partition()
    try:
        restore(
            state, entries, RestoredExtras(), False,
            lambda error: refusal("audience-state", 0, entries, new_partition, {}, error),
        )  # fmt: skip
    except Refused:
        return
    assert len(state.digest()) == 32
    assert state.stage(PartitionInputs(now=NOW + 2)) is not None


# -- bytes below records


def _vector(data: bytes) -> None:
    where = "bad"
    with suppress(BadRecord):
        name, vector = vector_codec.unpack(data)
        assert name.isascii()
        assert np.isfinite(vector).all()
        if name != SPACE.name:
            where = "elsewhere"
        elif len(vector) == SPACE.dimension:
            assert vector_codec.unpack_direction(data)[1].any()
            where = "here"
    good = [DIRECTION, DIRECTION]
    for values, at in (([data, *good], 0), ([*good, data], 2)):
        found = vector_codec.unpack_space(values, SPACE.name, SPACE.dimension)
        places = {
            "here": found.at.tolist(),
            "elsewhere": found.elsewhere.tolist(),
            "bad": [bad for bad, _ in found.bad],
        }
        assert [name for name, those in places.items() if at in those] == [where]
        assert sorted(at for those in places.values() for at in those) == [0, 1, 2]
        assert found.vectors.shape == (len(found.at), SPACE.dimension)
        assert np.isfinite(found.vectors).all()


HALF: Final = DIRECTION[:5] + b"\x02" + DIRECTION[6:40] + np.array([0.6, 0.8], np.float16).tobytes()
"""A vector in half precision."""

BATCH_HEADER: Final = 61
MAGIC_AT: Final = 16
_ATTRIBUTES_AT: Final = 22
_CONTROL: Final = 0x20


def batch(values: Iterable[bytes | None], codec: int, headers: list[tuple[str, bytes | None]]) -> bytes:
    """A batch as a client writes it."""
    built = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1_000_000,
    )  # fmt: skip
    for offset, value in enumerate(values):
        assert built.append(offset, int(NOW * 1000) + offset, b"key", value, headers) is not None
    return bytes(built.build())


def repacked(header: bytes, codec: int, records: bytes) -> bytes:
    """A batch of these records' bytes, under a header whose length and codec are put right."""
    from aiokafka import codec as codecs  # type: ignore[import-untyped]

    pack = {1: codecs.gzip_encode, 2: codecs.snappy_encode, 3: codecs.lz4_encode, 4: codecs.zstd_encode}
    data = bytes(pack[codec](records)) if codec else records
    fixed = bytearray(header[:BATCH_HEADER])
    fixed[8:12] = (BATCH_HEADER - 12 + len(data)).to_bytes(4, "big")
    fixed[MAGIC_AT] = 2
    fixed[_ATTRIBUTES_AT] = (fixed[_ATTRIBUTES_AT] & ~7) | codec
    return bytes(fixed) + data


def _answer(data: bytes) -> None:
    """The bytes of an answer to a fetch, which a batch may end in the middle of."""
    found = LenientRecords(data)
    # The broker looks at a header's length and format before it takes a batch.
    if found.has_next() and found.size_in_bytes() > BATCH_HEADER <= _length(data) and data[MAGIC_AT] == 2:
        batch = found.next_batch()
        if isinstance(batch, LenientBatch):
            _read(batch)


def _length(batch: bytes) -> int:
    return 12 + int.from_bytes(batch[8:12], "big", signed=True)


def _records(data: bytes) -> None:
    """A codec, a header, and the bytes of a batch before they are packed: its length, format and codec are right."""
    if len(data) <= BATCH_HEADER or data[1 + _ATTRIBUTES_AT] & _CONTROL:
        return
    whole = repacked(data[1 : BATCH_HEADER + 1], data[0] % 5, data[BATCH_HEADER + 1 :])
    _read(LenientRecords(whole).next_batch())


def _read(batch: LenientBatch) -> None:
    size, last = 0, batch.base_offset - 1
    told = list(batch)
    for record in told:
        assert record.offset > last
        last = record.offset
        for part in (record.key, record.value):
            assert part is None or isinstance(part, bytes)
            size += len(part or b"")
        assert all(isinstance(name, str) for name, _ in record.headers)
    assert size <= MAX_UNPACKED_BYTES
    # What the fast reader told, the careful one tells: a length that leads out of the batch is no record.
    careful: list[Any] = []
    with suppress(Exception):
        careful.extend(batch._read(unpacked_bytes(batch._batch.compression_type, batch._whole[BATCH_HEADER:])[0]))
    for ours, theirs in zip(told, careful, strict=False):
        if UNREADABLE in dict(ours.headers):
            break
        assert (ours.offset, ours.key, ours.value) == (theirs.offset, theirs.key, theirs.value)
    assert len(told) <= len(careful) + 1


CHECKS: Final[dict[str, Check]] = {
    **{name: _audience(name) for name in TOPIC_OF},
    "uploads": _upload, "reports": _report, "warm-songs": _warm, "models": _model, "campaigns": _campaign,
    "songs-ledger": _entry(_check_song), "songs-reports": _entry(_check_report), "audience-state": _state,
    "vector": _vector, "answer": _answer, "batch": _records,
}  # fmt: skip
"""By the name of the topic or format."""

NAMES: Final = tuple(CHECKS)


def ask(data: bytes) -> None:
    """Ask the decoder that the first byte names."""
    if data:
        CHECKS[NAMES[data[0] % len(NAMES)]](data[1:])


def question(name: str, data: bytes) -> bytes:
    """The inverse: what :func:`ask` is given."""
    return bytes([NAMES.index(name)]) + data


def seeds() -> Iterator[bytes]:
    """Questions with good answers, of every decoder."""
    topics = {
        **{name: good(topic, *([EVENT_OF[name]] if name in EVENT_OF else [])) for name, topic in TOPIC_OF.items()},
        "uploads": good(SONG_UPLOADS, SongUpload),
        "reports": good(CAMPAIGN_REPORTS, CampaignReport),
        "warm-songs": good(WARM_SONGS, WarmSong),
        "models": [example(LiveModel)],
        "campaigns": [example(Campaign)],
        "songs-ledger": list(_song_entries()),
        "songs-reports": list(_report_entries()),
        "audience-state": [(entry.key, entry.value, []) for entry in CHANGELOG],
    }  # fmt: skip
    for name, records in topics.items():
        yield from (question(name, packed(sent)) for sent in records)
    for vector in (DIRECTION, vector_codec.pack("another", np.ones(3, np.float32)), HALF):
        yield question("vector", vector)
    for codec in range(5):
        whole = batch([b"value" * 20, None, b""], codec, [("name", b"said"), ("none", None)])
        yield question("answer", whole)
        plain = batch([b"value" * 20, None, b""], 0, [("name", b"said"), ("none", None)])
        yield question("batch", bytes([codec]) + plain)
