"""What a song says to the audience partitions and to the warm songs: one record each, with a fixed id.

Deterministic apart from the model: a repeated message is the same record.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from encoder.content import SongContent
from streams.contract.cloudevents import Record, pack
from streams.contract.events import SongUpload
from streams.contract.internal_events import MatchRequest, WarmSong
from streams.songs.matcher import Matched
from streams.songs.song_record import Song, recording

SOURCE = "coldstart/songs"


def request(song: Song, upload: SongUpload, matched: Matched, others: Sequence[bytes], budget: int) -> Record:
    """The request for an audience.

    Args:
        upload: the song's, as it was received.
        others: the song's vector in further spaces, in the binary layout.
        budget: where the upload does not say.
    """
    command = MatchRequest(
        song_id=upload.song_id,
        revision=song.asked,
        recording=recording(upload),
        title=upload.title,
        artist_ids=upload.artist_ids,
        vector=matched.vector,
        other_vectors=list(others),
        neighbours=matched.neighbours,
        budget=_budget(upload, budget),
        uploaded_at=song.uploaded,
        expires_at=song.expires,
        available_from=upload.available_from,
        explicit=upload.explicit,
        territories=upload.territories,
    )
    return _packed(command, MatchRequest.REQUESTED, "", song.at)


def taken_down(song_id: str, song: Song) -> Record:
    """The song is withdrawn; with a revision of its own, so that no former request can come after it."""
    command = msgspec.structs.replace(_bare(song_id, song), revision=song.revision)
    return _packed(command, MatchRequest.TAKEN_DOWN, "/taken-down", song.ended_at)


def promoted(song_id: str, song: Song) -> Record:
    """The song is warm: its campaign is over."""
    return _packed(_bare(song_id, song), MatchRequest.PROMOTED, "/promoted", song.at)


def re_anchored(song_id: str, song: Song, space: str, matched: Matched) -> Record:
    """The song's place in the space now in use."""
    command = msgspec.structs.replace(_bare(song_id, song), vector=matched.vector, neighbours=matched.neighbours)
    return _packed(command, MatchRequest.REANCHORED, f"/{space}", song.at)


def warm(song_id: str, title: str, content: SongContent, space: str, vector: bytes, at: float) -> Record:
    """The warm song, with its content, so that it can be encoded again."""
    event = WarmSong(
        song_id=song_id,
        space=space,
        vector=vector,
        title=title,
        features={name: np.asarray(values, "<f4").tobytes() for name, values in content.dense.items()},
        bags={name: dict(bag) for name, bag in content.bags.items()},
    )
    return pack(event, id=f"{space}/{song_id}", source=SOURCE, time=at)


def warm_key(space: str, song_id: str) -> bytes:
    """The key of a warm song, to delete it."""
    return WarmSong(song_id=song_id, space=space, vector=b"").record_key().encode()


def _budget(upload: SongUpload, otherwise: int) -> int:
    if upload.song_id.startswith(SongUpload.PROBES):
        return 0
    return otherwise if upload.budget is None else upload.budget


def _bare(song_id: str, song: Song) -> MatchRequest:
    return MatchRequest(song_id=song_id, revision=song.asked, uploaded_at=song.uploaded, expires_at=song.expires)


def _packed(command: MatchRequest, ce_type: str, suffix: str, at: float) -> Record:
    id = f"{command.song_id}/{command.revision}{suffix}"
    return pack(command, ce_type=ce_type, id=id, source=SOURCE, time=at)
