"""Does what no event triggers: moves songs after a model swap, ends their campaigns, and forgets them later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum, auto
from itertools import chain

import msgspec

from streams.contract.topics import CAMPAIGNS, WARM_SONGS
from streams.songs import messages
from streams.songs.matcher import encoded, what_fits
from streams.songs.model_swap import Serving
from streams.songs.producer import Sent
from streams.songs.song_record import Song, content_of
from streams.songs.song_store import SongStore

# Campaigns last for days; a song served in the moment of a swap waits this long for the next round.
_EVERY_S = 10.0
# Songs checked between two turns of the event loop: about a millisecond.
_AT_ONCE = 250
# Songs served at once: an upload waits for at most these.
_TOGETHER = 32

Place = tuple[int, str]


class Due(Enum):
    """What a song waits for."""

    MOVE = auto()
    EXPIRE = auto()
    STAY_DOWN = auto()
    FORGET = auto()


def due(song: Song, space: str, warm_here: bool, now: float) -> Due | None:
    """What is to be done for a song, if anything.

    Args:
        space: the one in use.
        warm_here: the song can be retrieved in it.
        now: Unix seconds.
    """
    if song.ended is None and now >= song.expires_at:
        return Due.EXPIRE
    if now >= song.forgotten_at and not song.closed:
        return Due.FORGET
    if (song.ended is None or song.warm) and song.space != space:
        return Due.MOVE
    if song.ended == "taken-down" and warm_here:
        return Due.STAY_DOWN
    return None


class Reconciler:
    """Goes through the song records of the partitions that this worker serves.

    The song records tell what is still to be done, so a worker that dies halfway leaves the rest to the next one.
    """

    def __init__(self, store: SongStore) -> None:
        self._store = store
        # Partition -> (space, when), monotonic seconds, of its last round.
        self._rounds: dict[int, tuple[str, float]] = {}

    def forget(self) -> None:
        """After a rebalance: what another worker left undone is looked for at once."""
        self._rounds.clear()

    async def run(self, partitions: Sequence[int]) -> None:
        """Do what is due in these partitions; cheap when nothing can be."""
        for partition in partitions:
            space, at = self._store.live().space, self._store.clock.monotonic()
            before = self._rounds.get(partition)
            if before is None or before[0] != space or at >= before[1] + _EVERY_S:
                await self._round(partition)
                self._rounds[partition] = space, at

    async def _round(self, partition: int) -> None:
        keys = list(await self._store.song_records.partition(partition))
        for start in range(0, len(keys), _AT_ONCE):
            found = [key.decode() for key in keys[start : start + _AT_ONCE] if await self._due(partition, key.decode())]
            for first in range(0, len(found), _TOGETHER):
                async with self._store.turn:
                    await self._serve(partition, found[first : first + _TOGETHER])
            await asyncio.sleep(0)

    async def _due(self, partition: int, song_id: str) -> tuple[Due, Song] | None:
        song = await self._store.song(partition, song_id)
        if song is None:
            return None
        space = self._store.live().space
        # Looked up only where it matters: most songs are not taken down.
        warm_here = song.ended == "taken-down" and space in self._store.live.warm_in(song_id)
        what = due(song, space, warm_here, self._store.clock.now())
        return (what, song) if what else None

    async def _serve(self, partition: int, song_ids: Sequence[str]) -> None:
        # Checked again: an upload may have come in between.
        found = {song_id: each for song_id in song_ids if (each := await self._due(partition, song_id))}
        of = {what: {id: song for id, (due, song) in found.items() if due is what} for what in Due}
        serving = self._store.live()
        entries: list[tuple[int, str, Song | None]] = []
        sends: list[Sent] = []
        for song_id, song in of[Due.EXPIRE].items():
            over = msgspec.structs.replace(song, ended="expired", ended_at=song.expires_at)
            reports = await self._store.reports_of(partition, song_id)
            sends.append(await self._store.show(song_id, over, list(reports.values())))
            entries.append((partition, song_id, over))
        # Published again, with an older model: it stays down.
        sends += [
            await self._store.producer.put(WARM_SONGS, messages.warm_key(serving.space, song_id), None)
            for song_id in of[Due.STAY_DOWN]
        ]
        sends += await self._move({id: song for id, song in of[Due.MOVE].items() if song.warm}, serving)
        sends += await self._re_anchor({id: song for id, song in of[Due.MOVE].items() if not song.warm}, serving)
        entries += [
            (partition, song_id, msgspec.structs.replace(song, space=serving.space))
            for song_id, song in of[Due.MOVE].items()
        ]
        for song_id in of[Due.FORGET]:
            sends.append(await self._store.producer.put(CAMPAIGNS, song_id.encode(), None))
            gone = await self._store.reports_of(partition, song_id)
            await self._store.keep_reports([(partition, key, None) for key in gone])
        # A warm song is kept for as long as it is warm: the next model needs its content.
        entries += [
            (partition, song_id, msgspec.structs.replace(song, closed=True) if song.warm else None)
            for song_id, song in of[Due.FORGET].items()
        ]
        await asyncio.gather(*sends)
        await self._store.remember(entries)

    async def _move(self, songs: dict[str, Song], serving: Serving) -> list[Sent]:
        """Warm songs of the former space into the one in use; those that were published with it stand there already,
        with vectors that their listeners made."""
        missing = {id: song.event() for id, song in songs.items() if serving.space not in self._store.live.warm_in(id)}
        contents = {song_id: content_of(upload) for song_id, upload in missing.items()}
        now = self._store.clock.now()
        return [
            await self._store.producer.send(
                WARM_SONGS,
                messages.warm(song_id, missing[song_id].title, content, serving.space, vector, now),
            )
            for (song_id, content), vector in zip(
                contents.items(), encoded(serving.matcher.encoder, contents.values()), strict=True
            )
        ]

    async def _re_anchor(self, songs: dict[str, Song], serving: Serving) -> list[Sent]:
        """Tell every partition where the songs on their way stand in the space in use."""
        if not songs:
            return []
        contents = [what_fits(serving.matcher.encoder, content_of(song.event())) for song in songs.values()]
        matched = serving.matcher.match(contents, self._store.settings.neighbours, self._store.metrics)
        sent = [
            await self._store.producer.send_to_all_partitions(messages.re_anchored(song_id, song, serving.space, each))
            for (song_id, song), each in zip(songs.items(), matched, strict=True)
        ]
        self._store.metrics.requests_sent.inc(len(songs) * self._store.naming.audience_partitions)
        return list(chain.from_iterable(sent))
