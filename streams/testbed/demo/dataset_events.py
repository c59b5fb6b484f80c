"""The events that a data set amounts to, and uploads that are wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from encoder.data.dataset import Dataset
from encoder.data.split import Split
from streams.contract.cloudevents import Record, pack
from streams.contract.events import DenseFeature, Listen, SongUpload
from streams.songs.song_record import DEFAULT_SPACE

SOURCE = "coldstart/demo"


def upload_event(dataset: Dataset, row: int, budget: int) -> SongUpload:
    """The upload of one song of a data set: its content, nothing of its listeners."""
    content = dataset.content.song(row)
    language = next(iter(content.bags.get("language", {})), None)
    duration = content.dense.get("duration")
    features = {}
    for name, vector in content.dense.items():
        if name != "duration":
            plain, _, space = name.partition(":")
            features[plain] = DenseFeature(space or DEFAULT_SPACE, list(vector))
    return SongUpload(
        song_id=dataset.song_ids[row],
        revision=1,
        title=dataset.titles[row] if dataset.titles else dataset.song_ids[row],
        artist_ids=list(content.bags.get("artists", {})),
        album_id=next(iter(content.bags.get("album", {})), None),
        language=language,
        genres=list(content.bags.get("genres", {})),
        duration_ms=None if duration is None else round(1000 * math.exp(duration[0])),
        features=features,
        tags=dict(content.bags.get("tags", {})),
        budget=budget,
    )


def upload_record(event: SongUpload, now: float) -> Record:
    """The record that an upload service would send."""
    id = f"{event.song_id}/{event.revision}"
    return pack(event, ce_type=SongUpload.UPLOADED, id=id, source=SOURCE, time=now)


def history(dataset: Dataset, split: Split, now: float) -> Iterator[Record]:
    """The listens of the warm songs, user by user, each user's plays of a song as one event.

    User by user, because the changelog then gets each history about once: the same listens in the order of
    songs would write it anew for every listen.
    """
    warm = dataset.plays[split.warm]
    order = warm.T.tocsr()
    dates = dataset.last_played()
    if dates is None:
        played_at = None
    else:
        dated = dataset.plays.copy()
        # Positions, not times, are transposed: a time may be zero, which a sparse matrix would drop.
        dated.data = np.arange(1, len(dated.data) + 1, dtype=np.float64)
        played_at = dates[dated[split.warm].T.tocsr().data.astype(np.int64) - 1]
    song_ids = [dataset.song_ids[row] for row in split.warm]
    for user, user_id in enumerate(dataset.user_ids):
        for at in range(order.indptr[user], order.indptr[user + 1]):
            time = now if played_at is None else float(played_at[at])
            song_id = song_ids[order.indices[at]]
            id = f"{user_id}/{song_id}"
            event = Listen(
                listen_id=id,
                user_id=user_id,
                song_id=song_id,
                played_at=datetime.fromtimestamp(time, UTC),
                source="organic",
                plays=max(1, int(order.data[at])),
            )
            yield pack(event, id=id, source=SOURCE, time=time)


def poisoned(good: Record, number: int) -> Record:
    """A malformed upload made of a good one; each kind of damage in turn, each record different."""
    song_id = f"poison-{number}"
    key = song_id.encode()
    named = dict(good.headers)
    broken_headers = {
        "wrong type": named | {"ce_type": b"coldstart.listen.v1"},
        "no id": {name: value for name, value in named.items() if name != "ce_id"},
        "no time": named | {"ce_time": b"yesterday"},
        "future": named | {"ce_time": b"2999-01-01T00:00:00+00:00"},
    }
    start = f'{{"song_id":"{song_id}","revision":1,"title":"x"'
    values: list[tuple[str, bytes]] = [
        ("cut off", f'{start},"tags":{{"a"'.encode()),
        ("no JSON", b"\x00\xff\xfe" + key),
        ("wrong field type", f'{{"song_id":"{song_id}","revision":"one","title":"x","tags":{{"a":1}}}}'.encode()),
        ("missing field", f'{{"song_id":"{song_id}","revision":1,"tags":{{"a":1}}}}'.encode()),
        ("no content", f"{start}}}".encode()),
        ("negative weight", f'{start},"tags":{{"a":-1}}}}'.encode()),
        ("wrong key", f'{{"song_id":"other-{number}","revision":1,"title":"x","tags":{{"a":1}}}}'.encode()),
    ]
    kinds = [*values, *((name, f'{start},"tags":{{"a":1}}}}'.encode()) for name in broken_headers)]
    name, value = kinds[number % len(kinds)]
    return Record(key, value, list(broken_headers.get(name, named).items()))
