"""Dead letters of skipped records: one each, although every start meets the record again.

The worker that owns the partition writes them. Up to which offset a cached topic's partition has its dead letters is
kept in ``songs-reports``, under a key that no report can have, so that the partition's next worker knows.
"""

from __future__ import annotations

from collections.abc import Collection

from streams.contract.errors import Undecodable
from streams.contract.topics import SONGS_REPORTS
from streams.songs.song_store import SongStore

STAGE = "songs.cache"
# The keys of reports begin with a number.
_PREFIX = b"buried "


async def bury_skipped(store: SongStore, partitions: Collection[int]) -> None:
    """Bury what was skipped in these partitions and has no dead letter yet.

    A process that dies between the dead letter and the note of it causes a second one.
    """
    for found, error in store.skipped.take(partitions):
        key = _PREFIX + f"{found.topic} {found.partition}".encode()
        notes = await store.reports.partition(found.partition)
        if found.offset < int(notes.get(key, b"0")):
            continue
        await (await store.producer.bury_found(found, STAGE, error))
        await store.keep(SONGS_REPORTS, store.reports, [(found.partition, key, b"%d" % (found.offset + 1))])


def is_note(key: bytes, value: bytes) -> bool:
    """Whether an entry of ``songs-reports`` is such a note.

    Raises:
        Undecodable: it should be one and is broken.
    """
    if not key.startswith(_PREFIX):
        return False
    if not value.isdigit():
        raise Undecodable(f"value: {value[:50]!r} is no offset")
    return True
