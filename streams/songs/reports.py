"""What follows when audience partitions report on a song: its view, its end, its promotion."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import structlog

from streams.contract.errors import BadRecord
from streams.contract.internal_events import CampaignReport
from streams.contract.topics import CAMPAIGN_REPORTS, WARM_SONGS
from streams.contract.trace_context import traceparent_of
from streams.runtime.tracing import Hop
from streams.songs import messages
from streams.songs.campaign_view import kept, listeners, newer, read_report, reported_end
from streams.songs.matcher import encoded
from streams.songs.producer import Sent
from streams.songs.song_record import KEPT_S, Song, content_of, report_key
from streams.songs.song_store import SongStore, appended

_STAGE = "songs.merge"

Place = tuple[int, str]
"""A song with the partition of its reports."""

_log = structlog.get_logger(__name__)


async def merge(store: SongStore, events: Sequence[Any]) -> None:
    """Merge a batch of report events; returns when all that follows is acknowledged."""
    async with store.turn:
        hops: list[Hop] = []
        fresh, sends = await _read(store, events, hops)
        touched: dict[Place, dict[bytes, CampaignReport]] = {}
        for key, (partition, report) in fresh.items():
            touched.setdefault((partition, report.song_id), {})[key] = report
        songs: dict[Place, tuple[Song, list[CampaignReport]]] = {}
        for place, reports in touched.items():
            if (song := await store.song(*place)) is not None:
                songs[place] = song, list(((await store.reports_of(*place)) | reports).values())
        for place, song in (await _ended(store, songs)).items():
            songs[place] = song, songs[place][1]
        for (_, song_id), (song, reports_of_song) in songs.items():
            sends.append(await store.show(song_id, song, reports_of_song))
        await asyncio.gather(*sends)
        # Last: a report that is remembered is not looked at again.
        await store.keep_reports([(partition, key, report) for key, (partition, report) in fresh.items()])
        for hop in hops:
            hop.end()


async def _read(
    store: SongStore, events: Sequence[Any], hops: list[Hop]
) -> tuple[dict[bytes, tuple[int, CampaignReport]], list[Sent]]:
    """The newest report of every song and audience partition that says something new, by key; and dead letters.

    Args:
        hops: the work on each of them that belongs to a trace is added.
    """
    now = store.clock.now()
    fresh: dict[bytes, tuple[int, CampaignReport]] = {}
    buried: list[Sent] = []
    for event in events:
        message = event.message
        try:
            at, partitions = appended(message, now), store.naming.audience_partitions
            report = read_report(message.key, message.value, message.headers, at, partitions)
        except BadRecord as error:
            buried.append(await store.producer.bury(message, _STAGE, error))
            continue
        key = report_key(report.song_id, report.partition)
        known = fresh[key][1] if key in fresh else await store.report(message.partition, key)
        if newer(report, known) and not await _forgotten(store, message.partition, report, now):
            fresh[key] = (message.partition, kept(report))
            store.metrics.reports_merged.inc()
            if trace := traceparent_of(message.headers or ()):
                hops.append(store.tracing.begin(f"process {CAMPAIGN_REPORTS.name}", trace, now, {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": message.topic,
                    "coldstart.song_id": report.song_id,
                    "coldstart.partition": report.partition,
                }))  # fmt: skip
    return fresh, buried


async def _forgotten(store: SongStore, partition: int, report: CampaignReport, now: float) -> bool:
    """Whether a report comes after all that was known of its song is gone.

    One of a song that is not known yet may be early: its upload is read again after a crash, and then it counts.
    """
    song = await store.song(partition, report.song_id)
    return song.closed if song is not None else report.started_at.timestamp() + KEPT_S < now


async def _ended(store: SongStore, songs: dict[Place, tuple[Song, list[CampaignReport]]]) -> dict[Place, Song]:
    """The entries of the songs that grew warm or whose campaigns ended, remembered."""
    warm: dict[Place, Song] = {}
    over: dict[Place, Song] = {}
    for place, (song, reports) in songs.items():
        heard = listeners(reports) - song.heard
        # The listens that pushes lead to come after the budget is spent.
        if song.ended in (None, "budget") and not song.warm and heard >= store.settings.warm_listeners:
            warm[place] = song
        elif song.ended is None and (end := reported_end(song, reports, store.naming.audience_partitions)):
            over[place] = msgspec.structs.replace(song, ended=end[0], ended_at=end[1])
    if warm:
        over |= await _promote(store, warm)
    if over:
        await store.remember([(partition, song_id, song) for (partition, song_id), song in over.items()])
    return over


async def _promote(store: SongStore, songs: dict[Place, Song]) -> dict[Place, Song]:
    """Make songs warm: first they can be retrieved, then their campaigns end. What a crash leaves undone is done again
    under the same keys, because the entry that says so is written last."""
    serving, now = store.live(), store.clock.now()
    uploads = {place: song.event() for place, song in songs.items()}
    contents = {place: content_of(upload) for place, upload in uploads.items()}
    vectors = dict(zip(songs, encoded(serving.matcher.encoder, contents.values()), strict=True))
    records = [
        messages.warm(place[1], upload.title, contents[place], serving.space, vectors[place], now)
        for place, upload in uploads.items()
    ]
    await asyncio.gather(*[await store.producer.send(WARM_SONGS, record) for record in records])
    sent = [
        await store.producer.send_to_all_partitions(messages.promoted(place[1], song)) for place, song in songs.items()
    ]
    await asyncio.gather(*chain.from_iterable(sent))
    store.metrics.requests_sent.inc(len(songs) * store.naming.audience_partitions)
    _log.info("promoted", songs=[song_id for _, song_id in songs], space=serving.space)
    return {
        place: msgspec.structs.replace(song, warm=True, space=serving.space, ended="promoted", ended_at=now)
        for place, song in songs.items()
    }
