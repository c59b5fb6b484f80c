"""The files of the neutral layout, by name."""

INTERACTIONS = "interactions.csv.gz"
SONGS = "songs.csv.gz"
SONG_TAGS = "song_tags.csv.gz"
TAGS = "tags.csv.gz"
VECTORS = "song_vectors.npz"
CITATION = "citation.txt"
