"""Serves uploads: validates, encodes, matches, and asks every partition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from encoder.content import SongContent
from streams.contract.cloudevents import ReceivedEvent, unpack
from streams.contract.errors import BadRecord
from streams.contract.events import SongUpload
from streams.contract.topics import SONG_UPLOADS, WARM_SONGS
from streams.contract.trace_context import traced, traceparent_of
from streams.kafka.partitioner import check_partition
from streams.runtime.tracing import Hop
from streams.songs import messages
from streams.songs.campaign_view import listeners
from streams.songs.matcher import Matched, encoded
from streams.songs.model_swap import Serving
from streams.songs.producer import Sent
from streams.songs.song_record import Novelty, Song, campaign_end, content_of, entry, novelty, recording
from streams.songs.song_store import SongStore, appended

_STAGE = "songs.validate"


@dataclass(frozen=True, slots=True)
class _Upload:
    """An upload that is valid by itself; a takedown has no content.

    Attributes:
        content: all that it brings.
        fitting: what of it the model in use can take.
        timestamp: when the broker appended its record, Unix seconds.
        message: the record.
        hop: the work on it.
        expires_at: the end of its campaign, Unix seconds; known once it is known what the upload leads to.
    """

    received: ReceivedEvent[SongUpload]
    content: SongContent | None
    fitting: SongContent | None
    timestamp: float
    message: Any
    hop: Hop
    expires_at: float = 0.0

    @property
    def song_id(self) -> str:
        return self.event.song_id

    @property
    def event(self) -> SongUpload:
        return self.received.event

    @property
    def partition(self) -> int:
        return int(self.message.partition)


async def serve(store: SongStore, events: Sequence[Any]) -> None:
    """Serve a batch of upload events; returns when all that they lead to is acknowledged."""
    store.metrics.batch_records.observe(len(events))
    async with store.turn:
        # One for the whole batch: what fits one model need not fit the next.
        serving = store.live()
        with store.metrics.uploads_waiting.track_inprogress():
            waiting, buried = await _read(store, serving, events)
            while waiting:
                # A song that comes twice in a batch is served twice, in order.
                first = {each.song_id: each for each in reversed(waiting)}
                await _serve(store, serving, list(first.values()))
                waiting = [each for each in waiting if first[each.song_id] is not each]
            await asyncio.gather(*buried)


async def _read(store: SongStore, serving: Serving, events: Sequence[Any]) -> tuple[list[_Upload], list[Sent]]:
    """The valid uploads, and the dead letters of the others."""
    good: list[_Upload] = []
    buried: list[Sent] = []
    now = store.clock.now()
    for event in events:
        message = event.message
        at = appended(message, now)
        hop = _begun(store, message, now)
        try:
            upload = unpack(SongUpload, message.key, message.value, message.headers, at)
            check_partition(message.key, message.partition, store.naming.songs_partitions)
            gone = SongUpload.taken_down(upload.type)
            content = None if gone else content_of(upload.event)
            fitting = None if content is None else serving.matcher.fitting(content, store.metrics)
        except BadRecord as error:
            buried.append(await store.producer.bury(message, _STAGE, error))
            hop.end(str(error))
            continue
        store.metrics.uploads_received.labels(upload.type).inc()
        good.append(_Upload(upload, content, fitting, at, message, hop))
    return good, buried


def _begun(store: SongStore, message: Any, now: float) -> Hop:
    return store.tracing.begin(f"process {SONG_UPLOADS.name}", traceparent_of(message.headers or ()), now, {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": message.topic,
        "messaging.destination.partition.id": str(message.partition),
        "messaging.kafka.offset": message.offset,
        "coldstart.song_id": (message.key or b"").decode("utf-8", "replace"),
    })  # fmt: skip


async def _serve(store: SongStore, serving: Serving, uploads: Sequence[_Upload]) -> None:
    """Serve uploads of different songs."""
    fresh: list[tuple[_Upload, Song | None]] = []
    sends: list[Sent] = []
    for each in uploads:
        known = await store.song(each.partition, each.song_id)
        try:
            what = novelty(each.received, known, int(each.message.offset))
            if what is not Novelty.NEW:
                store.metrics.uploads_ignored.labels(what.value).inc()
                each.hop.end(attributes={"coldstart.ignored": what.value})
                continue
            fresh.append((replace(each, expires_at=_end(store, each, known)), known))
        except BadRecord as error:
            # Buried before it is remembered: the same revision can come again, corrected.
            sends.append(await store.producer.bury(each.message, _STAGE, error))
            each.hop.end(str(error))
    if not fresh:
        await asyncio.gather(*sends)
        return
    started = store.clock.now()
    matched, others = _matched(store, serving, [each for each, _ in fresh])
    ended = store.clock.now()
    entries: list[tuple[int, str, Song | None]] = []
    for each, known in fresh:
        if each.content is None:
            song = await _take_down(store, serving, each, known, sends)
        elif known is not None and _stays_warm(each, known):
            song = await _update_warm(store, serving, each, each.content, known, matched[each.song_id], sends)
        else:
            song = await _ask(store, serving, each, known, matched[each.song_id], others.get(each.song_id), sends)
        entries.append((each.partition, each.song_id, song))
        if each.content is not None:
            each.hop.step("encode and search", started, ended)
    await asyncio.gather(*sends)
    # Only now: remembered before its commands were safe, an upload would be lost with the process.
    await store.remember(entries)
    for each, _ in fresh:
        store.metrics.uploads_served.inc()
        store.metrics.upload_to_request_seconds.observe(max(0.0, store.clock.now() - each.timestamp))
        each.hop.end()


def _stays_warm(each: _Upload, known: Song) -> bool:
    """Whether a song keeps its listeners; another recording under its id starts over."""
    return known.warm and recording(each.event) == recording(known.event())


def _end(store: SongStore, each: _Upload, known: Song | None) -> float:
    """The end of the campaign to which an upload leads, Unix seconds.

    Raises:
        InvalidField: it leaves a campaign no moment.
    """
    if known is not None and each.content is not None and _stays_warm(each, known):
        # There is no campaign. The full state of a warm song still says when the former one ended.
        return known.expires_at
    if each.content is None:
        # Until then a takedown is remembered, whatever end the song had: it never falls by that.
        return each.timestamp + store.settings.campaign_days * 86_400
    return campaign_end(each.event, each.timestamp, store.settings.campaign_days)


def _matched(
    store: SongStore, serving: Serving, uploads: Sequence[_Upload]
) -> tuple[dict[str, Matched], dict[str, list[bytes]]]:
    """By song: what the space in use says of it, and its vectors in others, during a swap."""
    songs = {each.song_id: each for each in uploads if each.content is not None}
    if not songs:
        return {}, {}
    contents = [each.fitting for each in songs.values() if each.fitting is not None]
    found = serving.matcher.match(contents, store.settings.neighbours, store.metrics)
    matched = dict(zip(songs, found, strict=True))
    if serving.other is None:
        return matched, {}
    others = encoded(serving.other, [each.content for each in songs.values() if each.content is not None])
    return matched, {song_id: [vector] for song_id, vector in zip(songs, others, strict=True)}


async def _ask(
    store: SongStore,
    serving: Serving,
    each: _Upload,
    known: Song | None,
    matched: Matched,
    others: list[bytes] | None,
    sends: list[Sent],
) -> Song:
    """A campaign begins, or goes on with another revision."""
    song = _entry(each, space=serving.space, heard=known.heard if known else 0)
    reports = list((await store.reports_of(each.partition, each.song_id)).values())
    if known is not None:
        if known.ended is None:
            before = msgspec.structs.replace(known, ended="superseded", ended_at=each.timestamp)
            sends.append(await store.show(each.song_id, before, reports))
        if known.warm:
            # Another recording under the same id is nobody's favourite yet, whoever listened to the former one.
            song = msgspec.structs.replace(song, heard=listeners(reports))
            sends += await _cool_down(store, serving, each.song_id, known)
    # Of a song that is not known yet there are reports where a former life of this process asked for them, and ended
    # before it could remember.
    if known is not None or reports:
        sends.append(await store.show(each.song_id, song, reports))
    request = messages.request(song, each.event, matched, others or [], store.settings.budget)
    sends += await store.producer.send_to_all_partitions(traced(request, each.hop.traceparent))
    store.metrics.requests_sent.inc(store.naming.audience_partitions)
    return song


async def _update_warm(
    store: SongStore,
    serving: Serving,
    each: _Upload,
    content: SongContent,
    known: Song,
    matched: Matched,
    sends: list[Sent],
) -> Song:
    """A warm song needs no audience: what changed is where it stands."""
    song = msgspec.structs.replace(
        _entry(each, space=serving.space),
        asked=known.asked,
        at=known.at,
        ended=known.ended,
        ended_at=known.ended_at,
        warm=True,
        heard=known.heard,
        closed=known.closed,
    )
    record = messages.warm(each.song_id, each.event.title, content, serving.space, matched.vector, each.timestamp)
    sends.append(await store.producer.send(WARM_SONGS, record))
    # In other spaces the old content would come back with a rollback; it is encoded again when one comes into use.
    sends += [
        await store.producer.put(WARM_SONGS, messages.warm_key(space, each.song_id), None)
        for space in store.live.warm_in(each.song_id)
        if space != serving.space
    ]
    return song


async def _take_down(store: SongStore, serving: Serving, each: _Upload, known: Song | None, sends: list[Sent]) -> Song:
    """The view says so first, because push systems ask it; a warm song can be retrieved no longer."""
    song = _entry(each, space=serving.space, heard=known.heard if known else 0)
    if known is not None:
        song = msgspec.structs.replace(song, asked=known.asked, at=known.at)
    reports = list((await store.reports_of(each.partition, each.song_id)).values())
    sends.append(await store.show(each.song_id, song, reports))
    command = traced(messages.taken_down(each.song_id, song), each.hop.traceparent)
    sends += await store.producer.send_to_all_partitions(command)
    store.metrics.requests_sent.inc(store.naming.audience_partitions)
    sends += await _cool_down(store, serving, each.song_id, known)
    return song


async def _cool_down(store: SongStore, serving: Serving, song_id: str, known: Song | None) -> list[Sent]:
    """Hand over the deletion of a warm song in every space."""
    spaces = set(store.live.warm_in(song_id))
    if known is not None and known.warm:
        # What was just written may not have been read yet.
        spaces |= {known.space, serving.space}
    return [await store.producer.put(WARM_SONGS, messages.warm_key(space, song_id), None) for space in sorted(spaces)]


def _entry(each: _Upload, *, space: str, heard: int = 0) -> Song:
    song = entry(each.received, each.timestamp, each.expires_at, int(each.message.offset))
    return msgspec.structs.replace(song, space=space, heard=heard)
