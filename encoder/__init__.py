"""Content -> vector: places a song nobody has heard among the songs that people listen to."""

from encoder.artifact import ArtifactError, Manifest, WarmSongs, load_encoder, load_warm, read_manifest
from encoder.content import Bag, ContentTable, SongContent
from encoder.serving import Encoder

__all__ = [
    "ArtifactError",
    "Bag",
    "ContentTable",
    "Encoder",
    "Manifest",
    "SongContent",
    "WarmSongs",
    "load_encoder",
    "load_warm",
    "read_manifest",
]
