"""The local copy of a partition's changelog, in RocksDB.

A RocksDB database a partition: a cache of the compacted changelog, which stays the truth. It is written after
each commit, the records and the changelog offset in one batch, so it always stands at some commit. Whatever
makes it unusable is answered in one way: it is deleted, and the state comes from the changelog alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog
from rocksdict import BlockBasedOptions, Options, Rdict, WriteBatch, WriteOptions

from streams.runtime.clock import Clock

_META = b"\x00meta"
_FORMAT = 1
# A deletion stays in the changelog for 7 days (streams/contract/topics.py); a database that was away for longer could
# keep what was deleted. A day of margin for clocks and slow starts.
_OLDEST_S = 6 * 86_400.0
_AT_ONCE = 10_000

_log = structlog.get_logger(__name__)


class StoreCorrupted(Exception):
    """The database cannot be used, or no longer: torn, foreign, too old, or its disk is full or read-only."""


class StoreLocked(Exception):
    """Another process holds the database."""


class _Meta(msgspec.Struct, frozen=True):
    """Which changelog, up to where (exclusive), and when that was written (Unix seconds)."""

    format: int
    changelog: str
    partition: int
    offset: int
    at: float


class Entry(NamedTuple):
    """A changelog record: where it stood, and what it says; a value of None deletes the key.

    A tuple, because a restart makes a million of them: a frozen dataclass takes three times as long.
    """

    offset: int
    key: bytes
    value: bytes | None


class LocalStore:
    """The database of one partition.

    Args:
        folder: its own; made if missing.
        changelog: names the changelog beyond doubt: two topics of one name, one after the other, differ in it.

    Raises:
        StoreCorrupted: it cannot be opened or does not belong to this changelog. :meth:`delete` it and open it again.
        StoreLocked: another process holds it.
    """

    def __init__(self, folder: Path, changelog: str, partition: int, clock: Clock) -> None:
        self._folder = folder
        self._changelog = changelog
        self._partition = partition
        self._clock = clock
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(PermissionError):  # somebody else's, lent to this user
                # It says who heard what: for this user's eyes alone.
                folder.parent.chmod(0o700)
            self._db = Rdict(str(folder), _options())
        except Exception as error:  # rocksdict raises bare Exception, told apart by its text alone
            raise (StoreLocked if "/LOCK: " in str(error) else StoreCorrupted)(f"{folder}: {error}") from error
        try:
            stored = self._db.get(_META)
        except Exception as error:  # rocksdict raises bare Exception
            raise self._closing(str(error)) from error
        meta = _Meta(_FORMAT, changelog, partition, 0, clock.now())
        if stored is not None:
            try:
                meta = msgspec.json.decode(stored, type=_Meta)
            except (msgspec.DecodeError, ValueError) as error:
                raise self._closing(f"its description is not readable ({error})") from None
        if (meta.format, meta.changelog, meta.partition) != (_FORMAT, changelog, partition):
            raise self._closing(f"it belongs to {meta}")
        if clock.now() - meta.at > _OLDEST_S:
            raise self._closing(f"it is {(clock.now() - meta.at) / 86_400:.1f} days old")
        self.offset = meta.offset
        """The changelog offset from which to read on; 0 when nothing is stored."""

    def entries(self) -> Iterator[Entry]:
        """Every record that is stored, in the order of keys.

        Raises:
            StoreCorrupted: a checksum is wrong.
        """
        try:
            items: Any = self._db.items()
            for key, value in items:
                if key != _META:
                    if len(value) < 8:
                        raise StoreCorrupted(f"{self._folder}: a record of {len(value)} bytes, without its offset")
                    yield Entry(int.from_bytes(value[:8], "big"), key, value[8:])
        except (GeneratorExit, StoreCorrupted):
            raise
        except Exception as error:  # rocksdict raises bare Exception
            raise StoreCorrupted(f"{self._folder}: {error}") from error

    def write(self, entries: Iterable[Entry], offset: int) -> None:
        """Take over committed records; the changelog is known up to ``offset``, exclusive.

        Not synchronised: what a power cut takes is read from the changelog again.

        Raises:
            StoreCorrupted: the disk does not take it.
        """
        batch = WriteBatch(raw_mode=True)
        for entry in entries:
            if entry.value is None:
                batch.delete(entry.key)
            else:
                batch.put(entry.key, entry.offset.to_bytes(8, "big") + entry.value)
        meta = _Meta(_FORMAT, self._changelog, self._partition, offset, self._clock.now())
        batch.put(_META, msgspec.json.encode(meta))
        try:
            self._db.write(batch, _write_options())
        except Exception as error:  # rocksdict raises bare Exception
            raise StoreCorrupted(f"{self._folder}: {error}") from error
        self.offset = offset

    def filling(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Pass changelog records through, and store them on the way."""
        waiting: list[Entry] = []
        for entry in entries:
            waiting.append(entry)
            if len(waiting) == _AT_ONCE:
                self.write(waiting, entry.offset + 1)
                waiting.clear()
            yield entry
        if waiting:
            self.write(waiting, waiting[-1].offset + 1)

    @property
    def bytes_on_disk(self) -> int:
        """Of its table files; what was written last may not be in them yet."""
        return int(self._db.property_int_value("rocksdb.total-sst-files-size") or 0)

    def close(self) -> None:
        try:
            self._db.close()
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exception; the changelog has it all
            _log.warning("state database not closed", folder=str(self._folder), error=str(error))

    @staticmethod
    def delete(folder: Path) -> None:
        """Remove a database; nothing is lost but the time to read the changelog."""
        shutil.rmtree(folder, ignore_errors=True)

    def _closing(self, why: str) -> StoreCorrupted:
        self.close()
        return StoreCorrupted(f"{self._folder}: {why}")


class LocalStores:
    """The databases of this machine, one a partition. Whoever opens one holds it until it is closed.

    Args:
        folder: holds one folder a partition.
        changelog: see :class:`LocalStore`.
    """

    def __init__(self, folder: Path, changelog: str, clock: Clock) -> None:
        self._folder = folder
        self._changelog = changelog
        self._clock = clock

    def open(self, partition: int) -> LocalStore | None:
        """The partition's database, created again if it cannot be used; None where the disk cannot be used."""
        try:
            return LocalStore(self._place(partition), self._changelog, partition, self._clock)
        except StoreLocked as error:
            _log.warning("no state on disk: another worker on this machine holds it", why=str(error))
            return None
        except StoreCorrupted as error:
            return self.recreate(partition, None, str(error))

    def open_existing(self, partition: int) -> LocalStore | None:
        """The partition's database as it is; None where there is none, or another process holds it.

        Raises:
            StoreCorrupted: it is torn, foreign or too old. It stays as it is.
        """
        if not self._place(partition).is_dir():
            return None
        try:
            return LocalStore(self._place(partition), self._changelog, partition, self._clock)
        except StoreLocked:
            return None

    def recreate(self, partition: int, store: LocalStore | None, why: str) -> LocalStore | None:
        """Delete and create again; None where the disk cannot be used."""
        self.discard(partition, store, why)
        try:
            return LocalStore(self._place(partition), self._changelog, partition, self._clock)
        except (StoreLocked, StoreCorrupted) as error:
            _log.warning("no state on disk: a restart will read the whole changelog", why=str(error))
            return None

    def discard(self, partition: int, store: LocalStore | None, why: str) -> None:
        """Delete; the state goes on in memory, and a restart reads the changelog."""
        _log.warning("state on disk deleted", partition=partition, why=why)
        if store:
            store.close()
        LocalStore.delete(self._place(partition))

    def _place(self, partition: int) -> Path:
        return self._folder / str(partition)


def _options() -> Any:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    # One database a partition: small buffers, so that sixteen of them stay far below the state itself.
    options.set_write_buffer_size(8 * 2**20)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    # Read once, from end to end, at a start: 32 MB of cache a database would serve nobody.
    blocks = BlockBasedOptions()
    blocks.disable_cache()
    options.set_block_based_table_factory(blocks)
    return options


def _write_options() -> Any:
    options = WriteOptions()
    options.sync = False
    return options
