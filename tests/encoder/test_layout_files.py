"""The neutral layout: what is written comes back, and a wrong file is refused with its place."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from encoder.data.layout import LayoutError, read_dataset
from encoder.data.write import open_interactions, write_dataset

FILES = {
    "interactions.csv.gz": "user_id,song_id,play_count,played_at\nu1,a,3,100\nu2,a,1,200\nu2,b,2,300\n",
    "songs.csv.gz": 'song_id,name,genre,duration_sec\na,"One, two",rock|pop,100\nb,"line\nbreak",,\nc,Third,pop,\n',
    "song_tags.csv.gz": "song_id,tag_id,n_taggers\na,1,5\nb,2,1\n",
    "tags.csv.gz": "tag_id,tag\n1,loud\n2,quiet\n",
}


def lay(path: Path, **changed: str | None) -> Path:
    """Write FILES, some of them changed (dots in names as __) or left out (None)."""
    files: dict[str, str | None] = dict(FILES)
    files |= {name.replace("__", "."): text for name, text in changed.items()}
    for name, text in files.items():
        if text is not None:
            (path / name).write_bytes(gzip.compress(text.encode()))
    return path


def test_a_directory_becomes_a_data_set(tmp_path: Path) -> None:
    dataset = read_dataset(lay(tmp_path))
    assert dataset.song_ids == ("a", "b", "c")
    assert dataset.user_ids == ("u1", "u2")
    assert dataset.titles == ("One, two", "line\nbreak", "Third")
    np.testing.assert_array_equal(dataset.plays.toarray(), [[3, 1], [0, 2], [0, 0]])
    np.testing.assert_array_equal(dataset.played_at, [100, 200, 300])
    song = dataset.content.song(0)
    assert song.bags == {"genres": {"pop": 1.0, "rock": 1.0}, "tags": {"loud": 5.0}}
    assert song.dense["duration"] == pytest.approx([np.log(100)])
    assert dataset.content.song(1) == SongContent({}, {"tags": {"quiet": 1.0}})
    assert dataset.citation is None


def test_repeated_listens_are_one_listener(tmp_path: Path) -> None:
    rows = "user_id,song_id,play_count,played_at\nu1,b,1,300\nu1,a,3,100\nu1,b,2,200\nu1,c,0,900\n"
    dataset = read_dataset(lay(tmp_path, interactions__csv__gz=rows))
    np.testing.assert_array_equal(dataset.plays.toarray(), [[3], [3], [0]])
    assert dataset.plays.nnz == 2
    np.testing.assert_array_equal(dataset.played_at, [100, 300])


def test_only_songs_and_interactions_are_needed(tmp_path: Path) -> None:
    dataset = read_dataset(
        lay(
            tmp_path,
            interactions__csv__gz="song_id,user_id,play_count\na,u1,2\n",
            songs__csv__gz="song_id\na\n",
            song_tags__csv__gz=None,
            tags__csv__gz=None,
        )
    )
    assert dataset.played_at is None
    assert dataset.content.song(0) == SongContent()
    np.testing.assert_array_equal(dataset.plays.toarray(), [[2]])


def test_tags_without_names_are_their_own_names(tmp_path: Path) -> None:
    dataset = read_dataset(lay(tmp_path, tags__csv__gz=None))
    assert dataset.content.bags["tags"].terms == ("1", "2")


def test_dates_may_be_iso(tmp_path: Path) -> None:
    rows = (
        "user_id,song_id,play_count,played_at\n"
        "u,a,1,1970-01-01T00:01:40Z\nu,b,1,1970-01-01T01:01:40+01:00\nu,c,1,1970-01-01 00:01:40\n"
    )
    dataset = read_dataset(lay(tmp_path, interactions__csv__gz=rows))
    np.testing.assert_array_equal(dataset.played_at, [100, 100, 100])


def test_vectors_are_missing_where_the_archive_is_silent(tmp_path: Path) -> None:
    np.savez(
        lay(tmp_path) / "song_vectors.npz",
        song_ids=np.array(["c", "a"]),
        audio=np.array([[1.0, 2.0], [3.0, 4.0]]),
        text=np.array([[np.nan], [5.0]]),
    )
    dense = read_dataset(tmp_path).content.dense
    np.testing.assert_array_equal(dense["audio"], [[3, 4], [np.nan, np.nan], [1, 2]])
    np.testing.assert_array_equal(dense["text"], [[5], [np.nan], [np.nan]])
    assert dense["audio"].dtype == np.float32


H = "user_id,song_id,play_count"
D = f"{H},played_at"


REFUSED = [
    ("interactions.csv.gz", f"{H}\nu,a,1\nu,zz,1\n", "line 3, column song_id: 'zz' is not in songs.csv.gz"),
    ("interactions.csv.gz", f"{H}\nu,a,1\nu,b,many\n", "line 3, column play_count: 'many' is not a number"),
    ("interactions.csv.gz", f"{H}\nu,a,\n", "line 2, column play_count: '' is not a number"),
    ("interactions.csv.gz", f"{H}\nu,a,2e9\n", "line 2, column play_count: '2e9' is out of range"),
    ("interactions.csv.gz", f"{H}\nu,a,-1\n", "line 2, column play_count: '-1' is out of range"),
    ("interactions.csv.gz", f"{H}\nu,a,nan\n", "line 2, column play_count: 'nan' is out of range"),
    ("interactions.csv.gz", f"{H}\nu,a,1\nu,b\n", "line 3: 'u,b' has 2 columns, the header has 3"),
    ("interactions.csv.gz", f"{H}\n", "holds no row"),
    ("interactions.csv.gz", "user,song_id\nu,a\n", "line 1: no column user_id"),
    ("interactions.csv.gz", f'{H}\nu,"a,1\n', "not CSV"),
    ("songs.csv.gz", "song_id\n", "holds no song"),
    ("song_tags.csv.gz", "song_id,tag_id\nq,1\n", "line 2, column song_id: 'q' is not in songs.csv.gz"),
    ("song_tags.csv.gz", "song_id,tag_id\na,9\n", "line 2, column tag_id: '9' is not in tags.csv.gz"),
]
READ_UNLESS_STRICT = [
    ("interactions.csv.gz", f"{H}\n,a,1\n", "line 2, column user_id: '' names no user"),
    ("interactions.csv.gz", f"{D}\nu,a,1,1700000000000\n", "line 2, column played_at.*divide milliseconds"),
    ("interactions.csv.gz", f"{D}\nu,a,1,yesterday\n", "line 2, column played_at: 'yesterday' is neither"),
    ("songs.csv.gz", 'song_id,name\na,"x\ny"\na,z\n', "line 4, column song_id: 'a' stands here a second time"),
    ("songs.csv.gz", "song_id,duration_sec\na,0\n", "line 2, column duration_sec: '0' is out of range"),
    ("song_tags.csv.gz", "song_id,tag_id,n_taggers\na,1,0\n", "line 2, column n_taggers: '0' is out of range"),
    ("songs.csv.gz", "song_id\n a\n", "line 2, column song_id: ' a' has blanks around the id"),
    ("songs.csv.gz", "song_id\na\n\n", "line 3: '' is an empty line"),
    ("tags.csv.gz", "tag_id,tag\n1,x\n2,y\n1,z\n", "line 4, column tag_id: '1' stands here a second time"),
    ("song_tags.csv.gz", "song_id,tag_id\na,1\na,1\n", "line 3, column tag_id: '1' stands here a second time"),
    ("interactions.csv.gz", f"{D}\nu,a,1,9\nu,a,1,9\n", "line 3: 'u,a' is a listen that stands here a second time"),
]


@pytest.mark.parametrize(("name", "text", "says"), REFUSED)
def test_a_wrong_value_is_named_with_its_place(tmp_path: Path, name: str, text: str, says: str) -> None:
    lay(tmp_path)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    with pytest.raises(LayoutError, match=f"{name}.*{says}"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("name", "text", "says"), READ_UNLESS_STRICT)
def test_what_can_be_read_all_the_same_is_refused_by_strict_with_its_place(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    songs = "song_id\na\nb\nc\n" if name != "songs.csv.gz" else text
    # Nothing but songs and listens refers to an id that only the text in question has.
    alone = {"song_tags__csv__gz": None, "interactions__csv__gz": f"{H}\nu,a,1\n"} if name == "songs.csv.gz" else {}
    lay(tmp_path, **{"songs__csv__gz": songs, **alone})
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    [finding] = read_dataset(tmp_path).findings
    assert (finding.file, finding.count, finding.refused) == (name, 1, False)
    with pytest.raises(LayoutError, match=f"{name}.*{says}") as caught:
        read_dataset(tmp_path, strict=True)
    assert str(caught.value) == finding.message


def test_the_place_is_right_beyond_the_first_chunk(tmp_path: Path) -> None:
    rows = [f"u{i},a,1" for i in range(100_010)]
    rows[100_004] = "u,a,x"
    text = "\n".join([H, *rows, ""])
    with pytest.raises(LayoutError, match="line 100006, column play_count: 'x'"):
        read_dataset(lay(tmp_path, interactions__csv__gz=text))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda whole: whole[:40], "damaged"),
        (lambda whole: gzip.decompress(whole), "not a gzip file"),
        (None, "is missing"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    path = lay(tmp_path) / "songs.csv.gz"
    whole = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(whole))
    with pytest.raises(LayoutError, match=f"songs.csv.gz.*{says}"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"audio": np.ones((1, 2))}, "no array song_ids"),
        ({"song_ids": np.array(["q"]), "audio": np.ones((1, 2))}, "'q' is not in songs.csv.gz"),
        ({"song_ids": np.array(["a"]), "audio": np.ones((2, 2))}, r"array audio.*shape \(1, d\)"),
        ({"song_ids": np.array(["a"], object)}, "cannot be read"),
    ],
)
def test_a_wrong_archive_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(lay(tmp_path) / "song_vectors.npz", **arrays)
    with pytest.raises(LayoutError, match=f"song_vectors.npz.*{says}"):
        read_dataset(tmp_path)


def test_what_should_be_cited_is_found(tmp_path: Path) -> None:
    lay(tmp_path)
    (tmp_path / "source_readme.txt").write_text(
        "Licence\n   It is made available for non-commercial use.\n\n"
        "When using this you should cite:\n   - The source, http://example.org\n\nYou may also cite others.\n"
    )
    assert read_dataset(tmp_path).citation == (
        "It is made available for non-commercial use.\nThe source, http://example.org"
    )
    (tmp_path / "citation.txt").write_text("Cite this.\n")
    assert read_dataset(tmp_path).citation == "Cite this."


def small() -> Dataset:
    songs = [
        SongContent(
            {"audio": [1.0, 2.0], "duration": [5.0]},
            {"tags": {"loud": 2.5}, "genres": {"pop": 1.0, "rock": 1.0}, "artists": {"x": 1.0}},
        ),
        SongContent({}, {"album": {"b1": 1.0}, "language": {"pt": 1.0}}),
    ]
    return Dataset(
        name="small",
        content=ContentTable.from_songs(("s1", "s2"), songs),
        user_ids=("u1", "u2"),
        plays=sparse.csr_matrix(np.array([[2, 0.5], [0, 7]], np.float32)),
        played_at=np.array([10.0, 20.0, 30.0]),
        citation="Cite this.",
        titles=('Sa"id', "a,b"),
    )


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    written = small()
    write_dataset(written, tmp_path / "small")
    read = read_dataset(tmp_path / "small")
    assert (read.name, read.song_ids, read.user_ids) == (written.name, written.song_ids, written.user_ids)
    assert (read.titles, read.citation) == (written.titles, written.citation)
    np.testing.assert_array_equal(read.plays.toarray(), written.plays.toarray())
    np.testing.assert_array_equal(read.played_at, written.played_at)
    for row in range(2):
        ours, theirs = read.content.song(row), written.content.song(row)
        assert ours.bags == theirs.bags
        assert ours.dense.keys() == theirs.dense.keys()
        for name, vector in theirs.dense.items():
            assert ours.dense[name] == pytest.approx(vector, rel=1e-5)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(small(), tmp_path / name)
    for file in ("songs.csv.gz", "song_tags.csv.gz", "interactions.csv.gz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("user_id", ["", "a,b", 'a"b', "a\nb"])
def test_an_id_that_needs_quoting_is_refused(tmp_path: Path, user_id: str) -> None:
    with (
        open_interactions(tmp_path, dated=False) as interactions,
        pytest.raises(ValueError, match="cannot be an id"),
    ):
        interactions.append([user_id], ["s"], np.ones(1, np.float32))


def test_a_bag_without_a_column_is_refused(tmp_path: Path) -> None:
    content = ContentTable.from_songs(["s"], [SongContent({}, {"moods": {"sad": 1.0}})])
    dataset = Dataset("d", content, ("u",), sparse.csr_matrix(np.ones((1, 1), np.float32)))
    with pytest.raises(ValueError, match="moods"):
        write_dataset(dataset, tmp_path)


BEFORE = "".join(f"s{n},Name\n" for n in range(119)) + 's-quoted,"two\nlines"\n'


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ('bad,"a"b"\n', ['line 123: \'bad,"a"b"\'', "is not CSV"]),
        ('bad,"one\ntwo"x\n', ["line 123: 'bad,\"one'", "is not CSV"]),
        ('bad,"never closed\n', ["line 123: 'bad,\"never closed'", "is not CSV"]),
        ("bad,Name,more\n", ["line 123: 'bad,Name,more' has 3 columns"]),
        ("s1,Name\n", ["line 123, column song_id: 's1' stands here a second time"]),
        (",Name\n", ["line 123, column song_id: '' names no song"]),
        ("bad,\udcff\n", ["line 123: 'bad,ÿ' is not UTF-8"]),
    ],
)
def test_a_record_that_is_refused_is_named_by_its_line_and_its_text(
    tmp_path: Path, record: str, parts: list[str]
) -> None:
    """The record before it holds a line break, so that lines and records differ."""
    lay(tmp_path)
    text = f"song_id,name\n{BEFORE}{record}"
    (tmp_path / "songs.csv.gz").write_bytes(gzip.compress(text.encode(errors="surrogateescape")))
    with pytest.raises(LayoutError) as caught:
        read_dataset(tmp_path, strict=True)
    for part in ["songs.csv.gz", *parts]:
        assert part in str(caught.value)


def test_line_breaks_in_columns_that_are_not_read_are_counted_too(tmp_path: Path) -> None:
    lay(tmp_path, songs__csv__gz='song_id,remark\na,"two\nlines"\nb,x\na,y\n')
    with pytest.raises(LayoutError, match="line 5, column song_id: 'a'"):
        read_dataset(tmp_path, strict=True)


@pytest.mark.data
def test_the_real_data_are_whole() -> None:
    """The counts that the source's own readme states."""
    path = os.environ.get("COLDSTART_DATA")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("COLDSTART_DATA must be set in CI")
        pytest.skip("COLDSTART_DATA is not set")
    dataset = read_dataset(Path(path))
    assert dataset.plays.shape == (17632, 1892)
    assert dataset.plays.nnz == 92834
    assert dataset.citation is not None
    assert "Last.fm website, http://www.lastfm.com" in dataset.citation
    assert "non-commercial" in dataset.citation
