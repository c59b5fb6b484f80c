"""Files as people have them: whatever is wrong in one is counted, and the rest is read as if nothing were."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.content import ContentTable
from encoder.data.check import check
from encoder.data.dataset import Dataset
from encoder.data.file_names import INTERACTIONS, SONG_TAGS, SONGS, TAGS, VECTORS
from encoder.data.findings import CHANCE, Kind, LayoutError
from encoder.data.layout import read_dataset

HEADERS = {
    SONGS: ("song_id", "artist_id", "duration_sec", "name"),
    TAGS: ("tag_id", "tag"),
    SONG_TAGS: ("song_id", "tag_id", "n_taggers"),
    INTERACTIONS: ("user_id", "song_id", "play_count", "played_at"),
}
NAMES = ["Plain", "One, two", 'Say "no"', "Two\nlines", "Ünï", ""]
N_SONGS, N_USERS = 30, 12
CLEAN: dict[str, list[tuple[str, ...]]] = {
    SONGS: [(f"s{i}", f"a{i % 4}|b{i % 3}", str(100 + i), NAMES[i % len(NAMES)]) for i in range(N_SONGS)],
    TAGS: [(f"t{i}", f"tag {i}") for i in range(5)],
    SONG_TAGS: [(f"s{i}", f"t{(i + k) % 5}", str(k + 1)) for i in range(N_SONGS) for k in range(2)],
    INTERACTIONS: [
        (f"u{u}", f"s{i}", str(1 + (u + i) % 3), str(1_500_000_000 + 100 * i + u))
        for u in range(N_USERS)
        for i in range(N_SONGS)
        if (u + i) % 2
    ],
}


def line(cells: tuple[str, ...]) -> bytes:
    """A line of CSV, quoted where it must be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


@dataclass
class Folder:
    """The same files twice: as somebody damaged them, and as they should be read; and what was damaged."""

    dirty: dict[str, list[bytes]] = field(default_factory=dict)
    meant: dict[str, list[bytes]] = field(default_factory=dict)
    counts: Counter[tuple[str, str, Kind]] = field(default_factory=Counter)

    def lay(self, path: Path, dirty: bool) -> Path:
        path.mkdir()
        for name, lines in (self.dirty if dirty else self.meant).items():
            head = (b"\xef\xbb\xbf" if dirty else b"") + line(HEADERS[name])
            (path / name).write_bytes(gzip.compress(head + b"".join(lines)))
        return path


Damage = tuple[str, str, Kind, Any]

BAD_NUMBERS = st.sampled_from(["0", "-1", "nan", "inf", "1e39", "many", "1,5", "0x1"])
BAD_TIMES = st.sampled_from(["1700000000000", "yesterday", "-inf", "nan", "2024-13-01", "-1e11"])
BLANK = st.sampled_from([" ", "\t", "  ", "\u00a0"])


def replaced(row: tuple[str, ...], column: int, cell: str) -> tuple[str, ...]:
    return (*row[:column], cell, *row[column + 1 :])


@st.composite
def folders(draw: st.DrawFn) -> Folder:
    """Every line of every file is whole, or damaged in one way."""
    folder = Folder()
    for name, rows in CLEAN.items():
        header = HEADERS[name]
        # At most half of the cells of any column, so that none is taken for something else.
        number = draw(st.integers(0, min(6, len(rows) // 2)))
        places = draw(st.lists(st.integers(0, len(rows) - 1), min_size=number, max_size=number, unique=True))
        dirty: list[list[bytes]] = [[line(row)] for row in rows]
        meant: list[list[bytes]] = [[line(row)] for row in rows]
        for place in places:
            row = rows[place]
            kinds = ["blanks", "twice", "empty"]
            kinds += {SONGS: ["number", "quotes", "latin"], TAGS: ["latin"], SONG_TAGS: ["number"]}.get(
                name, ["time", "nobody"]
            )
            kind = draw(st.sampled_from(kinds))
            if kind == "blanks":
                column = draw(st.integers(0, 1 if name in (SONG_TAGS, INTERACTIONS) else 0))
                blank = draw(BLANK)
                cell = draw(st.sampled_from([f"{blank}{row[column]}", f"{row[column]}{blank}"]))
                dirty[place] = [line(replaced(row, column, cell))]
                folder.counts[name, header[column], Kind.BLANKS] += 1
            elif kind == "twice":
                copies = draw(st.integers(1, 3))
                dirty[place] *= 1 + copies
                column = {INTERACTIONS: "", SONGS: "song_id"}.get(name, "tag_id")
                folder.counts[name, column, Kind.TWICE] += copies
            elif kind == "empty":
                commas = b"," * (len(header) - 1)
                dirty[place].append(draw(st.sampled_from([b"", b"  ", b"\r", commas])) + b"\n")
                folder.counts[name, "", Kind.EMPTY_LINE] += 1
            elif kind == "number":
                dirty[place] = [line(replaced(row, 2, draw(BAD_NUMBERS)))]
                meant[place] = [line(replaced(row, 2, ""))]
                folder.counts[name, header[2], Kind.OUT_OF_RANGE] += 1
            elif kind == "time":
                dirty[place] = [line(replaced(row, 3, draw(BAD_TIMES)))]
                meant[place] = [line(replaced(row, 3, ""))]
                folder.counts[name, header[3], Kind.OUT_OF_RANGE] += 1
            elif kind == "nobody":
                dirty[place].append(line(replaced(row, 0, draw(st.sampled_from(["", " "])))))
                folder.counts[name, "user_id", Kind.NO_USER] += 1
            elif kind == "quotes":
                cell, read = draw(
                    st.sampled_from([('"never closed', "never closed"), ('"a"b', "ab"), ('"a" "b"', 'a "b"')])
                )
                dirty[place] = [",".join(replaced(row, 3, cell)).encode() + b"\n"]
                meant[place] = [line(replaced(row, 3, read))]
                folder.counts[name, "", Kind.QUOTES] += 1
            else:
                cells = replaced(row, len(row) - 1, draw(st.sampled_from(["Café", "Ænima", "naïve “x”"])))
                dirty[place] = [line(cells).decode().encode("cp1252")]
                meant[place] = [line(cells)]
                folder.counts[name, "", Kind.ENCODING] += 1
        folder.dirty[name] = [each for some in dirty for each in some]
        folder.meant[name] = [each for some in meant for each in some]
    return folder


def same(one: Dataset, other: Dataset) -> None:
    """Equal in everything but the name and what was found."""
    assert (one.song_ids, one.user_ids, one.titles) == (other.song_ids, other.user_ids, other.titles)
    np.testing.assert_array_equal(one.plays.toarray(), other.plays.toarray())
    np.testing.assert_array_equal(one.played_at, other.played_at)  # type: ignore[arg-type]
    same_content(one.content, other.content)


def same_content(one: ContentTable, other: ContentTable) -> None:
    assert one.dense.keys() == other.dense.keys()
    for name, values in one.dense.items():
        np.testing.assert_array_equal(values, other.dense[name])
    assert one.bags.keys() == other.bags.keys()
    for name, bag in one.bags.items():
        assert bag.terms == other.bags[name].terms
        np.testing.assert_array_equal(bag.weights.toarray(), other.bags[name].weights.toarray())


def counted(dataset: Dataset) -> Counter[tuple[str, str, Kind]]:
    return Counter({(each.file, each.column, each.kind): each.count for each in dataset.findings})


@given(folders())
@settings(max_examples=150, deadline=None)
def test_what_was_damaged_is_counted_and_the_rest_is_read_as_if_nothing_were(folder: Folder) -> None:
    with tempfile.TemporaryDirectory() as where:
        dirty, meant = folder.lay(Path(where, "dirty"), True), folder.lay(Path(where, "meant"), False)
        read = read_dataset(dirty)
        assert counted(read) == folder.counts
        same(read, read_dataset(meant, strict=True))
        for finding in read.findings:
            lines = gzip.decompress((dirty / finding.file).read_bytes()).split(b"\n")
            assert all(1 < place.line <= len(lines) for place in finding.examples)
        if folder.counts:
            with pytest.raises(LayoutError):
                read_dataset(dirty, strict=True)
        checked = check(dirty)
        assert checked.ok
        assert not checked.refused
        assert check(dirty, strict=True).ok == (not folder.counts)
        found = checked.as_json()
        assert {(each["file"], each["column"] or "", each["what"]): each["count"] for each in found["findings"]} == {
            (file, column, kind.words): count for (file, column, kind), count in folder.counts.items()
        }


TEXTS = {name: line(HEADERS[name]) + b"".join(map(line, rows)) for name, rows in CLEAN.items()}


def archive() -> bytes:
    file = io.BytesIO()
    ids = np.array([f"s{i}" for i in range(N_SONGS)])
    np.savez(file, song_ids=ids, audio=np.arange(2.0 * N_SONGS).reshape(N_SONGS, 2))
    return file.getvalue()


ARCHIVE = archive()


@st.composite
def bitten(draw: st.DrawFn, whole: bytes) -> bytes:
    """Pieces of it replaced by other bytes, or taken out."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(whole)))
        end = start + draw(st.integers(0, 40))
        other = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b'"', b",", b"\n", b"\r", b"\x00", b"|", b""])))
        whole = whole[:start] + other + whole[end:]
    return whole


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_are_they_are_read_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*TEXTS, VECTORS, "packed"]))
    with tempfile.TemporaryDirectory() as where:
        path = Path(where)
        for each, text in TEXTS.items():
            (path / each).write_bytes(gzip.compress(text))
        (path / VECTORS).write_bytes(ARCHIVE)
        if name == VECTORS:
            (path / name).write_bytes(data.draw(bitten(ARCHIVE)))
        elif name == "packed":
            (path / SONGS).write_bytes(data.draw(bitten(gzip.compress(TEXTS[SONGS], mtime=0))))
        else:
            (path / name).write_bytes(gzip.compress(data.draw(bitten(TEXTS[name]))))
        checked = check(path)
        checked.as_json()
        refused = any(each.refused for each in checked.found)
        try:
            read = read_dataset(path)
        except LayoutError:
            assert refused
        else:
            assert not refused
            assert read.plays.shape == (len(read.song_ids), len(read.user_ids))
            assert (np.diff(read.plays.indptr) >= 0).all()
            assert np.isfinite(read.plays.data).all()


def lay(path: Path, **changed: bytes) -> Path:
    for name, text in {**TEXTS, **{f"{each}.csv.gz": text for each, text in changed.items()}}.items():
        (path / name).write_bytes(gzip.compress(text))
    return path


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_in_another_unicode_is_read_as_such(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    meant = read_dataset(lay(tmp_path / "one"))
    read = read_dataset(lay(tmp_path / "other", songs=TEXTS[SONGS].decode().encode(encoding)))
    same(read, meant)
    assert counted(read) == {(SONGS, "", Kind.UTF_16): 1}


def test_half_a_character_of_utf_16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="is not utf-16"):
        read_dataset(lay(tmp_path, songs=TEXTS[SONGS].decode().encode("utf-16")[:-1]))


def test_a_column_that_is_wrong_throughout_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Milliseconds for seconds are no dirt: read as unknown, every date would be lost."""
    rows = [replaced(row, 3, f"{row[3]}000") for row in CLEAN[INTERACTIONS]]
    text = line(HEADERS[INTERACTIONS]) + b"".join(map(line, rows))
    with pytest.raises(LayoutError, match=f"played_at: all of its {len(rows)} values.*divide milliseconds by 1000"):
        read_dataset(lay(tmp_path, interactions=text))
    few = line(HEADERS[INTERACTIONS]) + b"".join(map(line, rows[: CHANCE - 1]))
    assert read_dataset(lay(tmp_path, interactions=few)).played_at is None


def test_an_unknown_date_counts_as_the_earliest_where_age_matters(tmp_path: Path) -> None:
    rows = b"user_id,song_id,play_count,played_at\nu1,s1,1,300\nu1,s2,1,soon\nu1,s2,1,\nu1,s3,1,200\nu1,s3,1,soon\n"
    read = read_dataset(lay(tmp_path, interactions=rows))
    np.testing.assert_array_equal(read.played_at, [300, np.nan, 200])  # type: ignore[arg-type]
    np.testing.assert_array_equal(read.last_played(), [300, 200, 200])  # type: ignore[arg-type]
    assert counted(read) == {(INTERACTIONS, "played_at", Kind.OUT_OF_RANGE): 2}


def test_plays_at_another_second_are_no_copies(tmp_path: Path) -> None:
    rows = b"user_id,song_id,play_count,played_at\nu1,s1,1,300\nu1,s1,1,301\nu1,s1,2,300\nu1,s1,1,\nu1,s1,1,\n"
    read = read_dataset(lay(tmp_path, interactions=rows))
    assert read.plays.data.tolist() == [6.0]
    assert read.findings == ()


def test_vectors_that_are_not_finite_are_unknown_and_of_two_the_first_counts(tmp_path: Path) -> None:
    lay(tmp_path)
    ids = np.array(["s1", "s2 ", "s1", "s3"])
    np.savez(tmp_path / VECTORS, song_ids=ids, audio=np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0], [1e300, 1.0]]))
    read = read_dataset(tmp_path)
    expected = np.full((N_SONGS, 2), np.nan)
    expected[1] = 1.0, 2.0
    np.testing.assert_array_equal(read.content.dense["audio"], expected)
    assert counted(read) == {
        (VECTORS, "song_ids", Kind.BLANKS): 1,
        (VECTORS, "song_ids", Kind.TWICE): 1,
        (VECTORS, "audio", Kind.OUT_OF_RANGE): 2,
    }


def test_an_archive_that_holds_anything_but_arrays_is_refused(tmp_path: Path) -> None:
    lay(tmp_path)
    with zipfile.ZipFile(tmp_path / VECTORS, "w") as file:
        file.writestr("song_ids.npy", b"no array")
    with pytest.raises(LayoutError, match="not everything in it is an array"):
        read_dataset(tmp_path)
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(tmp_path / VECTORS)
    with pytest.raises(LayoutError, match="no archive, but one array"):
        read_dataset(tmp_path)


def test_what_begins_as_an_archive_and_is_none_is_closed(tmp_path: Path) -> None:
    """A file left open is a warning when it is collected, and warnings are errors here."""
    lay(tmp_path)
    (tmp_path / VECTORS).write_bytes(b"PK\x03\x04 and nothing that an archive has")
    with pytest.raises(LayoutError, match="cannot be read"):
        read_dataset(tmp_path)
    gc.collect()


def test_an_open_quote_does_not_take_the_lines_after_it_with_it(tmp_path: Path) -> None:
    """Also where nothing closes it, and it would hold more than a cell may."""
    songs = b"song_id,name\n" + b'bad,"open\n' + b"".join(b"s%d,%s\n" % (i, b"x" * 100) for i in range(3_000))
    for name in (TAGS, SONG_TAGS):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / SONGS).write_bytes(gzip.compress(songs))
    (tmp_path / INTERACTIONS).write_bytes(gzip.compress(TEXTS[INTERACTIONS]))
    read = read_dataset(tmp_path)
    assert read.song_ids == ("bad", *(f"s{i}" for i in range(3_000)))
    assert read.titles[:2] == ("open", "x" * 100)
    assert counted(read) == {(SONGS, "", Kind.QUOTES): 1}


def test_everything_that_would_be_refused_is_told_at_once(tmp_path: Path) -> None:
    rows = b"user_id,song_id,play_count\nu1,s1,1\nu1,nowhere,1\nu1,s2,many\nu1,s3\nu2,nothing,1\n"
    checked = check(lay(tmp_path, interactions=rows))
    assert not checked.ok
    assert {(each.column, each.kind): (each.count, each.examples[0].line) for each in checked.refused} == {
        ("song_id", Kind.UNKNOWN_ID): (2, 3),
        ("play_count", Kind.NEEDED): (1, 4),
        ("", Kind.RAGGED): (1, 5),
    }
    assert checked.dataset.plays.nnz == 1
    with pytest.raises(LayoutError) as caught:
        read_dataset(tmp_path)
    assert str(caught.value) in {each.message for each in checked.refused}


@pytest.mark.parametrize("name", [SONGS, INTERACTIONS])
@pytest.mark.parametrize("how", ["missing", "cut", "plain"])
def test_a_file_that_cannot_be_used_is_told_beside_what_the_others_hold(tmp_path: Path, name: str, how: str) -> None:
    lay(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if how == "cut":
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    elif how == "plain":
        (tmp_path / name).write_bytes(gzip.decompress(whole))
    checked = check(tmp_path)
    assert Kind.FILE in {each.kind for each in checked.refused}
    told = checked.as_json()
    assert told["users" if name == SONGS else "songs"] == (N_USERS if name == SONGS else N_SONGS)
