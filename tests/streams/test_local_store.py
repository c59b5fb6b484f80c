"""The disk's copy of a changelog: whole, or refused and made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.audience.local_store import Entry, LocalStore, LocalStores, StoreCorrupted, StoreLocked
from streams.runtime.clock import ManualClock

DAY = 86_400.0
NAME = "cluster/topic/id"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=1_000_000.0)


def entries(store: LocalStore) -> list[Entry]:
    return sorted(store.entries(), key=lambda entry: entry.key)


def filled(folder: Path, clock: ManualClock) -> list[Entry]:
    """A database with many records in several files, closed."""
    store = LocalStore(folder, NAME, 3, clock)
    content = [Entry(n, f"u{n:06}".encode(), bytes([n % 256]) * 500) for n in range(20_000)]
    list(store.filling(iter(content)))
    store.close()
    return content


def test_what_was_written_is_there_at_its_offset(tmp_path: Path, clock: ManualClock) -> None:
    store = LocalStore(tmp_path / "s", NAME, 3, clock)
    assert store.offset == 0
    store.write([Entry(4, b"u1", b"one"), Entry(5, b"u2", b""), Entry(6, b"c1", b"x")], 9)
    store.write([Entry(10, b"u1", b"two"), Entry(11, b"c1", None)], 12)
    store.close()

    again = LocalStore(tmp_path / "s", NAME, 3, clock)
    assert again.offset == 12
    assert entries(again) == [Entry(10, b"u1", b"two"), Entry(5, b"u2", b"")]
    again.close()


def test_filling_passes_everything_on_and_stores_it(tmp_path: Path, clock: ManualClock) -> None:
    content = filled(tmp_path / "s", clock)
    store = LocalStore(tmp_path / "s", NAME, 3, clock)
    assert store.offset == len(content)
    assert entries(store) == content
    store.close()


@pytest.mark.parametrize("other", [("another/topic/id", 3), (NAME, 4)])
def test_a_foreign_database_is_refused(tmp_path: Path, clock: ManualClock, other: tuple[str, int]) -> None:
    store = LocalStore(tmp_path / "s", NAME, 3, clock)
    store.write([], 1)
    with pytest.raises(StoreLocked):
        LocalStore(tmp_path / "s", *other, clock)
    store.close()
    with pytest.raises(StoreCorrupted, match="belongs to"):
        LocalStore(tmp_path / "s", *other, clock)


def test_a_database_older_than_deletions_live_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    store = LocalStore(tmp_path / "s", NAME, 3, clock)
    store.write([Entry(0, b"u1", b"one")], 1)
    store.close()
    clock.advance(5.9 * DAY)
    LocalStore(tmp_path / "s", NAME, 3, clock).close()
    clock.advance(0.2 * DAY)
    with pytest.raises(StoreCorrupted, match=r"6\.1 days old"):
        LocalStore(tmp_path / "s", NAME, 3, clock)


def test_a_torn_database_stands_at_an_earlier_commit_or_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    """Never records without the offset that belongs to them."""
    store = LocalStore(tmp_path / "s", NAME, 3, clock)
    for n in range(100):
        store.write([Entry(n, b"u", str(n).encode())], n + 1)
    store.close()
    log = max((tmp_path / "s").glob("*.sst"), key=lambda path: path.stat().st_size)
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size // 2)
    try:
        again = LocalStore(tmp_path / "s", NAME, 3, clock)
        found = entries(again)
    except StoreCorrupted:
        return
    assert [int(entry.value or b"-1") + 1 for entry in found] == [again.offset]


def test_flipped_bits_are_found_and_the_database_made_anew(tmp_path: Path, clock: ManualClock) -> None:
    filled(tmp_path / "3", clock)
    biggest = max((tmp_path / "3").glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(biggest.read_bytes())
    for at in range(100, len(data) // 2, 1000):
        data[at] ^= 0xFF
    biggest.write_bytes(data)
    stores = LocalStores(tmp_path, NAME, clock)
    store = stores.open(3)
    assert store is not None
    if store.offset:
        with pytest.raises(StoreCorrupted):
            list(store.entries())
        store = stores.recreate(3, store, "flipped bits")
    assert store is not None
    assert store.offset == 0
    assert entries(store) == []
    store.close()


def test_a_database_that_another_holds_is_left_alone(tmp_path: Path, clock: ManualClock) -> None:
    stores = LocalStores(tmp_path, NAME, clock)
    held = stores.open(3)
    assert held is not None
    held.write([Entry(0, b"u1", b"one")], 1)
    assert stores.open(3) is None
    assert entries(held) == [Entry(0, b"u1", b"one")]
    held.close()


def test_without_a_usable_disk_there_is_no_store_and_no_error(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("in the way")
    assert LocalStores(tmp_path / "file", NAME, clock).open(3) is None


def test_the_state_is_for_the_eyes_of_its_owner(tmp_path: Path, clock: ManualClock) -> None:
    folder = tmp_path / "prefix"
    folder.mkdir(mode=0o755)
    LocalStores(folder, NAME, clock).open(3)
    assert folder.stat().st_mode & 0o777 == 0o700
