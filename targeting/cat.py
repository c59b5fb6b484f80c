"""How do prototypes follow the stream?

Incremental CAT (clustering-based audience targeting): a campaign's audience is a few centroids, and whoever comes near
them or the song itself is wanted. A deterministic sample of the audience (:func:`targeting.prototypes.bottom`) is
clustered; then every member whose vector changes takes its old share out of its centroid and puts a new one into the
nearest; what was put in later weighs more. Re-clustering the sample's vectors as they are begins anew.

All campaigns lie stacked in arrays, and a batch moves them all at once. Shares are whole numbers kept in float64, so
that adding and taking out are exact: in any order, and with nothing left behind of a share that was taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting import pace, reverse
from targeting.jagged import Jagged
from targeting.merging import centroids
from targeting.prototypes import Clustering, bottom
from targeting.reverse import Hits
from targeting.slots import I64, U64, hash64, mixed
from targeting.types import F32, F64, Prototypes

# A share is a vector in steps of 1 / _FINE, times a weight of up to _HEAVIEST, times 2 for each half-life passed since
# the clustering, up to _HALF_LIVES of them (later ones decay nothing: by then the sample is to be clustered again).
# 16 + 10 + 12 bits, and 15 for as many members as a sample may have, are the 53 that float64 counts in exactly.
_FINE = 1 << 16
_HEAVIEST = 1 << 10
_HALF_LIVES = 12
_MOST_MEMBERS = 1 << 15

_VERSION = b"\x01"
_NUMBERS = 8  # of a campaign, see Cat._numbers
_MEMBER = np.dtype([("user", "<u8"), ("share", "<u4"), ("weight", "<u2"), ("centroid", "i1")])


@dataclass(frozen=True, slots=True)
class CatConfig:
    """How campaigns follow their audience.

    Attributes:
        centroids: of a campaign, at most 127. One beside the song's own vector targets best (README, "The score").
        sample: members of a campaign's sample.
        half_life: observations of a campaign's members after which a share weighs half of a new one.
        recluster: observations after which a campaign is due for clustering again.
        clustering: how; its ``prototypes`` and ``sample`` are those above.

    Raises:
        ValueError: a number out of its range.
    """

    centroids: int = 1
    sample: int = 1024
    half_life: float = 1024.0
    recluster: int = 4096
    clustering: Clustering = field(default_factory=lambda: Clustering(restarts=1, rounds=2))

    def __post_init__(self) -> None:
        if not 1 <= self.centroids <= 127:
            raise ValueError(f"centroids={self.centroids}: 1 to 127")
        if not 1 <= self.sample <= _MOST_MEMBERS:
            raise ValueError(f"sample={self.sample}: 1 to {_MOST_MEMBERS}")
        if not self.half_life > 0 or self.recluster < 1:
            raise ValueError(f"half_life={self.half_life}, recluster={self.recluster}: more than 0")


class Users(Protocol):
    """Who the rows are."""

    def hashes(self, rows: I64) -> U64:
        """The :func:`targeting.slots.hash64` of their ids, uint64 (n,)."""
        ...

    def vectors(self, rows: I64) -> F32:
        """Their unit vectors, float32 (n, d), zero where there is none: those that :class:`Cat` was told last."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """What a campaign may spend on who comes near.

    Attributes:
        budget: pushes, from ``opened`` until ``ends``, Unix seconds.
        users: who may be scored in that time; ``everyone`` float32 (n, d) are the vectors of some of them.
    """

    budget: int
    opened: float
    ends: float
    users: int
    everyone: F32


class Cat:
    """The active campaigns of one partition. Its methods change it at once; only :meth:`score` and readers do not.

    Between two records (:meth:`encode`) what moved is in memory only: a restart loses at most that drift, and the next
    re-clustering, which depends on nothing but the members' vectors, makes up for it. :meth:`forget` names the
    campaigns whose records must be written again.
    """

    _own: F32
    _sums: F64
    _counts: NDArray[np.int32]
    _stands: I64
    _member: I64
    _rank: U64
    _weight: NDArray[np.uint16]
    _share: NDArray[np.uint32]
    _centroid: NDArray[np.int8]
    _seed: U64
    _events: F64
    _scale: F64
    _first: F64
    _step: F64
    _budget: F64
    _remaining: F64
    _opened: F64
    _ends: F64

    def __init__(self, dimension: int, how: CatConfig, users: Users) -> None:
        self.how = how
        self._dimension = dimension
        self._users = users
        self._slot_of: dict[str, int] = {}
        self._keys: list[str | None] = []
        # For each user the places, campaign * sample + member, that the user has.
        self._places = Jagged(np.int64)
        self._allot(0)

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, key: str) -> bool:
        return key in self._slot_of

    @property
    def keys(self) -> Sequence[str]:
        """The campaigns, in the order in which they were opened or loaded."""
        return list(self._slot_of)

    def key(self, campaign: int) -> str:
        """The key of a campaign in :class:`Hits`.

        Raises:
            KeyError: it is closed.
        """
        found = self._keys[campaign]
        if found is None:
            raise KeyError(campaign)
        return found

    def open(self, key: str, own: F32, users: I64, vectors: F32, weights: F32, seed: int, spend: Pace) -> None:
        """Begins a campaign: a sample of the candidates is clustered, the first threshold set.

        Args:
            key: the song's id.
            own: float32 (d,), the song's unit vector.
            users, vectors, weights: the candidates, int64 (n,), float32 (n, d), and by how much each moves its
                centroid, float32 (n,), at least 0. Of weights, only the ratios count, to a thousandth of the largest.

        Raises:
            ValueError: a campaign of this key is open.
        """
        if key in self._slot_of:
            raise ValueError(f"campaign {key!r} is open")
        slot = self._take(key)
        self._own[slot], self._seed[slot] = own, seed
        self._budget[slot] = self._remaining[slot] = spend.budget
        self._opened[slot], self._ends[slot] = spend.opened, spend.ends
        hashes = self._users.hashes(users)
        chosen = bottom(hashes, self._salt(key), self.how.sample)
        heaviest = float(weights[chosen].max(initial=0)) or 1.0
        self._scale[slot] = _HEAVIEST / heaviest
        self._enrol(
            slot, np.arange(len(chosen)), users[chosen], mixed(hashes[chosen], self._salt(key)), weights[chosen]
        )
        self._cluster(slot, np.arange(len(chosen)), vectors[chosen])
        scores = (spend.everyone @ self._prototypes[:, slot].T).max(axis=1, initial=-np.inf)
        first = pace.opening(scores[spend.everyone.any(axis=1)], spend.budget / max(spend.users, 1))
        self._first[slot], self._step[slot] = first.first, first.scale

    def close(self, key: str) -> None:
        """Ends a campaign. Its place is taken by the next one.

        Raises:
            KeyError: no such campaign.
        """
        slot = self._slot_of.pop(key)
        self._keys[slot] = None
        self._leave(slot, np.flatnonzero(self._member[slot] >= 0))
        for column in self._columns:
            if column is self._member:
                continue
            column[slot] = 0
        self._prototypes[:, slot] = 0

    def remain(self, key: str, pushes: int) -> None:
        """Tells how many pushes of the budget are left."""
        self._remaining[self._slot_of[key]] = pushes

    def thresholds(self, now: float) -> F32:
        """The score that is enough in each campaign, float32 (A,), by place; infinite: nobody is wanted."""
        return pace.thresholds(
            self._first, self._step, self._budget, self._remaining, self._opened, self._ends, now
        )  # fmt: skip

    def score(self, vectors: F32, now: float) -> Hits:
        """Who is wanted by which campaigns: the mean of the cosines to the song and to the nearest centroid.

        Args:
            vectors: float32 (b, d), unit, or divided by their users' interest boundaries.

        Returns:
            Pairs at or above the campaign's threshold; ``campaigns`` are for :meth:`key`. More may be wanted at once
            than pushes are left: the best are to be taken first.
        """
        count = len(self._keys)
        return reverse.hits(vectors, self._prototypes[:, :count], self.thresholds(now)[:count])

    def observe(self, users: I64, old: F32, new: F32) -> None:
        """Members' vectors changed: int64 (m,), each once; float32 (m, d) before and after, zero rows for none."""
        order = np.argsort(users)
        lengths, (places,) = self._places.gather(users[order])
        if not len(places):
            return
        slots = places // self.how.sample
        self._events += np.bincount(slots, minlength=len(self._events))
        self._move(places, np.repeat(order, lengths), old, new)

    def join(self, key: str, users: I64, vectors: F32, weights: F32) -> None:
        """Further listeners, as in :meth:`open`: members from now on if their hashes are low enough.

        Those who are members already stay as they are. A member that has to make room is read from ``Users``.
        """
        slot = self._slot_of[key]
        users, first = np.unique(users, return_index=True)
        fresh = ~np.isin(users, self._member[slot])
        users, vectors, weights = users[fresh], vectors[first[fresh]], weights[first[fresh]]
        ranks = mixed(self._users.hashes(users), self._salt(key))
        there = np.flatnonzero(self._member[slot] >= 0)
        # The lowest of both, those who are there before those who come.
        lowest = np.argsort(np.concatenate([self._rank[slot, there], ranks]), kind="stable")[: self.how.sample]
        stays = np.zeros(len(there) + len(users), bool)
        stays[lowest] = True
        out, into = there[~stays[: len(there)]], np.flatnonzero(stays[len(there) :])
        if not len(into):
            return
        if len(out):
            gone = self._users.vectors(self._member[slot, out])
            self._move(slot * self.how.sample + out, np.arange(len(out)), gone, np.zeros_like(gone))
            self._leave(slot, out)
        at = np.flatnonzero(self._member[slot] < 0)[: len(into)]
        self._enrol(slot, at, users[into], ranks[into], weights[into])
        self._events[slot] += len(into)
        places, which = slot * self.how.sample + at, np.arange(len(into))
        self._move(places, which, np.zeros_like(vectors[into]), vectors[into])

    def forget(self, users: I64) -> list[str]:
        """Erases users, int64 (m,), while ``Users`` still knows their vectors: shares and membership are gone.

        What is left is what would be there without them, but for which centroids others went to on the way; the next
        re-clustering ends that too.

        Returns:
            The campaigns they were members of, whose stored records still hold them.
        """
        users = np.unique(users)
        lengths, (places,) = self._places.gather(users)
        if not len(places):
            return []
        vectors = self._users.vectors(users)
        self._move(places, np.repeat(np.arange(len(users)), lengths), vectors, np.zeros_like(vectors))
        self._vacate(places)
        self._places.erase(users)
        return [self.key(slot) for slot in np.unique(places // self.how.sample).tolist()]

    def prototypes(self, key: str) -> Prototypes:
        """The centroids, without the song's own vector, and how many of the sample each stands for, most first."""
        slot = self._slot_of[key]
        counts = self._counts[slot].astype(np.int64)
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        return Prototypes(_units(self._sums[slot, order]), counts[order])

    def members(self, key: str) -> I64:
        """The rows of the sample's users, int64, in the order of their hashes."""
        slot = self._slot_of[key]
        users: I64 = self._member[slot, self._ranked(slot)]
        return users

    def due(self, most: int) -> list[str]:
        """At most ``most`` campaigns to be clustered again, those that moved most first: then store their records."""
        moved = np.flatnonzero(self._events >= self.how.recluster)
        moved = moved[np.argsort(-self._events[moved], kind="stable")][:most]
        return [self.key(slot) for slot in moved.tolist()]

    def recluster(self, key: str) -> None:
        """Clusters the sample's vectors as they are: the same result whatever way they came there."""
        slot = self._slot_of[key]
        at = self._ranked(slot)
        self._cluster(slot, at, self._users.vectors(self._member[slot, at]))

    def encode(self, key: str) -> bytes:
        """The campaign's record: a version byte and MessagePack; users are in it by their hashes. Nothing changes."""
        slot = self._slot_of[key]
        at = self._ranked(slot)
        members = np.empty(len(at), _MEMBER)
        members["user"] = self._users.hashes(self._member[slot, at])
        members["share"], members["weight"] = self._share[slot, at], self._weight[slot, at]
        members["centroid"] = self._centroid[slot, at]
        return _VERSION + _encoder.encode(
            _Record(
                self._own[slot].astype("<f4").tobytes(),
                self._sums[slot].astype("<f8").tobytes(),
                members.tobytes(),
                [float(column[slot]) for column in self._numbers()],
                int(self._seed[slot]),
            )
        )

    def load(self, key: str, record: bytes, rows: Callable[[U64], I64]) -> None:
        """Opens a campaign as :meth:`encode` wrote it.

        Args:
            rows: gives the row of each user's hash, uint64 (n,) to int64 (n,); -1: unknown, and no member any more.
                If one is, or vectors changed since the record was written, shares are in it that will never be taken
                out: :meth:`recluster`. A campaign that lost members is due for it.

        Raises:
            ValueError: the campaign is open; a record of another version, of other dimensions, or broken.
        """
        if key in self._slot_of:
            raise ValueError(f"campaign {key!r} is open")
        stored = _decode(record, self._dimension, self.how)
        members = np.frombuffer(stored.members, _MEMBER)
        slot = self._take(key)
        self._own[slot] = np.frombuffer(stored.own, "<f4")
        self._sums[slot] = np.frombuffer(stored.sums, "<f8").reshape(self.how.centroids, -1)
        self._seed[slot] = stored.seed
        for column, number in zip(self._numbers(), stored.numbers, strict=True):
            column[slot] = number
        users = np.asarray(rows(members["user"]), np.int64)
        known = np.flatnonzero(users >= 0)
        at = np.arange(len(known))
        self._enrol(
            slot, at, users[known], mixed(members["user"][known], self._salt(key)), np.zeros(len(known), np.float32)
        )
        self._share[slot, at], self._weight[slot, at] = members["share"][known], members["weight"][known]
        self._centroid[slot, at] = placed = members["centroid"][known]
        self._counts[slot] = np.bincount(placed[placed >= 0], minlength=self.how.centroids)
        self._sums[slot, self._counts[slot] == 0] = 0
        if len(known) < len(members):
            self._events[slot] = max(self._events[slot], self.how.recluster)
        self._place(np.asarray([slot]))

    # -- shares

    def _move(self, places: I64, which: I64, old: F32, new: F32) -> None:
        """Takes the share of each place, of vector ``old[which]``, out, and puts one of ``new[which]`` in."""
        slots = places // self.how.sample
        centroid, share, weight = self._centroid.reshape(-1), self._share.reshape(-1), self._weight.reshape(-1)
        before, after = centroid[places].astype(np.int64), np.full(len(places), -1)
        known = np.flatnonzero(np.any(new, axis=1)[which])
        near = reverse.nearest(new, which[known], self._prototypes, slots[known])
        after[known] = self._stands[slots[known], near]
        passed = np.minimum(self._events / self.how.half_life, _HALF_LIVES)
        added = np.rint(weight[places] * np.exp2(passed)[slots]).astype(np.int64)
        added[after < 0] = 0

        outs = np.flatnonzero(before >= 0)
        first = slots * self.how.centroids
        rows = np.concatenate([(first + before)[outs], (first + after)[known]])
        amounts = np.concatenate([-share[places[outs]].astype(np.float64), added[known].astype(np.float64)])
        columns = np.concatenate([which[outs], which[known] + len(old)])
        sums, counts = self._sums.reshape(-1, self._dimension), self._counts.reshape(-1)
        np.add.at(counts, rows, np.repeat(np.asarray([-1, 1], np.int32), [len(outs), len(known)]))
        touched = np.zeros(len(sums), bool)
        touched[rows] = True
        each = np.flatnonzero(touched)
        moved = sparse.csr_matrix(
            (amounts, ((np.cumsum(touched) - 1)[rows], columns)), shape=(len(each), len(old) + len(new))
        )  # fmt: skip
        sums[each] += moved @ _fine(old, new)
        # Vectors that were read back a bit different leave a trace where nobody is left.
        sums[each[counts[each] == 0]] = 0
        centroid[places], share[places] = after, added
        self._place(np.unique(each // self.how.centroids))

    def _cluster(self, slot: int, at: I64, vectors: F32) -> None:
        """Puts members (at, in the order of their hashes) with these vectors into new centroids."""
        how = self.how
        weights = self._weight[slot, at]
        nearest: I64 = np.zeros(len(at), np.int64)
        # One centroid needs no search.
        if how.centroids > 1:
            clustering = replace(how.clustering, prototypes=how.centroids, sample=how.sample)
            found = centroids(vectors, clustering, int(self._seed[slot]), weights.astype(np.float32))
            if len(found):
                nearest = (vectors @ found.T).argmax(axis=1)
        nearest[~vectors.any(axis=1)] = -1
        known = np.flatnonzero(nearest >= 0)
        self._centroid[slot, at] = nearest
        self._share[slot, at] = np.where(nearest >= 0, weights, 0)
        shares = sparse.csr_matrix(
            (weights[known].astype(np.float64), (nearest[known], known)), shape=(how.centroids, len(at))
        )  # fmt: skip
        self._sums[slot] = shares @ _fine(vectors)
        self._counts[slot] = np.bincount(nearest[known], minlength=how.centroids)
        self._events[slot] = 0
        self._place(np.asarray([slot]))

    def _place(self, slots: I64) -> None:
        """Writes the prototypes of campaigns from their sums."""
        live = self._counts[slots] > 0
        # A centroid of nobody stands where another does, so that it changes no maximum.
        stands = np.where(live, np.arange(self.how.centroids), live.argmax(axis=1)[:, None])
        own = self._own[slots][:, None]
        centres = _units(self._sums[slots[:, None], stands])
        alone = ~live.any(axis=1)
        centres[alone] = own[alone]
        self._prototypes[:, slots] = ((centres + own) / 2).swapaxes(0, 1)
        self._stands[slots] = stands

    # -- members

    def _salt(self, key: str) -> int:
        return int(hash64([key])[0])

    def _ranked(self, slot: int) -> I64:
        """The members' indices in the order of their hashes."""
        there = np.flatnonzero(self._member[slot] >= 0)
        return there[np.argsort(self._rank[slot, there], kind="stable")]

    def _enrol(self, slot: int, at: I64, users: I64, ranks: U64, weights: F32) -> None:
        """Writes members without a share at free indices."""
        self._member[slot, at], self._rank[slot, at] = users, ranks
        heavy = np.rint(weights * self._scale[slot])
        self._weight[slot, at] = np.clip(heavy, 1, _HEAVIEST)
        self._centroid[slot, at] = -1
        self._places.append(users, [slot * self.how.sample + at])

    def _leave(self, slot: int, at: I64) -> None:
        """Removes members, whose shares stay where they are."""
        places = slot * self.how.sample + at
        self._places.discard(self._member[slot, at], places)
        self._vacate(places)

    def _vacate(self, places: I64) -> None:
        self._member.reshape(-1)[places] = -1
        for column in (self._rank, self._weight, self._share, self._centroid):
            column.reshape(-1)[places] = 0

    # -- campaigns

    def _take(self, key: str) -> int:
        """The place of a new campaign: a free one, or one more."""
        if len(self._slot_of) < len(self._keys):
            slot = self._keys.index(None)
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            if slot == len(self._own):
                self._allot(max(2 * slot, 8))
        self._slot_of[key] = slot
        return slot

    def _allot(self, campaigns: int) -> None:
        """Makes room for so many campaigns."""
        count, sample, d = self.how.centroids, self.how.sample, self._dimension
        fresh: dict[str, NDArray[Any]] = {
            "_own": np.zeros((campaigns, d), np.float32),
            "_sums": np.zeros((campaigns, count, d), np.float64),
            "_counts": np.zeros((campaigns, count), np.int32),  # members with a share
            "_stands": np.zeros((campaigns, count), np.int64),  # the centroid in each one's place among the prototypes
            "_member": np.full((campaigns, sample), -1, np.int64),
            "_rank": np.zeros((campaigns, sample), np.uint64),
            "_weight": np.zeros((campaigns, sample), np.uint16),
            "_share": np.zeros((campaigns, sample), np.uint32),
            "_centroid": np.zeros((campaigns, sample), np.int8),  # -1: no share
            "_seed": np.zeros(campaigns, np.uint64),
            "_events": np.zeros(campaigns),  # observations since the last clustering
            "_scale": np.zeros(campaigns),  # from weights to whole numbers
            "_first": np.zeros(campaigns),
            "_step": np.zeros(campaigns),
            "_budget": np.zeros(campaigns),
            "_remaining": np.zeros(campaigns),
            "_opened": np.zeros(campaigns),
            "_ends": np.zeros(campaigns),
        }
        for name, column in fresh.items():
            held = getattr(self, name, column[:0])
            column[: len(held)] = held
            setattr(self, name, column)
        prototypes = np.zeros((count, campaigns, d), np.float32)
        held = getattr(self, "_prototypes", prototypes[:, :0])
        prototypes[:, : held.shape[1]] = held
        self._prototypes = prototypes
        self._columns = list(fresh.values())

    def _numbers(self) -> list[F64]:
        """What is a number of a campaign, by campaign, as it is stored."""
        return [
            self._events, self._scale, self._first, self._step, self._budget, self._remaining, self._opened, self._ends
        ]  # fmt: skip


class _Record(msgspec.Struct, array_like=True):
    own: bytes
    sums: bytes
    members: bytes
    numbers: list[float]
    seed: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


def _decode(record: bytes, dimension: int, how: CatConfig) -> _Record:
    if record[:1] != _VERSION:
        raise ValueError(f"a campaign's prototypes of version {record[:1]!r}")
    try:
        stored = _decoder.decode(record[1:])
    except msgspec.DecodeError as error:
        raise ValueError(f"broken prototypes of a campaign: {error}") from error
    sizes = len(stored.own), len(stored.sums), len(stored.members) % _MEMBER.itemsize
    if sizes != (4 * dimension, 8 * dimension * how.centroids, 0) or len(stored.numbers) != _NUMBERS:
        raise ValueError(f"prototypes of a campaign of {sizes} bytes: dimension {dimension}, {how.centroids} centroids")
    if len(stored.members) > how.sample * _MEMBER.itemsize:
        raise ValueError(f"a campaign of more than {how.sample} members")
    return stored


def _fine(*vectors: F32) -> F64:
    """Vectors, one array after the other, in whole steps; exact, because a step is a power of two."""
    found = np.empty((sum(map(len, vectors)), vectors[0].shape[1]), np.float64)
    start = 0
    for each in vectors:
        np.rint(each * np.float32(_FINE), out=found[start : start + len(each)])
        start += len(each)
    return found


def _units(sums: F64) -> F32:
    """Sums (..., d) at unit length; zero stays zero."""
    found = sums.astype(np.float32)
    lengths = np.sqrt(np.einsum("...i,...i->...", found, found))
    found /= np.where(lengths > 0, lengths, 1)[..., None]
    return found
